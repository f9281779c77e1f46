"""Subnets of a VPC that the user's app has, with the endpoints that it has and those that it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aws_cdk import CfnResource
from aws_cdk import aws_ec2 as ec2
from constructs import Construct, Dependable

from modelstacks.core.errors import UsageError

from .iam import Statement
from .network import Network
from .security_groups import HTTPS, GivenGroup, Guard, Hop

__all__ = ["GivenNetwork", "Place"]


@dataclass(frozen=True)
class Place:
    """Where a user wants a deployment.

    Attributes:
        subnets: by default the isolated ones, or else the private ones.
        endpoints: the endpoints that the VPC has, by the last part of the service's name ("ecr.api", "s3").
            EC2 refuses a second one with private DNS for the same service, so these are not made again.
        create_endpoints: whether the ones that it lacks are made. Without them, the subnets' own routes have
            to lead to the services (a NAT gateway, a transit gateway, shared endpoints).
    """

    vpc: ec2.IVpc
    subnets: ec2.SubnetSelection | None = None
    endpoints: Mapping[str, ec2.IVpcEndpoint] = field(default_factory=dict)
    create_endpoints: bool = True


class GivenNetwork(Network):
    """A user's subnets; `s3` is all that may be asked of S3 through an endpoint that is made here."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        place: Place,
        s3: Sequence[Statement],
    ) -> None:
        chosen = _subnets(place)
        super().__init__(
            scope,
            id,
            vpc_id=place.vpc.vpc_id,
            identity=(),
            # A gateway endpoint has no group, and its prefix list has another id in each region.
            to_s3=Hop("0.0.0.0/0", HTTPS, "S3 by the routes of these subnets"),
        )
        self._place = place
        self.subnet_ids = [subnet.subnet_id for subnet in chosen]
        self.ready.extend(_routes_out(chosen))
        if place.create_endpoints and "s3" not in place.endpoints:
            self.s3_endpoint(_route_tables(place.vpc, chosen), s3)
        elif "s3" in place.endpoints:
            self.ready.extend(_made(place.endpoints["s3"]))

    def interface_endpoint(
        self,
        id: str,
        *,
        service: str,
        statements: Sequence[Statement],
    ) -> Guard | str:
        """Where a hop to a service leads: the endpoint that is there, one that is made, or the way out."""
        given = self._place.endpoints.get(service)
        if given is None:
            if self._place.create_endpoints:
                return super().interface_endpoint(id, service=service, statements=statements)
            return "0.0.0.0/0"
        self.ready.extend(_made(given))
        connections: ec2.Connections | None = getattr(given, "connections", None)
        groups = connections.security_groups if connections else ()
        return GivenGroup(groups[0]) if groups else self._range(service)

    def _range(self, service: str) -> str:
        """The VPC's addresses, for an endpoint whose security group is not known."""
        vpc = self._place.vpc
        try:
            return vpc.vpc_cidr_block
        except RuntimeError:  # jsii's, where an imported VPC does not say
            raise UsageError(
                f"{vpc.node.path}: the endpoint for {service} has no security group and the VPC no "
                f"vpc_cidr_block, so no rule can lead to it",
                fix="import the endpoint with its security_groups, or the VPC with its vpc_cidr_block",
            ) from None


def _subnets(place: Place) -> Sequence[ec2.ISubnet]:
    """The chosen subnets.

    Raises:
        UsageError: there are none, or they are in one zone: balancers and endpoints need two.
    """
    vpc, wanted = place.vpc, place.subnets
    chosen: Sequence[ec2.ISubnet] = (
        vpc.select_subnets(
            availability_zones=wanted.availability_zones,
            one_per_az=wanted.one_per_az,
            subnet_filters=wanted.subnet_filters,
            subnet_group_name=wanted.subnet_group_name,
            subnet_type=wanted.subnet_type,
            subnets=wanted.subnets,
        ).subnets
        if wanted
        else vpc.isolated_subnets or vpc.private_subnets
    )
    zones = {subnet.availability_zone for subnet in chosen}
    if len(zones) < 2:
        raise UsageError(
            f"{vpc.node.path}: a deployment needs subnets in two availability zones or more",
            got=f"{len(chosen)} subnets in {len(zones)} zones",
            fix="pass vpc_subnets with isolated or private subnets of two zones",
        )
    return chosen


def _route_tables(vpc: ec2.IVpc, subnets: Sequence[ec2.ISubnet]) -> list[str]:
    """The subnets' route tables.

    Raises:
        UsageError: the subnets were imported without them.
    """
    try:
        return list(dict.fromkeys(subnet.route_table.route_table_id for subnet in subnets))
    except RuntimeError:  # jsii's, where an imported subnet does not say
        raise UsageError(
            f"{vpc.node.path}: the endpoint for S3 needs the subnets' route tables, which are unknown",
            fix="import the VPC with isolated_subnet_route_table_ids or private_subnet_route_table_ids, or "
            'pass its endpoint: endpoints={"s3": ...}',
        ) from None


def _made(endpoint: ec2.IVpcEndpoint) -> list[CfnResource]:
    """What has to exist before the endpoint can be used; nothing where it was imported."""
    made = endpoint.node.default_child
    return [made] if isinstance(made, CfnResource) else []


def _routes_out(subnets: Sequence[ec2.ISubnet]) -> list[CfnResource]:
    """The routes that lead out of subnets which this app makes, to a NAT gateway for example."""
    roots = [
        root
        for subnet in subnets
        for root in Dependable.of(subnet.internet_connectivity_established).dependency_roots
    ]
    return [root for root in roots if isinstance(root, CfnResource)]
