"""API Gateway v2: VPC links only in the zones that have them; PENDING until the data plane reports."""

from __future__ import annotations

from typing import Any

from moto.apigatewayv2.exceptions import BadRequestException
from moto.apigatewayv2.models import ApiGatewayV2Backend, VpcLink, apigatewayv2_backends
from moto.ec2.models import ec2_backends

from modelstacks.cloud.account.additions import Additions
from modelstacks.cloud.account.channel import CHANNEL, Report
from modelstacks.core.spec.zones import without_vpc_links

_MESSAGES = {"AVAILABLE": "VPC link is ready to route traffic"}


def _install() -> None:
    """Change moto's VPC links."""
    create, to_json = ApiGatewayV2Backend.create_vpc_link, VpcLink.to_json

    def create_pending(
        self: ApiGatewayV2Backend, name: str, sg_ids: list[str], subnet_ids: list[str], tags: Any
    ) -> VpcLink:
        _check_zones(self, subnet_ids)
        link = create(self, name, sg_ids, subnet_ids, tags)
        if CHANNEL.attached:
            link.status = "PENDING"
            CHANNEL.announce()
        return link

    def complete(self: VpcLink) -> dict[str, Any]:
        status = getattr(self, "status", "AVAILABLE")
        message = getattr(self, "status_message", "") or _MESSAGES.get(status, "")
        return {**to_json(self), "vpcLinkStatus": status, "vpcLinkStatusMessage": message}

    ApiGatewayV2Backend.create_vpc_link, VpcLink.to_json = create_pending, complete


def _check_zones(backend: ApiGatewayV2Backend, subnet_ids: list[str]) -> None:
    """Raise what CreateVpcLink raises for a subnet in a zone without VPC links."""
    network = ec2_backends[backend.account_id][backend.region_name]
    for subnet_id in subnet_ids:
        zone = network.get_subnet(subnet_id).availability_zone_id
        if without_vpc_links(backend.region_name, [zone]):
            raise BadRequestException(
                f"Subnet '{subnet_id}' is in Availability Zone '{zone}' where service is not available"
            )


def _hear(account: str, report: Report) -> None:
    """Take over the data plane's report on a link that is pending; its ARN ends with its id."""
    _, _, _, region, *_ = report.arn.split(":")
    link = apigatewayv2_backends[account][region].vpc_links.get(report.generation)
    if link is None or getattr(link, "status", "") != "PENDING" or report.state == "starting":
        return
    link.status = "FAILED" if report.state == "failed" else "AVAILABLE"
    link.status_message = report.reason


ADDITIONS = Additions(install=_install, hears={"vpc-link": _hear})
