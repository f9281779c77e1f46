"""Parts of templates for the tests of several services, and how a test changes one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.control_plane import FRONT, NETWORK


def changed(resources: Mapping[str, Any], logical_id: str, **properties: Any) -> dict[str, Any]:
    """A copy in which one resource has other properties; None takes one away."""
    other = copy.deepcopy(dict(resources))
    own = other[logical_id].setdefault("Properties", {})
    own.update(properties)
    other[logical_id]["Properties"] = {name: value for name, value in own.items() if value is not None}
    return other


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    found: str = error.value.response["Error"]["Code"]
    return found


def targets(**properties: Any) -> dict[str, Any]:
    own = {"Port": 8080, "Protocol": "HTTP", "TargetType": "ip", "VpcId": {"Ref": "Vpc"}, **properties}
    return {"Type": "AWS::ElasticLoadBalancingV2::TargetGroup", "Properties": own}


BALANCED = NETWORK | FRONT | {"Targets": targets()}


def subnet(cidr: str, zone: int) -> dict[str, Any]:
    place = {"Fn::Select": [zone, {"Fn::GetAZs": ""}]}
    properties = {"VpcId": {"Ref": "Vpc"}, "CidrBlock": cidr, "AvailabilityZone": place}
    return {"Type": "AWS::EC2::Subnet", "Properties": properties}
