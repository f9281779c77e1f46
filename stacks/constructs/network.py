"""A VPC with no way out: isolated subnets, and endpoints for exactly the AWS services that are called.

Security groups are written hop by hop. A `SecurityGroup` states where it may connect to; the matching ingress
rule at the other end is made with it, so a hop is open at both ends or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aws_cdk import Aws, CfnResource, CfnTag, Fn, Tags
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from constructs import Construct

from modelstacks.core.spec import Network as NetworkSpec
from modelstacks.core.spec import subnet_index

from .iam import Statement, allow, policy_document, service_role
from .logs import log_group

__all__ = ["HTTPS", "Addresses", "Hop", "Network", "SecurityGroup", "ec2_arn"]

HTTPS = 443


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


@dataclass(frozen=True, slots=True)
class Hop:
    """One connection that may be opened: to a security group, or to an address range."""

    to: SecurityGroup | str
    port: int
    why: str


class SecurityGroup(Construct):
    """A security group that can open the connections in `hops` and no other."""

    def __init__(
        self,
        scope: Construct,
        id: str,  # noqa: A002  the CDK's own word
        *,
        vpc_id: str,
        description: str,
        hops: Sequence[Hop] = (),
    ) -> None:
        super().__init__(scope, id)
        self._resource = ec2.CfnSecurityGroup(
            self,
            "Resource",
            vpc_id=vpc_id,
            group_description=description,
            security_group_egress=[_egress(hop) for hop in hops] or [_NOWHERE],
        )
        self.group_id: str = self._resource.attr_group_id
        # The rules at the other end of each hop: until they exist, the hop is closed.
        self.opened: list[CfnResource] = [
            hop.to.admit(self, id, hop) for hop in hops if isinstance(hop.to, SecurityGroup)
        ]

    def admit(self, source: SecurityGroup, source_id: str, hop: Hop) -> CfnResource:
        """The other end of a hop: let the source in."""
        return ec2.CfnSecurityGroupIngress(
            self,
            f"From{source_id}",
            group_id=self.group_id,
            source_security_group_id=source.group_id,
            ip_protocol="tcp",
            from_port=hop.port,
            to_port=hop.port,
            description=hop.why,
        )


def _egress(hop: Hop) -> ec2.CfnSecurityGroup.EgressProperty:
    to_group = isinstance(hop.to, SecurityGroup)
    return ec2.CfnSecurityGroup.EgressProperty(
        ip_protocol="tcp",
        from_port=hop.port,
        to_port=hop.port,
        description=hop.why,
        destination_security_group_id=hop.to.group_id if isinstance(hop.to, SecurityGroup) else None,
        cidr_ip=None if to_group else str(hop.to),
    )


# A group without an egress rule gets EC2's "anywhere". This rule matches no packet and keeps that one away.
_NOWHERE = ec2.CfnSecurityGroup.EgressProperty(
    ip_protocol="icmp",
    from_port=252,
    to_port=86,
    cidr_ip="255.255.255.255/32",
    description="no connection may be opened from here",
)


class Network(Construct):
    """Isolated subnets, one a zone, with flow logs and a gateway endpoint for S3.

    Args:
        addresses: the VPC's range and its parts.
        zones: the availability zones' ids, or None for the first two that the account has.
        s3: all that may be asked of S3 from inside.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,  # noqa: A002  the CDK's own word
        *,
        addresses: Addresses,
        zones: Sequence[str] | None,
        key: kms.CfnKey,
        retention_days: int,
        s3: Sequence[Statement],
    ) -> None:
        super().__init__(scope, id)
        vpc = ec2.CfnVPC(
            self, "Vpc", cidr_block=addresses.cidr, enable_dns_support=True, enable_dns_hostnames=True
        )
        Tags.of(vpc).add("Name", self.node.path)
        self.vpc_id: str = vpc.attr_vpc_id
        # What the identity of everything in this network depends on: a change replaces VPC or subnets.
        self.identity: tuple[str, ...] = (addresses.cidr, *(zones or ()))
        # Marks the names of resources that cannot move from one VPC into another in an update.
        self.generation: str = addresses.generation
        # One table: no subnet has a route that another lacks, and none of them leads out.
        routes = ec2.CfnRouteTable(self, "Routes", vpc_id=self.vpc_id)
        self.subnet_arns: list[str] = []
        self.subnet_ids: list[str] = []
        # What has to exist before anything in the subnets can reach what it calls.
        self.ready: list[CfnResource] = []
        for position, zone in enumerate(zones or [None, None]):
            self._add_subnet(addresses, position, zone, routes)
        gateway = ec2.CfnVPCEndpoint(
            self,
            "S3",
            vpc_id=self.vpc_id,
            vpc_endpoint_type="Gateway",
            service_name=f"com.amazonaws.{Aws.REGION}.s3",
            route_table_ids=[routes.attr_route_table_id],
            policy_document=policy_document(*({**statement, "Principal": "*"} for statement in s3)),
        )
        self.ready.append(gateway)
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
            tags=[CfnTag(key="Name", value=f"{self.node.path}/isolated-{zone or position + 1}")],
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
        self.subnet_arns.append(ec2_arn("subnet", subnet.attr_subnet_id))

    # S3 has a gateway endpoint, which has no security group to point at, and the prefix list that would stand
    # for it has another id in each region. The routes of these subnets lead to S3 and nowhere else, so this
    # opens S3 alone.
    TO_S3 = Hop("0.0.0.0/0", HTTPS, "S3 through its gateway endpoint, the only route out of these subnets")

    def interface_endpoint(
        self,
        id: str,  # noqa: A002  the CDK's own word
        *,
        service: str,
        statements: Sequence[Statement],
    ) -> SecurityGroup:
        """Make one AWS service reachable from inside by its usual name; returns what guards the endpoint.

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

    def _flow_logs(self, key: kms.CfnKey, retention_days: int) -> None:
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
