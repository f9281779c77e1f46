"""EC2 as it is read back: security groups, subnets, routes, endpoints."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.services.iam.snapshot import Policy, policy_of
from modelstacks.cloud.snapshot import Snapshot, at_once

__all__ = [
    "Ec2Snapshot",
    "NetworkInterface",
    "Route",
    "RouteTable",
    "Rule",
    "SecurityGroup",
    "Subnet",
    "VpcEndpoint",
]


@dataclass(frozen=True, slots=True)
class Rule:
    """One security group rule. `protocol` is "tcp", "udp", "icmp" or "-1" (all); ports are inclusive."""

    protocol: str
    from_port: int
    to_port: int
    cidrs: tuple[str, ...] = ()
    group_ids: tuple[str, ...] = ()
    prefix_list_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    name: str
    ingress: tuple[Rule, ...]
    egress: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Subnet:
    id: str
    vpc_id: str
    cidr: str
    zone: str


@dataclass(frozen=True, slots=True)
class Route:
    """`destination` is a CIDR or a prefix list's id; `target` an igw-, nat-, vpce- id or "local"."""

    destination: str
    target: str


@dataclass(frozen=True, slots=True)
class RouteTable:
    id: str
    vpc_id: str
    subnet_ids: frozenset[str]
    main: bool
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class VpcEndpoint:
    """An interface or gateway endpoint. `service` is AWS's name: com.amazonaws.REGION.sagemaker.runtime."""

    id: str
    vpc_id: str
    service: str
    type: str  # "Interface" | "Gateway"
    subnet_ids: frozenset[str]
    security_group_ids: tuple[str, ...]
    private_dns: bool
    route_table_ids: frozenset[str]
    policy: Policy | None


@dataclass(frozen=True, slots=True)
class NetworkInterface:
    """Where something is connected to a VPC. `what` names it in refusals: "load balancer churn".

    `index` chooses its address: the `index`th of those that AWS leaves free in each subnet.
    """

    what: str
    subnet_ids: tuple[str, ...]
    security_group_ids: tuple[str, ...]
    index: int = 0


@dataclass(frozen=True)
class Ec2Snapshot(Snapshot):
    """The networks of the account."""

    security_groups: Mapping[str, SecurityGroup] = field(default_factory=dict)
    subnets: Mapping[str, Subnet] = field(default_factory=dict)
    route_tables: tuple[RouteTable, ...] = ()
    vpc_endpoints: tuple[VpcEndpoint, ...] = ()
    prefix_lists: Mapping[str, str] = field(default_factory=dict)  # pl- id -> name

    @classmethod
    def read(cls, clients: Clients) -> Ec2Snapshot:
        """Read everything at once: EC2 refuses to create what names something that does not exist."""
        groups, subnets, tables, endpoints, lists = at_once(
            lambda: _security_groups(clients),
            lambda: _subnets(clients),
            lambda: _route_tables(clients),
            lambda: _vpc_endpoints(clients),
            lambda: _prefix_lists(clients),
        )
        return cls(groups, subnets, tables, endpoints, lists)

    def subnets_of(self, interface: NetworkInterface) -> tuple[Subnet, ...]:
        """The subnets of an interface, as far as they exist."""
        return tuple(self.subnets[one] for one in interface.subnet_ids if one in self.subnets)

    def vpc_of(self, interface: NetworkInterface) -> str:
        """The VPC of an interface; empty where none of its subnets exists."""
        return next((subnet.vpc_id for subnet in self.subnets_of(interface)), "")

    def addresses_of(self, interface: NetworkInterface) -> tuple[str, ...]:
        """One address in each subnet of an interface."""
        return tuple(_address(subnet.cidr, interface.index) for subnet in self.subnets_of(interface))

    def route_table(self, subnet_id: str) -> RouteTable | None:
        """The subnet's own route table, or its VPC's main one."""
        for table in self.route_tables:
            if subnet_id in table.subnet_ids:
                return table
        subnet = self.subnets.get(subnet_id)
        mains = (
            table for table in self.route_tables if subnet and table.main and table.vpc_id == subnet.vpc_id
        )
        return next(mains, None)

    @cached_property
    def prefix_list_ids(self) -> Mapping[str, str]:
        """Prefix list name -> id."""
        return {name: number for number, name in self.prefix_lists.items()}


