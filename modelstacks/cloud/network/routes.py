"""Routes: how a network interface reaches an AWS service, or why it cannot.

From a subnet without a way out, a service is reached through an interface endpoint with private DNS, or, for
S3 and DynamoDB, through a gateway endpoint in the subnet's route table.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelstacks.cloud.network import Refused, security_groups
from modelstacks.cloud.services.ec2.snapshot import Ec2Snapshot, NetworkInterface, VpcEndpoint
from modelstacks.cloud.snapshot import Account

__all__ = ["Path", "reach"]

HTTPS = 443
GATEWAY_SERVICES = frozenset({"s3", "dynamodb"})


@dataclass(frozen=True, slots=True)
class Path:
    """A way to a service; `endpoint` is None over the internet (NAT, or no VPC at all)."""

    endpoint: VpcEndpoint | None = None


def reach(
    account: Account, source: NetworkInterface | None, service: str, *, public_address: bool = False
) -> Path | Refused:
    """The way from `source` to a service ("s3", "sagemaker.runtime"). A None source is in no VPC."""
    if source is None:
        return Path()
    name, vpc = f"com.amazonaws.{account.region}.{service}", account[Ec2Snapshot].vpc_of(source)
    here = [one for one in account[Ec2Snapshot].vpc_endpoints if one.vpc_id == vpc and one.service == name]
    interface = next((one for one in here if one.type == "Interface" and one.private_dns), None)
    if interface is not None:
        target = NetworkInterface(
            f"endpoint {interface.id} ({service})", tuple(interface.subnet_ids), interface.security_group_ids
        )
        return security_groups.connect(account, source, target, HTTPS) or Path(interface)
    path: Path | None = None
    for subnet in account[Ec2Snapshot].subnets_of(source):
        found = _from_subnet(account, source, subnet.id, service, name, here, public_address=public_address)
        if isinstance(found, Refused):
            return found
        path = found
    return path or Refused(f"{source.what} -> {service}", f"{source.what} is in no known subnet", "network")


def _from_subnet(
    account: Account,
    source: NetworkInterface,
    subnet_id: str,
    service: str,
    name: str,
    here: list[VpcEndpoint],
    *,
    public_address: bool,
) -> Path | Refused:
    table = account[Ec2Snapshot].route_table(subnet_id)
    gateway = next((one for one in here if one.type == "Gateway"), None)
    if gateway is not None and table is not None and table.id in gateway.route_table_ids:
        prefix_list = account[Ec2Snapshot].prefix_list_ids.get(name, "")
        return security_groups.leave(
            account, source, HTTPS, prefix_list=prefix_list, to=f"{service} ({name})"
        ) or Path(gateway)
    way_out = next(
        (route.target for route in (table.routes if table else ()) if route.destination == "0.0.0.0/0"), ""
    )
    if way_out.startswith("nat-") or (way_out.startswith("igw-") and public_address):
        return security_groups.leave(account, source, HTTPS, to=f"{service} over the internet") or Path()
    return Refused(
        f"{source.what} -> {service}",
        f"no route to {service} from subnet {subnet_id}: "
        + _why(account[Ec2Snapshot].vpc_of(source), source, subnet_id, service, name, here, way_out),
        "network",
    )


def _why(
    vpc: str,
    source: NetworkInterface,
    subnet_id: str,
    service: str,
    name: str,
    here: list[VpcEndpoint],
    way_out: str,
) -> str:
    hidden = next((one for one in here if one.type == "Interface"), None)
    if hidden is not None:
        return f"interface endpoint {hidden.id} has private DNS switched off"
    unattached = next((one for one in here if one.type == "Gateway"), None)
    if unattached is not None:
        return f"gateway endpoint {unattached.id} is not in the route table of {subnet_id}"
    if way_out.startswith("igw-"):
        return f"its internet gateway serves only public addresses, and {source.what} has none"
    kind = "gateway or interface endpoint" if service in GATEWAY_SERVICES else "interface endpoint"
    return f"{vpc} has no {kind} for {name}, and the subnet no NAT gateway"
