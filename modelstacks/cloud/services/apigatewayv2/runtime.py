"""VPC links: they have no process here; API Gateway's runtime sends through them."""

from __future__ import annotations

from modelstacks.cloud.account.channel import Report
from modelstacks.cloud.runtime import Runtime
from modelstacks.cloud.services.apigatewayv2.snapshot import ApiGatewayV2Snapshot

__all__ = ["VpcLinks"]


class VpcLinks(Runtime):
    """The VPC links of the account."""

    async def reconcile(self) -> None:
        """Report the links: they are ready as soon as they are known."""
        for id_ in self._context.account[ApiGatewayV2Snapshot].vpc_links:
            arn = f"arn:aws:apigateway:{self._context.account.region}::/vpclinks/{id_}"
            self._context.report(Report("vpc-link", arn, id_, "stable"))
