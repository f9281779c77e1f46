"""AWS::EC2: VPC endpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceType,
    ignoring,
    provides,
)
from modelstacks.cloud.services.ec2.types._tags import tags_of


@provides("AWS::EC2::VPCEndpoint")
class VpcEndpoint(ResourceType):
    """A gateway or interface endpoint: policy, subnets, security groups, route tables and private DNS."""

    immutable: ClassVar = frozenset({"ServiceName", "VpcId", "VpcEndpointType"})

    def create(self, request: Request) -> Provisioned:
        answer = request.call(
            "ec2",
            "CreateVpcEndpoint",
            {**self._defaults(request), **request.without("Tags", "PolicyDocument")},
            TagSpecifications=tags_of(request, "vpc-endpoint"),
            **_policy(request.properties),
        )["VpcEndpoint"]
        endpoint_id = answer["VpcEndpointId"]
        names = [
            f"{entry.get('HostedZoneId', '')}:{entry['DnsName']}" for entry in answer.get("DnsEntries", [])
        ]
        return Provisioned(
            endpoint_id,
            {
                "Id": endpoint_id,
                "DnsEntries": names,
                "NetworkInterfaceIds": answer.get("NetworkInterfaceIds", []),
                "CreationTimestamp": str(answer.get("CreationTimestamp", "")),
            },
        )

    @staticmethod
    def _defaults(request: Request) -> Properties:
        """CloudFormation's default for private DNS is off; the API's is on."""
        interface = request.properties.get("VpcEndpointType") == "Interface"
        return {"PrivateDnsEnabled": False} if interface else {}

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        changes: dict[str, Any] = _policy(request.properties)
        for key, singular in (
            ("SubnetIds", "SubnetIds"),
            ("SecurityGroupIds", "SecurityGroupIds"),
            ("RouteTableIds", "RouteTableIds"),
        ):
            old, new = set(before.get(key, [])), set(request.properties.get(key, []))
            changes |= {f"Add{singular}": sorted(new - old)} if new - old else {}
            changes |= {f"Remove{singular}": sorted(old - new)} if old - new else {}
        if "PrivateDnsEnabled" in request.properties:
            changes["PrivateDnsEnabled"] = request.properties["PrivateDnsEnabled"] in (True, "true")
        request.client("ec2").modify_vpc_endpoint(VpcEndpointId=current.physical_id, **changes)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("InvalidVpcEndpointId.NotFound"):
            request.client("ec2").delete_vpc_endpoints(VpcEndpointIds=[current.physical_id])


def _policy(properties: Mapping[str, Any]) -> dict[str, str]:
    policy = properties.get("PolicyDocument")
    return (
        {}
        if policy is None
        else {"PolicyDocument": policy if isinstance(policy, str) else json.dumps(policy)}
    )
