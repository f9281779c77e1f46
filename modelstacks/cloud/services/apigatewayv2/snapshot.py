"""API Gateway v2 as it is read back: VPC links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.snapshot import Snapshot

__all__ = ["ApiGatewayV2Snapshot", "VpcLink"]


@dataclass(frozen=True, slots=True)
class VpcLink:
    name: str
    subnet_ids: tuple[str, ...]
    security_group_ids: tuple[str, ...]


@dataclass(frozen=True)
class ApiGatewayV2Snapshot(Snapshot):
    """The VPC links of the account, by id."""

    vpc_links: Mapping[str, VpcLink] = field(default_factory=dict)

    @classmethod
    def read(cls, clients: Clients) -> ApiGatewayV2Snapshot:
        """Read every VPC link."""
        return cls(_vpc_links(clients))


def _vpc_links(clients: Clients) -> dict[str, VpcLink]:
    return {
        link["VpcLinkId"]: VpcLink(
            link["Name"],
            tuple(link.get("SubnetIds", [])),
            tuple(link.get("SecurityGroupIds", [])),
        )
        for link in clients.client("apigatewayv2").get_vpc_links().get("Items", [])
    }
