"""Security groups, written hop by hop.

A `SecurityGroup` states where it may connect to; the matching ingress rule at the other end is made with it,
so a hop is open at both ends or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from aws_cdk import CfnResource
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

__all__ = ["HTTPS", "GivenGroup", "Guard", "Hop", "SecurityGroup"]

HTTPS = 443


@runtime_checkable
class Guard(Protocol):
    """A security group that a hop can lead to."""

    @property
    def group_id(self) -> str:
        """The group's id."""

    def admit(self, source: SecurityGroup, hop: Hop) -> CfnResource:
        """Make the ingress rule for a hop that starts at `source`."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One connection that may be opened: to a security group, or to an address range."""

    to: Guard | str
    port: int
    why: str


class SecurityGroup(Construct):
    """A security group that can open the connections in `hops` and no other."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        vpc_id: str,
        description: str,
        hops: Sequence[Hop] = (),
    ) -> None:
        super().__init__(scope, id)
        # Endpoints may share a group, or be reached by the same route: EC2 refuses a rule that it has.
        hops = list({(_address(hop), hop.port): hop for hop in reversed(hops)}.values())[::-1]
        group = ec2.CfnSecurityGroup(
            self,
            "Resource",
            vpc_id=vpc_id,
            group_description=description,
            security_group_egress=[_egress(hop) for hop in hops] or [_NOWHERE],
        )
        self._group_id: str = group.attr_group_id
        # The rules at the other end of each hop: until they exist, the hop is closed.
        self.opened: list[CfnResource] = [
            hop.to.admit(self, hop) for hop in hops if not isinstance(hop.to, str)
        ]

    @property
    def group_id(self) -> str:
        """The group's id."""
        return self._group_id

    def admit(self, source: SecurityGroup, hop: Hop) -> CfnResource:
        """Let the source in; the rule is made in this group's scope."""
        return _ingress(self, f"From{source.node.id}", self.group_id, source, hop)


class GivenGroup:
    """A security group that the user's app made or imported."""

    def __init__(self, group: ec2.ISecurityGroup) -> None:
        self._group_id: str = group.security_group_id
        self._name: str = f"To{group.node.addr[-8:].capitalize()}"

    @property
    def group_id(self) -> str:
        """The group's id."""
        return self._group_id

    def admit(self, source: SecurityGroup, hop: Hop) -> CfnResource:
        """Let the source in; the rule is made in the source's scope: the group may be in another stack."""
        return _ingress(source, f"{self._name}Port{hop.port}", self.group_id, source, hop)


def _ingress(
    scope: Construct,
    id: str,
    group_id: str,
    source: SecurityGroup,
    hop: Hop,
) -> CfnResource:
    return ec2.CfnSecurityGroupIngress(
        scope,
        id,
        group_id=group_id,
        source_security_group_id=source.group_id,
        ip_protocol="tcp",
        from_port=hop.port,
        to_port=hop.port,
        description=hop.why,
    )


def _address(hop: Hop) -> str:
    return hop.to if isinstance(hop.to, str) else hop.to.group_id


def _egress(hop: Hop) -> ec2.CfnSecurityGroup.EgressProperty:
    return ec2.CfnSecurityGroup.EgressProperty(
        ip_protocol="tcp",
        from_port=hop.port,
        to_port=hop.port,
        description=hop.why,
        destination_security_group_id=None if isinstance(hop.to, str) else hop.to.group_id,
        cidr_ip=hop.to if isinstance(hop.to, str) else None,
    )


# A group without an egress rule gets EC2's "anywhere". This rule matches no packet and keeps that one away.
_NOWHERE = ec2.CfnSecurityGroup.EgressProperty(
    ip_protocol="icmp",
    from_port=252,
    to_port=86,
    cidr_ip="255.255.255.255/32",
    description="no connection may be opened from here",
)
