"""AWS::ApiGatewayV2: the VPC link that a REST API reaches a private load balancer through."""

from __future__ import annotations

from typing import ClassVar

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
    ignoring,
    provides,
)


@provides("AWS::ApiGatewayV2::VpcLink")
class VpcLink(ResourceType):
    """A VPC link: subnets and security groups, which are fixed. It is stable once it is AVAILABLE."""

    immutable: ClassVar = frozenset({"SubnetIds", "SecurityGroupIds"})

    def create(self, request: Request) -> Provisioned:
        link_id = request.call("apigatewayv2", "CreateVpcLink", request.properties)["VpcLinkId"]
        return Provisioned(link_id, {"VpcLinkId": link_id})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        request.client("apigatewayv2").update_vpc_link(
            VpcLinkId=current.physical_id, Name=request.properties["Name"]
        )
        return current

    def stabilised(self, request: Request, current: Provisioned) -> Provisioned | None:
        link = request.client("apigatewayv2").get_vpc_link(VpcLinkId=current.physical_id)
        if link["VpcLinkStatus"] == "PENDING":
            return None
        if link["VpcLinkStatus"] == "FAILED":
            raise ResourceError(
                f"Failed to stabilize Vpc Link with id {current.physical_id} "
                f"Status Message {link.get('VpcLinkStatusMessage', '')}"
            )
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("NotFoundException"):
            request.client("apigatewayv2").delete_vpc_link(VpcLinkId=current.physical_id)
