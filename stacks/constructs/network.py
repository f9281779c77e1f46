"""Where a deployment runs: subnets, and the way from them to exactly the AWS services that are called.

A `Network` is one of two: `IsolatedNetwork` makes a VPC with no way out, `GivenNetwork` uses subnets of a VPC
that the user's app has. Targets are written against what the two have in common.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aws_cdk import Aws, CfnResource, CfnTag, Fn, Tags
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from modelstacks.core.spec import Network as NetworkSpec
from modelstacks.core.spec import subnet_index

from .encryption import EncryptionKey
from .iam import Statement, allow, policy_document, service_role
from .logs import log_group
from .security_groups import HTTPS, Guard, Hop, SecurityGroup

__all__ = ["Addresses", "IsolatedNetwork", "Network", "ec2_arn"]


@dataclass(frozen=True, slots=True)
class Addresses:
    """The VPC's range of addresses; `subnet` gives the part for a zone's id, or else for a position."""

    cidr: str
    subnet: Callable[[str | None, int], str]
    generation: str = ""

    @classmethod
    def of(cls, network: NetworkSpec) -> Addresses:
        """The addresses that a spec's `network` block asks for."""
        usual = network.cidr == NetworkSpec().cidr
        return cls(
            network.cidr,
            lambda zone, position: network.subnet(subnet_index(zone, position)),
            "" if usual else hashlib.sha256(network.cidr.encode()).hexdigest()[:6],
        )


def ec2_arn(kind: str, name: str) -> str:
    """The ARN of a resource of EC2 in this account and region."""
    return f"arn:{Aws.PARTITION}:ec2:{Aws.REGION}:{Aws.ACCOUNT_ID}:{kind}/{name}"


class Network(Construct):
    """What targets need of a network, whoever made it.

    Attributes:
        identity: what everything in this network depends on: a change of it replaces VPC or subnets.
        generation: marks the names of resources that cannot move from one VPC into another in an update.
        ready: what has to exist before anything in the subnets can reach what it calls.
        to_s3: the hop to S3.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        vpc_id: str,
        identity: tuple[str, ...],
        to_s3: Hop,
        generation: str = "",
    ) -> None:
        super().__init__(scope, id)
        self.vpc_id = vpc_id
        self.identity = identity
        self.generation = generation
        self.to_s3 = to_s3
        self.subnet_ids: list[str] = []
        self.ready: list[CfnResource] = []

    @property
    def subnet_arns(self) -> list[str]:
        """The ARNs of the subnets."""
        return [ec2_arn("subnet", subnet) for subnet in self.subnet_ids]

    def interface_endpoint(
        self,
        id: str,
        *,
        service: str,
        statements: Sequence[Statement],
    ) -> Guard | str:
        """Make one AWS service reachable from inside by its usual name; returns where a hop to it leads.

        `service` is the last part of its name ("ecr.api"); `statements` are what may be asked through here.
        """
        guard = SecurityGroup(
            self, f"{id}Endpoint", vpc_id=self.vpc_id, description=f"network interfaces of {service}"
        )
        endpoint = ec2.CfnVPCEndpoint(
            self,
            id,
            vpc_id=self.vpc_id,
            vpc_endpoint_type="Interface",
            service_name=f"com.amazonaws.{Aws.REGION}.{service}",
            subnet_ids=self.subnet_ids,
            security_group_ids=[guard.group_id],
            private_dns_enabled=True,
            policy_document=policy_document(*statements),
        )
        self.ready.append(endpoint)
        return guard

    def s3_endpoint(self, route_tables: Sequence[str], statements: Sequence[Statement]) -> None:
        """Make S3 reachable through a gateway endpoint in these route tables."""
        gateway = ec2.CfnVPCEndpoint(
            self,
            "S3",
            vpc_id=self.vpc_id,
            vpc_endpoint_type="Gateway",
            service_name=f"com.amazonaws.{Aws.REGION}.s3",
            route_table_ids=list(route_tables),
            policy_document=policy_document(*({**statement, "Principal": "*"} for statement in statements)),
        )
        self.ready.append(gateway)


class IsolatedNetwork(Network):
    """A VPC of its own: isolated subnets, one a zone, with flow logs and a gateway endpoint for S3.

    Args:
        addresses: the VPC's range and its parts.
        zones: the availability zones' ids, or None for the first two that the account has.
        s3: all that may be asked of S3 from inside.
    """

    # S3 has a gateway endpoint, which has no security group to point at, and the prefix list that would name
    # it has another id in each region. The routes of these subnets lead to S3 and nowhere else, so this opens
    # S3 alone.
    TO_S3 = Hop("0.0.0.0/0", HTTPS, "S3 through its gateway endpoint, the only route out of these subnets")

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        name: str,
        addresses: Addresses,
        zones: Sequence[str] | None,
        key: EncryptionKey,
        retention_days: int,
        s3: Sequence[Statement],
    ) -> None:
        identity = (addresses.cidr, *(zones or ()))
        super().__init__(
            scope, id, vpc_id="", identity=identity, generation=addresses.generation, to_s3=self.TO_S3
        )
        vpc = ec2.CfnVPC(
            self, "Vpc", cidr_block=addresses.cidr, enable_dns_support=True, enable_dns_hostnames=True
        )
        self._name = f"{name}/{id}"
        Tags.of(vpc).add("Name", self._name)
        self.vpc_id = vpc.attr_vpc_id
        # One table: no subnet has a route that another lacks, and none of them leads out.
        routes = ec2.CfnRouteTable(self, "Routes", vpc_id=self.vpc_id)
        for position, zone in enumerate(zones or [None, None]):
            self._add_subnet(addresses, position, zone, routes)
        self.s3_endpoint([routes.attr_route_table_id], s3)
        self._flow_logs(key, retention_days)

    def _add_subnet(
        self, addresses: Addresses, position: int, zone: str | None, routes: ec2.CfnRouteTable
    ) -> None:
        """A subnet in a zone given by its id, or in the zone at this position of the account's own list.

        Its name and its range belong to the zone: when one zone is exchanged for another, the new subnet does
        not overlap with the old one, which is deleted last.
        """
        name = f"Subnet{position + 1}" if zone is None else f"Subnet{zone.replace('-', '').capitalize()}"
        subnet = ec2.CfnSubnet(
            self,
            name,
            vpc_id=self.vpc_id,
            availability_zone=Fn.select(position, Fn.get_azs()) if zone is None else None,
            availability_zone_id=zone,
            cidr_block=addresses.subnet(zone, position),
            map_public_ip_on_launch=False,
            tags=[CfnTag(key="Name", value=f"{self._name}/isolated-{zone or position + 1}")],
        )
        self.ready.append(
            ec2.CfnSubnetRouteTableAssociation(
                self,
                f"{name}Routes",
                subnet_id=subnet.attr_subnet_id,
                route_table_id=routes.attr_route_table_id,
            )
        )
        self.subnet_ids.append(subnet.attr_subnet_id)

    def _flow_logs(self, key: EncryptionKey, retention_days: int) -> None:
        group = log_group(self, "FlowLogs", key=key, retention_days=retention_days)
        role = service_role(
            self,
            "FlowLogsRole",
            service="vpc-flow-logs.amazonaws.com",
            description="VPC flow logs write to their log group",
            policies={
                "write": [
                    allow(
                        ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
                        group.attr_arn,
                    )
                ]
            },
        )
        ec2.CfnFlowLog(
            self,
            "FlowLog",
            resource_id=self.vpc_id,
            resource_type="VPC",
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_group_name=group.ref,
            deliver_logs_permission_arn=role.attr_arn,
            max_aggregation_interval=60,
        )
