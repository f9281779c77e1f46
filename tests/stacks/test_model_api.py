"""ModelApi in a stack that somebody wrote: their VPC, their endpoints, their key, grants and metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cdk import CONTEXT, Template, use_own_node
from support.plans import make

from modelstacks.core.errors import UsageError
from modelstacks.core.spec import Api

Write = Callable[[Any], Any]
ISOLATED = {"ecr.api", "ecr.dkr", "logs", "s3", "sagemaker.runtime"}


def app(outdir: Path) -> Any:
    use_own_node()
    from aws_cdk import App

    return App(outdir=str(outdir), context=CONTEXT, analytics_reporting=False)


def shop(outdir: Path, write: Write) -> Template:
    """The template of a stack "shop", in which `write` has put something."""
    from aws_cdk import Stack

    root = app(outdir)
    write(Stack(root, "shop"))
    root.synth()
    return Template.read(outdir, "shop")


def vpc(stack: Any, **changes: Any) -> Any:
    from aws_cdk import aws_ec2 as ec2

    isolated = ec2.SubnetConfiguration(name="own", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24)
    return ec2.Vpc(
        stack, "Vpc", **{"max_azs": 2, "nat_gateways": 0, "subnet_configuration": [isolated], **changes}
    )


def services(template: Template) -> list[str]:
    """The services that the template's endpoints are for, by the last part of their names."""
    names = [
        each["ServiceName"]
        if isinstance(each["ServiceName"], str)
        else each["ServiceName"]["Fn::Join"][1][-1]
        for each in template.all("AWS::EC2::VPCEndpoint").values()
    ]
    return sorted(name.removeprefix("com.amazonaws.").removeprefix(".") for name in names)


