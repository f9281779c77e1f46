"""The private integration in front of targets of either kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.cdk import CONTEXT, Template, use_own_node


@pytest.mark.parametrize("target_type", ["ip", "instance"])
def test_targets_register_by_address_or_by_instance(tmp_path: Path, target_type: Any) -> None:
    use_own_node()
    from aws_cdk import App, Stack
    from aws_cdk import aws_ec2 as ec2
    from modelstacks.cdk.constructs.given_network import GivenNetwork, Place
    from modelstacks.cdk.constructs.private_integration import PrivateIntegration
    from modelstacks.cdk.constructs.security_groups import SecurityGroup

    app = App(outdir=str(tmp_path), context=CONTEXT, analytics_reporting=False)
    stack = Stack(app, "front")
    vpc = ec2.Vpc(stack, "Vpc", max_azs=2)
    network = GivenNetwork(stack, "Network", place=Place(vpc, create_endpoints=False), s3=[])
    front = PrivateIntegration(
        stack,
        "Front",
        name="front",
        network=network,
        targets=SecurityGroup(stack, "Targets", vpc_id=network.vpc_id, description="servers"),
        target_type=target_type,
        drain_seconds=30,
        timeout_seconds=29,
        log_retention_days=30,
    )
    assert front.target_group.target_type == target_type
    app.synth()
    template = Template.read(tmp_path, "front")
    group = template.one("AWS::ElasticLoadBalancingV2::TargetGroup")
    assert group["TargetType"] == target_type
    assert group["HealthCheckPath"] == "/ping"
    balancer = json.dumps(template.one("AWS::ElasticLoadBalancingV2::LoadBalancer")["Subnets"])
    assert "PrivateSubnet" in balancer
    assert "PublicSubnet" not in balancer
