"""Routes: how a network interface reaches an AWS service, or why it cannot.

From a subnet without a way out, a service is reached through an interface endpoint with private DNS, or, for
S3 and DynamoDB, through a gateway endpoint in the subnet's route table.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelstacks.cloud.network import Refused, security_groups
from modelstacks.cloud.topology import NetworkInterface, Topology, VpcEndpoint

__all__ = ["Path", "reach"]

HTTPS = 443
GATEWAY_SERVICES = frozenset({"s3", "dynamodb"})


@dataclass(frozen=True, slots=True)
class Path:
    """A way to a service; `endpoint` is None over the internet (NAT, or no VPC at all)."""

    endpoint: VpcEndpoint | None = None


def reach(
    topology: Topology, source: NetworkInterface | None, service: str, *, public_address: bool = False
) -> Path | Refused:
    """The way from `source` to a service ("s3", "sagemaker.runtime"). A None source is in no VPC."""
    if source is None:
        return Path()
    name = f"com.amazonaws.{topology.region}.{service}"
    here = [one for one in topology.vpc_endpoints if one.vpc_id == source.vpc_id and one.service == name]
    interface = next((one for one in here if one.type == "Interface" and one.private_dns), None)
    if interface is not None:
        target = topology.interface(
            f"endpoint {interface.id} ({service})", interface.subnet_ids, interface.security_group_ids
        )
        return security_groups.connect(topology, source, target, HTTPS) or Path(interface)
    path: Path | None = None
    for subnet_id in source.subnet_ids:
        found = _from_subnet(topology, source, subnet_id, service, name, here, public_address=public_address)
        if isinstance(found, Refused):
            return found
        path = found
    return path or Refused(f"{source.what} -> {service}", f"{source.what} is in no known subnet")


def _from_subnet(
    topology: Topology,
    source: NetworkInterface,
    subnet_id: str,
    service: str,
    name: str,
    here: list[VpcEndpoint],
    *,
    public_address: bool,
) -> Path | Refused:
    table = topology.route_table(subnet_id)
    gateway = next((one for one in here if one.type == "Gateway"), None)
    if gateway is not None and table is not None and table.id in gateway.route_table_ids:
        prefix_list = topology.prefix_list_ids.get(name, "")
        return security_groups.leave(
            topology, source, HTTPS, prefix_list=prefix_list, to=f"{service} ({name})"
        ) or Path(gateway)
    way_out = next(
        (route.target for route in (table.routes if table else ()) if route.destination == "0.0.0.0/0"), ""
    )
    if way_out.startswith("nat-") or (way_out.startswith("igw-") and public_address):
        return security_groups.leave(topology, source, HTTPS, to=f"{service} over the internet") or Path()
    return Refused(
        f"{source.what} -> {service}",
        f"no route to {service} from subnet {subnet_id}: "
        + _why(source, subnet_id, service, name, here, way_out),
    )


def _why(
    source: NetworkInterface, subnet_id: str, service: str, name: str, here: list[VpcEndpoint], way_out: str
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
    return f"{source.vpc_id} has no {kind} for {name}, and the subnet no NAT gateway"