@pytest.fixture(scope="module", params=["self-hosted", "managed"])
def in_their_vpc(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Template:
    from modelstacks.cdk import ModelApi

    return shop(
        tmp_path_factory.mktemp("shop"),
        lambda stack: ModelApi(stack, "Churn", plan=make(request.param), vpc=vpc(stack)),
    )


def test_it_makes_no_second_vpc_and_no_subnet(in_their_vpc: Template) -> None:
    assert list(in_their_vpc.all("AWS::EC2::VPC")) == [in_their_vpc.id("AWS::EC2::VPC", "Vpc")]
    assert not [name for name in in_their_vpc.all("AWS::EC2::Subnet") if "Churn" in name]
    assert not in_their_vpc.all("AWS::EC2::FlowLog"), "the VPC's own owner decides about flow logs"


def test_whatever_has_subnets_is_in_theirs(in_their_vpc: Template) -> None:
    theirs = [{"Ref": name} for name in in_their_vpc.all("AWS::EC2::Subnet")]
    found = [
        *[
            each["SubnetIds"]
            for each in in_their_vpc.all("AWS::EC2::VPCEndpoint").values()
            if "SubnetIds" in each
        ],
        *[each["SubnetIds"] for each in in_their_vpc.all("AWS::ApiGatewayV2::VpcLink").values()],
        *[each["Subnets"] for each in in_their_vpc.all("AWS::ElasticLoadBalancingV2::LoadBalancer").values()],
        *[each["VpcConfig"]["Subnets"] for each in in_their_vpc.all("AWS::SageMaker::Model").values()],
    ]
    assert found
    assert all(subnets == theirs for subnets in found)


def test_the_endpoints_that_the_vpc_lacks_are_made(in_their_vpc: Template) -> None:
    made = services(in_their_vpc)
    assert set(made) <= ISOLATED
    assert made.count("s3") == 1


def test_it_makes_no_outputs_of_its_own(in_their_vpc: Template) -> None:
    assert "Outputs" not in in_their_vpc.document


def test_endpoints_that_the_vpc_has_are_used_and_not_made_again(tmp_path: Path) -> None:
    from aws_cdk import aws_ec2 as ec2

    from modelstacks.cdk import ModelApi

    def write(stack: Any) -> None:
        theirs = vpc(stack)
        service = ec2.InterfaceVpcEndpointAwsService
        # One security group for two endpoints, as people have it.
        shared = ec2.SecurityGroup(stack, "Shared", vpc=theirs)
        endpoints = {
            "ecr.api": theirs.add_interface_endpoint("A", service=service.ECR, security_groups=[shared]),
            "ecr.dkr": theirs.add_interface_endpoint(
                "B", service=service.ECR_DOCKER, security_groups=[shared]
            ),
            "s3": theirs.add_gateway_endpoint("C", service=ec2.GatewayVpcEndpointAwsService.S3),
        }
        ModelApi(stack, "Churn", plan=make("self-hosted"), vpc=theirs, endpoints=endpoints)

    template = shop(tmp_path, write)
    assert services(template) == ["ecr.api", "ecr.dkr", "logs", "s3"]
    assert [name for name in template.all("AWS::EC2::VPCEndpoint") if "Churn" in name] == [
        template.id("AWS::EC2::VPCEndpoint", "LogsApi")
    ]
    shared = {"Fn::GetAtt": [template.id("AWS::EC2::SecurityGroup", "Shared"), "GroupId"]}
    tasks = template.all("AWS::EC2::SecurityGroup")[template.id("AWS::EC2::SecurityGroup", "Tasks")]
    out = [rule for rule in tasks["SecurityGroupEgress"] if rule.get("DestinationSecurityGroupId") == shared]
    inward = [
        rule
        for rule in template.all("AWS::EC2::SecurityGroupIngress").values()
        if rule["GroupId"] == shared and "SourceSecurityGroupId" in rule
    ]
    assert len(out) == 1, "EC2 refuses the same rule twice"
    assert len(inward) == 1
    assert (inward[0]["FromPort"], inward[0]["ToPort"]) == (443, 443)


def test_subnets_with_a_way_to_aws_need_no_endpoints(tmp_path: Path) -> None:
    from aws_cdk import aws_ec2 as ec2

    from modelstacks.cdk import ModelApi

    def write(stack: Any) -> None:
        theirs = vpc(stack, nat_gateways=1, subnet_configuration=None)
        egress = ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS)
        ModelApi(
            stack, "Churn", plan=make("self-hosted"), vpc=theirs, vpc_subnets=egress, create_endpoints=False
        )

    template = shop(tmp_path, write)
    assert not template.all("AWS::EC2::VPCEndpoint")
    tasks = template.all("AWS::EC2::SecurityGroup")[template.id("AWS::EC2::SecurityGroup", "Tasks")]
    assert [(rule["CidrIp"], rule["FromPort"]) for rule in tasks["SecurityGroupEgress"]] == [
        ("0.0.0.0/0", 443)
    ]
    subnets = template.one("AWS::ElasticLoadBalancingV2::LoadBalancer")["Subnets"]
    assert all("Private" in each["Ref"] for each in subnets)


def test_subnets_of_one_zone_are_refused_with_the_fix(tmp_path: Path) -> None:
    from modelstacks.cdk import ModelApi

    with pytest.raises(
        UsageError, match="two availability zones or more; got 1 subnets in 1 zones; fix: pass"
    ):
        shop(
            tmp_path,
            lambda stack: ModelApi(
                stack, "Churn", plan=make("managed"), vpc=vpc(stack, max_azs=1, availability_zones=None)
            ),
        )


@pytest.mark.parametrize(
    ("environment", "what"),
    [
        ({"account": "111122223333", "region": "us-east-1"}, "region: eu-west-1 in the spec, us-east-1 in"),
        ({"account": "999988887777", "region": "eu-west-1"}, "account: 111122223333 in the spec, 9999"),
    ],
)
def test_a_spec_for_another_account_or_region_is_refused(
    tmp_path: Path, environment: dict[str, str], what: str
) -> None:
    from aws_cdk import Environment, Stack

    from modelstacks.cdk import ModelApi
    from modelstacks.core.spec import Aws

    stack = Stack(app(tmp_path), "shop", env=Environment(**environment))
    plan = make("managed", aws=Aws(account="111122223333", region="eu-west-1"))
    with pytest.raises(UsageError, match=f"shop/Churn: .* than the stack; got aws.{what}"):
        ModelApi(stack, "Churn", plan=plan)


def test_endpoints_without_a_vpc_are_refused(tmp_path: Path) -> None:
    from modelstacks.cdk import ModelApi

    with pytest.raises(UsageError, match="vpc is not given; fix: pass vpc"):
        shop(tmp_path, lambda stack: ModelApi(stack, "Churn", plan=make("managed"), create_endpoints=False))


