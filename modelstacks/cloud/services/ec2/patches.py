"""EC2: what VPC endpoints need of their network, and private DNS that can be switched."""

from __future__ import annotations

from collections import Counter
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.vpcs import VPCs

from modelstacks.cloud.account.additions import Additions
from modelstacks.cloud.account.patching import afterwards, beforehand


def _install() -> None:
    """Change moto's VPC endpoints."""

    @beforehand(VPCs, "create_vpc_endpoint")
    def check(self: Any) -> None:
        if str(self._get_param("VpcEndpointType", "Gateway")).lower() != "interface":
            return
        _check_zones(self.ec2_backend, self._get_param("SubnetIds", []))
        if self._get_bool_param("PrivateDnsEnabled", if_none=True):
            _check_private_dns(self.ec2_backend, self._get_param("VpcId"), self._get_param("ServiceName"))

    @beforehand(VPCs, "modify_vpc_endpoint")
    def check_change(self: Any) -> None:
        endpoint = self.ec2_backend.vpc_end_points.get(self._get_param("VpcEndpointId"))
        if endpoint is None:
            return
        removed = self._get_param("RemoveSubnetIds", [])
        kept = [subnet for subnet in endpoint.subnet_ids or [] if subnet not in removed]
        _check_zones(self.ec2_backend, [*kept, *self._get_param("AddSubnetIds", [])])
        if self._get_bool_param("PrivateDnsEnabled") and not endpoint.private_dns_enabled:
            _check_private_dns(self.ec2_backend, endpoint.vpc_id, endpoint.service_name)

    @afterwards(VPCs, "modify_vpc_endpoint")
    def switch_private_dns(self: Any, answer: Any) -> Any:
        if (enabled := self._get_bool_param("PrivateDnsEnabled")) is not None:
            self.ec2_backend.vpc_end_points[self._get_param("VpcEndpointId")].private_dns_enabled = enabled
        return answer


def _check_private_dns(backend: Any, vpc_id: str, service: str) -> None:
    vpc = backend.get_vpc(vpc_id)
    if not (vpc.enable_dns_support and vpc.enable_dns_hostnames):
        raise EC2ClientError(
            "InvalidParameter",
            "Enabling private DNS requires both enableDnsSupport and enableDnsHostnames VPC attributes "
            f"set to true for {vpc_id}",
        )
    for other in backend.vpc_end_points.values():
        interface = str(other.vpc_endpoint_type).lower() == "interface" and other.state != "deleted"
        same = (other.vpc_id, other.service_name) == (vpc_id, service)
        if interface and same and other.private_dns_enabled:
            raise EC2ClientError(
                "InvalidParameter",
                "private-dns-enabled cannot be set because there is already a conflicting DNS domain for "
                f"{_domain(service)} in the VPC {vpc_id} (endpoint {other.id})",
            )


def _domain(service: str) -> str:
    """A service's name in private DNS: com.amazonaws.R.ecr.api is reached as api.ecr.R.amazonaws.com."""
    _, _, region, *parts = service.split(".")
    return ".".join([*reversed(parts), region, "amazonaws.com"])


def _check_zones(backend: Any, subnet_ids: list[str]) -> None:
    subnets = [backend.get_subnet(subnet_id) for subnet_id in subnet_ids]
    zones = Counter(subnet.availability_zone for subnet in subnets)
    for subnet in subnets:
        if zones[subnet.availability_zone] > 1:
            raise EC2ClientError(
                "DuplicateSubnetsInSameZone",
                f"Found another VPC endpoint subnet in the availability zone of {subnet.id}. VPC endpoint "
                "subnets should be in different availability zones supported by the VPC endpoint service.",
            )


ADDITIONS = Additions(install=_install)