def _rules(permissions: Iterable[Mapping[str, Any]]) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            protocol=str(item.get("IpProtocol", "-1")),
            from_port=_port(item.get("FromPort"), 0),
            to_port=_port(item.get("ToPort"), 65535),
            cidrs=tuple(entry["CidrIp"] for entry in item.get("IpRanges", [])),
            group_ids=tuple(
                entry["GroupId"] for entry in item.get("UserIdGroupPairs", []) if "GroupId" in entry
            ),
            prefix_list_ids=tuple(entry["PrefixListId"] for entry in item.get("PrefixListIds", [])),
        )
        for item in permissions
    )


def _port(value: object, default: int) -> int:
    return default if value is None or value == -1 else int(str(value))


def _security_groups(clients: Clients) -> dict[str, SecurityGroup]:
    return {
        group["GroupId"]: SecurityGroup(
            group["GroupName"],
            _rules(group.get("IpPermissions", [])),
            _rules(group.get("IpPermissionsEgress", [])),
        )
        for group in clients.pages("ec2", "describe_security_groups", "SecurityGroups")
    }


def _subnets(clients: Clients) -> dict[str, Subnet]:
    return {
        subnet["SubnetId"]: Subnet(
            subnet["SubnetId"], subnet["VpcId"], subnet["CidrBlock"], subnet["AvailabilityZone"]
        )
        for subnet in clients.pages("ec2", "describe_subnets", "Subnets")
    }


def _route_tables(clients: Clients) -> tuple[RouteTable, ...]:
    targets = ("GatewayId", "NatGatewayId", "TransitGatewayId", "NetworkInterfaceId", "InstanceId")

    def route(item: Mapping[str, Any]) -> Route:
        destination = item.get("DestinationCidrBlock") or item.get("DestinationPrefixListId") or ""
        target = next((item[key] for key in targets if item.get(key)), "")
        return Route(destination, target)

    return tuple(
        RouteTable(
            id=table["RouteTableId"],
            vpc_id=table["VpcId"],
            subnet_ids=frozenset(
                link["SubnetId"] for link in table.get("Associations", []) if link.get("SubnetId")
            ),
            main=any(link.get("Main") for link in table.get("Associations", [])),
            routes=tuple(route(item) for item in table.get("Routes", [])),
        )
        for table in clients.pages("ec2", "describe_route_tables", "RouteTables")
    )


def _vpc_endpoints(clients: Clients) -> tuple[VpcEndpoint, ...]:
    return tuple(
        VpcEndpoint(
            id=endpoint["VpcEndpointId"],
            vpc_id=endpoint["VpcId"],
            service=endpoint["ServiceName"],
            type=endpoint.get("VpcEndpointType", "Gateway"),
            subnet_ids=frozenset(endpoint.get("SubnetIds", [])),
            security_group_ids=tuple(group["GroupId"] for group in endpoint.get("Groups", [])),
            private_dns=bool(endpoint.get("PrivateDnsEnabled")),
            route_table_ids=frozenset(endpoint.get("RouteTableIds", [])),
            policy=policy_of(
                f"the policy of endpoint {endpoint['VpcEndpointId']}", endpoint.get("PolicyDocument")
            ),
        )
        for endpoint in clients.pages("ec2", "describe_vpc_endpoints", "VpcEndpoints")
        if endpoint.get("State", "available").lower() != "deleted"
    )


def _prefix_lists(clients: Clients) -> dict[str, str]:
    lists = clients.pages("ec2", "describe_managed_prefix_lists", "PrefixLists")
    return {item["PrefixListId"]: item["PrefixListName"] for item in lists}


def _address(cidr: str, index: int) -> str:
    network = ipaddress.ip_network(cidr)
    # AWS keeps the first four addresses of a subnet and the last one.
    return str(network[4 + index % max(1, network.num_addresses - 5)])