def test_their_key_encrypts_and_admits_log_groups(tmp_path: Path) -> None:
    from aws_cdk import aws_kms as kms

    from modelstacks.cdk import ModelApi

    template = shop(
        tmp_path,
        lambda stack: ModelApi(stack, "Churn", plan=make("managed"), encryption_key=kms.Key(stack, "Theirs")),
    )
    key = template.id("AWS::KMS::Key")
    assert key.startswith("Theirs")
    arn = {"Fn::GetAtt": [key, "Arn"]}
    assert {json.dumps(each["KmsKeyId"]) for each in template.all("AWS::Logs::LogGroup").values()} == {
        json.dumps(arn)
    }
    assert template.one("AWS::SageMaker::EndpointConfig")["KmsKeyId"] == arn
    principals = [each["Principal"] for each in template.one("AWS::KMS::Key")["KeyPolicy"]["Statement"]]
    assert any("Service" in each and "logs" in json.dumps(each) for each in principals)


def test_their_security_groups_are_added_to_what_holds_the_model(tmp_path: Path) -> None:
    from aws_cdk import aws_ec2 as ec2

    from modelstacks.cdk import ModelApi

    def write(stack: Any) -> None:
        theirs = vpc(stack)
        group = ec2.SecurityGroup(stack, "Inspection", vpc=theirs)
        for architecture in ("self-hosted", "managed"):
            plan = make(architecture)
            ModelApi(
                stack,
                architecture,
                plan=plan,
                vpc=theirs,
                security_groups=[group],
                endpoints={
                    "s3": theirs.add_gateway_endpoint(
                        architecture + "S3", service=ec2.GatewayVpcEndpointAwsService.S3
                    )
                },
            )

    template = shop(tmp_path, write)
    group = {"Fn::GetAtt": [template.id("AWS::EC2::SecurityGroup", "Inspection"), "GroupId"]}
    service = template.one("AWS::ECS::Service")["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert group in service["SecurityGroups"]
    assert group in template.one("AWS::SageMaker::Model")["VpcConfig"]["SecurityGroupIds"]


def test_two_of_one_spec_share_no_name(tmp_path: Path) -> None:
    from modelstacks.cdk import ModelApi

    def write(stack: Any) -> None:
        ModelApi(stack, "One", plan=make("managed"))
        ModelApi(stack, "Two", plan=make("managed"))

    template = shop(tmp_path, write)
    for kind, name in (
        ("AWS::SageMaker::Endpoint", "EndpointName"),
        ("AWS::ApiGateway::RestApi", "Name"),
        ("AWS::ApiGateway::UsagePlan", "UsagePlanName"),
        ("AWS::ApplicationAutoScaling::ScalingPolicy", "PolicyName"),
    ):
        names = [each[name] for each in template.all(kind).values()]
        assert len(names) == len(set(names)) == 2, kind
        assert all(len(each) <= 63 for each in names)


def test_grant_invoke_allows_signed_requests_to_this_api_alone(tmp_path: Path) -> None:
    from aws_cdk import aws_iam as iam

    from modelstacks.cdk import ModelApi

    def write(stack: Any) -> None:
        role = iam.Role(stack, "Caller", assumed_by=iam.AccountRootPrincipal())
        ModelApi(stack, "Churn", plan=make("managed", api=Api(auth="iam"))).grant_invoke(role)

    template = shop(tmp_path, write)
    [statement] = [
        statement
        for role, statement in template.statements()
        if role.startswith("Caller") and statement["Action"] == "execute-api:Invoke"
    ]
    assert {"Ref": template.id("AWS::ApiGateway::RestApi")} in statement["Resource"]["Fn::Join"][1]


def test_grant_read_api_key_names_the_key(tmp_path: Path) -> None:
    from aws_cdk import aws_iam as iam

    from modelstacks.cdk import ModelApi

    def write(stack: Any) -> None:
        role = iam.Role(stack, "Caller", assumed_by=iam.AccountRootPrincipal())
        ModelApi(stack, "Churn", plan=make("managed")).grant_read_api_key(role)

    template = shop(tmp_path, write)
    [statement] = [each for role, each in template.statements() if role.startswith("Caller")]
    assert statement["Action"] == "apigateway:GET"
    assert {"Ref": template.id("AWS::ApiGateway::ApiKey")} in statement["Resource"]["Fn::Join"][1]


@pytest.mark.parametrize(
    ("auth", "grant", "fix"),
    [("api-key", "grant_invoke", "api.auth: iam"), ("iam", "grant_read_api_key", "api.auth: api-key")],
)
def test_a_grant_that_would_let_nobody_in_is_refused(tmp_path: Path, auth: Any, grant: str, fix: str) -> None:
    from aws_cdk import Stack
    from aws_cdk import aws_iam as iam

    from modelstacks.cdk import ModelApi

    stack = Stack(app(tmp_path), "shop")
    role = iam.Role(stack, "Caller", assumed_by=iam.AccountRootPrincipal())
    api = ModelApi(stack, "Churn", plan=make("managed", api=Api(auth=auth)))
    with pytest.raises(UsageError, match=f"shop/Churn: .*fix: set {fix} in the spec"):
        getattr(api, grant)(role)


def test_metrics_are_of_this_apis_stage(tmp_path: Path) -> None:
    from modelstacks.cdk import ModelApi

    def write(stack: Any) -> None:
        api = ModelApi(stack, "Churn", plan=make("managed"))
        for metric in (
            api.metric_count(),
            api.metric_client_error(),
            api.metric_server_error(),
            api.metric_latency(),
            api.metric_integration_latency(statistic="p50"),
        ):
            name = metric.metric_name
            metric.create_alarm(stack, name, threshold=1, evaluation_periods=3)

    template = shop(tmp_path, write)
    alarms = template.all("AWS::CloudWatch::Alarm").values()
    assert {alarm["MetricName"] for alarm in alarms} == {
        "Count",
        "4XXError",
        "5XXError",
        "Latency",
        "IntegrationLatency",
    }
    name = template.one("AWS::ApiGateway::RestApi")["Name"]
    for alarm in alarms:
        assert {each["Name"]: each["Value"] for each in alarm["Dimensions"]} == {
            "ApiName": name,
            "Stage": "live",
        }
    assert {alarm.get("ExtendedStatistic") for alarm in alarms} == {None, "p99", "p50"}


def test_the_api_is_an_object_that_the_cdks_library_takes(tmp_path: Path) -> None:
    from aws_cdk import aws_apigateway as apigateway

    from modelstacks.cdk import ModelApi

    def write(stack: Any) -> None:
        churn = ModelApi(stack, "Churn", plan=make("managed"))
        assert churn.api.node.path == churn.api.node.path
        apigateway.CfnBasePathMapping(
            stack, "Mapping", domain_name="models.example.com", rest_api_id=churn.api.rest_api_id
        )

    template = shop(tmp_path, write)
    assert template.one("AWS::ApiGateway::BasePathMapping")["RestApiId"] == {
        "Ref": template.id("AWS::ApiGateway::RestApi")
    }


@pytest.mark.parametrize("architecture", ["self-hosted", "managed"])
def test_a_permissions_boundary_reaches_every_role(tmp_path: Path, architecture: str) -> None:
    from aws_cdk import aws_iam as iam

    from modelstacks.cdk import ModelApi

    arn = "arn:aws:iam::111122223333:policy/boundary"

    def write(stack: Any) -> None:
        api = ModelApi(stack, "Churn", plan=make(architecture))
        boundary = iam.ManagedPolicy.from_managed_policy_arn(stack, "Boundary", arn)
        iam.PermissionsBoundary.of(api).apply(boundary)

    roles = shop(tmp_path, write).all("AWS::IAM::Role")
    assert roles
    assert {role["PermissionsBoundary"] for role in roles.values()} == {arn}


def test_the_specs_tags_are_on_its_resources_and_on_no_others(tmp_path: Path) -> None:
    from aws_cdk import aws_sqs as sqs

    from modelstacks.cdk import ModelApi

    def write(stack: Any) -> None:
        sqs.Queue(stack, "Theirs")
        ModelApi(stack, "Churn", plan=make("managed"))

    template = shop(tmp_path, write)
    assert "Tags" not in template.one("AWS::SQS::Queue")
    tags = template.one("AWS::SageMaker::Endpoint")["Tags"]
    assert {"Key": "modelstacks:deployment", "Value": "churn"} in tags
