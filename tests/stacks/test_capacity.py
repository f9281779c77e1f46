"""What each target says it needs, against what its templates have; and the outputs that it declares."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.cdk import PROJECT, Template, synth

from modelstacks.core.plan import Plan
from modelstacks.core.plan.capacity import Unit, capacity
from modelstacks.core.plan.deployments import find_specs, load_plans
from modelstacks.core.plan.outputs import outputs

PLANS = load_plans(find_specs(PROJECT), "both", PROJECT)

# Types that cost nothing by themselves and count against no quota that a deployment can reach.
NOT_COUNTED = {
    "AWS::ApiGateway::Account": "a setting",
    "AWS::ApiGateway::Deployment": "part of the API",
    "AWS::ApiGateway::GatewayResponse": "part of the API",
    "AWS::ApiGateway::Method": "part of the API",
    "AWS::ApiGateway::RequestValidator": "part of the API",
    "AWS::ApiGateway::Resource": "part of the API",
    "AWS::ApiGateway::Stage": "part of the API",
    "AWS::ApiGateway::UsagePlanKey": "an association",
    "AWS::ApplicationAutoScaling::ScalableTarget": "3000 of ECS, 500 of SageMaker",
    "AWS::ApplicationAutoScaling::ScalingPolicy": "part of the scalable target",
    "AWS::EC2::FlowLog": "billed by what it writes",
    "AWS::EC2::RouteTable": "part of the VPC",
    "AWS::EC2::SecurityGroupIngress": "a rule",
    "AWS::EC2::Subnet": "part of the VPC",
    "AWS::EC2::SubnetRouteTableAssociation": "an association",
    "AWS::ECS::Cluster": "10,000; its tasks are counted",
    "AWS::ECS::Service": "its tasks are counted",
    "AWS::ElasticLoadBalancingV2::Listener": "part of the load balancer",
    "AWS::ElasticLoadBalancingV2::ListenerRule": "part of the load balancer",
    "AWS::IAM::Policy": "part of a role",
    "AWS::Lambda::Permission": "a rule",
    "AWS::S3::BucketPolicy": "part of the bucket",
    "AWS::SageMaker::EndpointConfig": "the endpoint's instances are counted",
    "AWS::SageMaker::Model": "the endpoint's instances are counted",
    "Custom::ImageManifest": "a call of a function that is counted",
}


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    return synth(PLANS, tmp_path_factory.mktemp("capacity"))


def resources(template: Template) -> Counter[str]:
    return Counter(resource["Type"] for resource in template.document["Resources"].values())


def amount(plan: Plan, kind: str, measure: str) -> Unit:
    [unit] = [unit for unit in capacity(plan) if (unit.resource, unit.measure) == (kind, measure)]
    return unit


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.stack_name)
def test_every_resource_of_a_template_is_counted_or_has_a_reason_not_to_be(
    plan: Plan, templates: dict[str, Template]
) -> None:
    found = resources(templates[plan.stack_name])
    counted: Counter[str] = Counter()
    for unit in capacity(plan):
        counted[unit.resource] += int(unit.most) if unit.measure == "resource" else 0
    parts = {unit.resource for unit in capacity(plan) if unit.measure != "resource"} - {*+counted}
    left = {kind: number for kind, number in found.items() if kind not in NOT_COUNTED and kind not in parts}
    assert +counted == left
    assert parts <= {*found}


def test_no_reason_is_left_for_a_type_that_no_template_has(templates: dict[str, Template]) -> None:
    assert {*NOT_COUNTED} <= {kind for template in templates.values() for kind in resources(template)}


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.stack_name)
def test_the_amounts_follow_the_limits_of_autoscaling(plan: Plan, templates: dict[str, Template]) -> None:
    template = templates[plan.stack_name]
    limits = template.one("AWS::ApplicationAutoScaling::ScalableTarget")
    if plan.architecture == "self-hosted":
        task = template.one("AWS::ECS::TaskDefinition")
        sizes = {
            "vCPU": int(task["Cpu"]) / 1024,
            "GiB of memory": int(task["Memory"]) / 1024,
            "GiB of disk beyond 20": task["EphemeralStorage"]["SizeInGiB"] - 20,
        }
        units = {amount(plan, "AWS::ECS::TaskDefinition", name): size for name, size in sizes.items()}
    else:
        units = {amount(plan, "AWS::SageMaker::Endpoint", "instance"): 1}
        [variant] = template.one("AWS::SageMaker::EndpointConfig")["ProductionVariants"]
        assert {unit.size for unit in units} == {variant["InstanceType"]}
    for unit, size in units.items():
        assert (unit.least, unit.most) == (limits["MinCapacity"] * size, limits["MaxCapacity"] * size)
        assert unit.peak == 2 * unit.most


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.stack_name)
def test_endpoints_are_billed_in_every_zone(plan: Plan, templates: dict[str, Template]) -> None:
    endpoints = templates[plan.stack_name].all("AWS::EC2::VPCEndpoint").values()
    in_zones = sum(len(one["SubnetIds"]) for one in endpoints if one["VpcEndpointType"] == "Interface")
    assert amount(plan, "AWS::EC2::VPCEndpoint", "endpoint in a zone").most == in_zones


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.stack_name)
def test_a_stack_has_exactly_the_outputs_that_are_declared(
    plan: Plan, templates: dict[str, Template]
) -> None:
    made: dict[str, Any] = templates[plan.stack_name].document["Outputs"]
    assert {name: output["Description"] for name, output in made.items()} == dict(outputs(plan))


def test_quotas_have_codes_as_service_quotas_writes_them_and_are_all_used() -> None:
    path = PROJECT / "modelstacks/core/plan/data/quotas.json"
    known = json.loads(Path(path).read_text())["quotas"]
    assert all(entry["code"].startswith("L-") and len(entry["code"]) == 10 for entry in known.values())
    used = {unit.quota.code for plan in PLANS for unit in capacity(plan) if unit.quota}
    assert {entry["code"] for entry in known.values()} == used - {""}
