"""CloudFormation's resource schemas: what they refuse at creation and at an update, and how that reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.control_plane import REGION, Account

from modelstacks.cloud.cloudformation.resource import emulated_types
from modelstacks.cloud.cloudformation.schemas import Schema, SchemasMissingError, find, schema_of


def schema(type_name: str) -> Schema:
    found = schema_of(type_name, REGION)
    assert found is not None
    return found


TASK = {"Family": "f", "ContainerDefinitions": [{"Name": "c", "Image": "i"}]}
GROUP = {"GroupDescription": "g", "VpcId": "vpc-1"}
TARGETS = {"Port": 80, "Protocol": "HTTP", "VpcId": "vpc-1"}
VARIANT = {"ModelName": "m", "VariantName": "v", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}

#: type, properties, the line that says what is wrong
FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("AWS::EC2::Subnet", {"CidrBlock": "10.0.0.0/24"}, "#: required key [VpcId] not found"),
    ("AWS::Logs::LogGroup", {"Colour": "red"}, "#: extraneous key [Colour] is not permitted"),
    (
        "AWS::ECS::TaskDefinition",
        {"ContainerDefinitions": [{"Name": "c", "Image": "i", "Imgae": "i"}]},
        "#/ContainerDefinitions/0: extraneous key [Imgae] is not permitted",
    ),
    (
        "AWS::ECS::TaskDefinition",
        {"ContainerDefinitions": [{"Name": "c"}]},
        "#/ContainerDefinitions/0: required key [Image] not found",
    ),
    (
        "AWS::ApiGateway::Stage",
        {"RestApiId": "a", "TracingEnabled": "perhaps"},
        "#/TracingEnabled: expected type: Boolean, found: String",
    ),
    (
        "AWS::EC2::VPCEndpoint",
        {"VpcId": "vpc-1", "SubnetIds": "subnet-1"},
        "#/SubnetIds: expected type: JSONArray, found: String",
    ),
    (
        "AWS::Logs::LogGroup",
        {"RetentionInDays": 8},
        "#/RetentionInDays: failed validation constraint for keyword [enum] (allowed: 1, 3, 5, 7, 14, 30",
    ),
    (
        "AWS::ElasticLoadBalancingV2::TargetGroup",
        {**TARGETS, "TargetType": "container"},
        "#/TargetType: failed validation constraint for keyword [enum] (allowed: ",
    ),
    (
        "AWS::Logs::LogGroup",
        {"LogGroupName": "with spaces"},
        "#/LogGroupName: failed validation constraint for keyword [pattern] (allowed: ^",
    ),
    (
        "AWS::Lambda::Function",
        {"Code": {}, "Role": "arn:aws:iam::123456789012:role/r", "Timeout": 0},
        "#/Timeout: failed validation constraint for keyword [minimum] (allowed: 1)",
    ),
    (
        "AWS::ElasticLoadBalancingV2::TargetGroup",
        {**TARGETS, "Port": 70_000},
        "#/Port: failed validation constraint for keyword [maximum] (allowed: 65535)",
    ),
    (
        "AWS::Logs::LogGroup",
        {"LogGroupName": "g" * 513},
        "#/LogGroupName: expected maxLength: 512, actual: 513",
    ),
    (
        "AWS::EC2::VPCEndpoint",
        {"VpcId": "vpc-1", "SubnetIds": ["subnet-1", "subnet-1"]},
        "#/SubnetIds: array items are not unique",
    ),
    (
        "AWS::SageMaker::EndpointConfig",
        {"ProductionVariants": [{**VARIANT, "InstanceType": "ml.g5.huge"}]},
        "#/ProductionVariants/0/InstanceType: failed validation constraint for keyword [enum] (allowed: ml.",
    ),
    (
        "AWS::IAM::Policy",
        {"PolicyName": "p", "PolicyDocument": {}},
        "#: no subschema matched out of the total 3 subschemas",
    ),
    (
        "AWS::ElasticLoadBalancingV2::ListenerRule",
        {"Priority": 1, "Actions": [], "Conditions": [], "Transforms": [{"Type": "url-rewrite"}]},
        "#/Transforms/0: 0 subschemas matched instead of one",
    ),
    (
        "AWS::EC2::SecurityGroup",
        {**GROUP, "SecurityGroupIngress": [{"IpProtocol": "tcp"}]},
        "#/SecurityGroupIngress/0: exactly one of the keys [CidrIp, CidrIpv6, SourcePrefixListId, ",
    ),
    (
        "AWS::EC2::Subnet",
        {"VpcId": "vpc-1", "CidrBlock": "10.0.0.0/24", "AvailabilityZone": "a", "AvailabilityZoneId": "b"},
        "#: key [AvailabilityZoneId] is not permitted with [AvailabilityZone]",
    ),
    (
        "AWS::EC2::Subnet",
        {"VpcId": "vpc-1"},
        "#: at least one of the keys [CidrBlock, Ipv4IpamPoolId, Ipv6IpamPoolId, Ipv6CidrBlock] is required",
    ),
    (
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        {"PolicyName": "p", "PolicyType": "TargetTrackingScaling", "ResourceId": "service/c/s"},
        "#: required key [ScalableDimension] not found (with [ResourceId])",
    ),
    (
        "AWS::ECS::TaskDefinition",
        {
            "ContainerDefinitions": [
                {"Name": "c", "Image": "i", "Environment": [{"Name": "A", "Value": "1"}] * 2}
            ]
        },
        "#/ContainerDefinitions/0/Environment: array items are not unique",
    ),
    (
        "AWS::EC2::SecurityGroup",
        {**GROUP, "GroupId": "sg-1"},
        "#: read-only property [GroupId] cannot be specified",
    ),
]


@pytest.mark.parametrize(("type_name", "properties", "line"), FAULTS, ids=lambda value: str(value)[:60])
def test_a_fault_is_told_as_cloudformation_tells_it(
    type_name: str, properties: dict[str, Any], line: str
) -> None:
    assert any(found.startswith(line) for found in schema(type_name).violations(properties))


@pytest.mark.parametrize(
    ("type_name", "properties"),
    [
        ("AWS::Logs::LogGroup", {"RetentionInDays": "14"}),
        ("AWS::ECS::TaskDefinition", {**TASK, "Cpu": 256, "Memory": 512}),
        ("AWS::ApiGateway::Stage", {"RestApiId": "a", "TracingEnabled": "true"}),
        ("AWS::EC2::VPCEndpoint", {"VpcId": "vpc-1", "PolicyDocument": '{"Statement": []}'}),
        (
            "AWS::SageMaker::EndpointConfig",
            {"ProductionVariants": [{**VARIANT, "InitialVariantWeight": "1"}]},
        ),
        ("AWS::KMS::Key", {"KeyPolicy": '{"Version": "2012-10-17"}'}),
    ],
)
def test_scalars_are_taken_in_either_type_as_cloudformation_takes_them(
    type_name: str, properties: dict[str, Any]
) -> None:
    assert schema(type_name).violations(properties) == []


def test_a_number_that_is_none_is_not_taken() -> None:
    found = schema("AWS::Logs::LogGroup").violations({"RetentionInDays": "14 days"})
    assert "#/RetentionInDays: expected type: Integer, found: String" in found


@pytest.mark.parametrize("type_name", sorted(emulated_types()))
def test_every_emulated_type_has_a_schema_whose_references_all_resolve(type_name: str) -> None:
    # An empty value walks the top; a value of the wrong type for each property walks one level down.
    found = schema(type_name)
    found.violations({})
    found.violations({name: [{}] for name in found.document["properties"]})


def test_a_resource_that_violates_its_schema_fails_and_the_stack_rolls_back(account: Account) -> None:
    resources = {
        "Good": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/good"}},
        "Bad": {
            "Type": "AWS::Logs::LogGroup",
            "Properties": {"RetentionInDays": {"Ref": "Days"}, "Retain": True},
            "DependsOn": "Good",
        },
    }
    parameters = {"Days": {"Type": "Number", "Default": 8}}
    (reason,) = account.refuse("invalid", resources, Parameters=parameters).values()
    first, *lines = reason.splitlines()
    assert first == "Properties validation failed for resource Bad with message:"
    assert sorted(line.split("(")[0].strip() for line in lines) == [
        "#/RetentionInDays: failed validation constraint for keyword [enum]",
        "#: extraneous key [Retain] is not permitted",
    ]
    assert account.client("logs").describe_log_groups(logGroupNamePrefix="/good")["logGroups"] == []


def test_a_valid_stack_is_not_updated_to_an_invalid_one(account: Account) -> None:
    def group(days: int) -> dict[str, Any]:
        return {"G": {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": days}}}

    ids = account.create("kept", group(7))
    assert "#/RetentionInDays: failed" in account.refuse_update("kept", group(8))["G"]
    (found,) = account.client("logs").describe_log_groups(logGroupNamePrefix=ids["G"])["logGroups"]
    assert found["retentionInDays"] == 7


def test_what_nothing_emulates_must_be_valid_too(account: Account) -> None:
    acl = {"Type": "AWS::WAFv2::WebACL", "Properties": {"Scope": "REGIONAL"}}
    assert "#: required key [DefaultAction] not found" in account.refuse("acl", {"Acl": acl})["Acl"]


def test_a_create_only_property_replaces_the_resource(account: Account) -> None:
    def subnets(zone: int) -> dict[str, Any]:
        place = {"Fn::Select": [zone, {"Fn::GetAZs": ""}]}
        group = {"Name": "alike", "VpcId": {"Ref": "Vpc"}, "Port": 80, "Protocol": "HTTP", "TargetType": "ip"}
        return {
            "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.0.0.0/16"}},
            "Subnet": {
                "Type": "AWS::EC2::Subnet",
                "Properties": {
                    "VpcId": {"Ref": "Vpc"},
                    "CidrBlock": f"10.0.{zone}.0/24",
                    "AvailabilityZone": place,
                },
            },
            "Targets": {"Type": "AWS::ElasticLoadBalancingV2::TargetGroup", "Properties": group},
        }

    before = account.create("moved", subnets(0))
    after = account.update("moved", subnets(1))
    assert after["Subnet"] != before["Subnet"]
    assert (after["Vpc"], after["Targets"]) == (before["Vpc"], before["Targets"])


def test_a_type_that_the_region_does_not_have_is_refused_before_anything_is_made(account: Account) -> None:
    body = account.template({"T": {"Type": "AWS::Unknown::Thing"}})
    with pytest.raises(ClientError, match=r"Unrecognized resource types: \[AWS::Unknown::Thing\]"):
        account.client("cloudformation").create_stack(StackName="unknown", TemplateBody=body)


def test_cfn_lint_itself_is_never_imported() -> None:
    program = (
        "import sys; from modelstacks.cloud.cloudformation.schemas import schema_of; "
        "schema_of('AWS::Logs::LogGroup', 'eu-west-1').violations({'RetentionInDays': 8}); "
        "sys.exit('cfnlint' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_cfn_lint_without_schemas_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        SchemasMissingError, match="cfn-lint, which brings them, is missing or keeps them elsew"
    ):
        find([str(tmp_path)])
