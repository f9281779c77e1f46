"""CloudFormation waits for what the data plane has, each time anew."""

from __future__ import annotations

import json
from typing import Any

BALANCER = {
    "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.7.0.0/16"}},
    **{
        name: {
            "Type": "AWS::EC2::Subnet",
            "Properties": {
                "VpcId": {"Ref": "Vpc"},
                "CidrBlock": f"10.7.{number}.0/24",
                "AvailabilityZone": {"Fn::Select": [number, {"Fn::GetAZs": ""}]},
            },
        }
        for number, name in enumerate(("One", "Two"))
    },
    "Balancer": {
        "Type": "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "Properties": {
            "Name": "twice",
            "Type": "application",
            "Scheme": "internal",
            "Subnets": [{"Ref": "One"}, {"Ref": "Two"}],
        },
    },
}


def test_a_load_balancer_that_is_created_again_by_its_name_is_stable_again(cloud: Any) -> None:
    cloudformation = cloud.client("cloudformation")
    for _ in range(2):
        cloudformation.create_stack(StackName="twice", TemplateBody=json.dumps({"Resources": BALANCER}))
        cloud.until(lambda: cloud.status("twice") == "CREATE_COMPLETE")
        (found,) = cloud.client("elbv2").describe_load_balancers(Names=["twice"])["LoadBalancers"]
        assert found["State"] == {"Code": "active"}
        cloud.delete("twice")
