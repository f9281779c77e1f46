"""What both architectures have in common: API, keys, encryption, least privilege, a closed network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model_server.problems import ProblemError, too_large
from support.cdk import CONTEXT, PROJECT, Template, use_own_node
from support.plans import make

from modelstacks.core.contract import PREDICTIVE_ROUTES, STAGE
from modelstacks.core.registry import targets
from modelstacks.targets.ecs_fargate import EcsFargate


def synth(tmp_path: Path, architecture: Any, **changes: Any) -> Template:
    use_own_node()
    from modelstacks.cdk.synth import synthesize

    plan = make(architecture, **changes)
    synthesize([plan], outdir=str(tmp_path), context=CONTEXT)
    assert "missing" not in json.loads((tmp_path / "manifest.json").read_text()), "no look-up in an account"
    report = json.loads((tmp_path / "validation-report.json").read_text())
    assert [found for check in report["pluginReports"] for found in check["violations"]] == [], "no warning"
    return Template.read(tmp_path, plan.stack_name)


def paths(template: Template) -> dict[str, str]:
    """The API's resources: logical id -> whole path."""
    resources = template.all("AWS::ApiGateway::Resource")

    def path(name: str) -> str:
        parent = resources[name]["ParentId"].get("Ref")
        return (path(parent) if parent else "") + "/" + resources[name]["PathPart"]

    return {name: path(name) for name in resources}


def test_every_declared_target_has_a_builder_and_every_builder_a_declaration() -> None:
    from modelstacks.cdk.targets import builder

    assert all(callable(builder(name)) for name in targets())
    files = {path.stem.replace("_", "-") for path in (PROJECT / "stacks" / "targets").glob("[a-z]*.py")}
    assert files == set(targets())


def test_a_builder_refuses_the_block_of_another_target() -> None:
    from modelstacks.cdk.targets import Foundation, builder

    nothing: Any = None
    with pytest.raises(TypeError, match="sagemaker-endpoint cannot build EcsFargate"):
        builder("sagemaker-endpoint")(nothing, make("self-hosted"), Foundation(nothing, nothing, nothing))


def test_the_api_has_the_contracts_routes_and_no_other(template: Template) -> None:
    known = paths(template)
    made = {
        (m["HttpMethod"], known[m["ResourceId"]["Ref"]])
        for m in template.all("AWS::ApiGateway::Method").values()
    }
    assert made == {(route.method, route.path) for route in PREDICTIVE_ROUTES}


def test_both_architectures_offer_callers_the_same_api(self_hosted: Template, managed: Template) -> None:
    def seen(template: Template) -> list[Any]:
        known = paths(template)
        return sorted(
            (
                known[m["ResourceId"]["Ref"]],
                m["HttpMethod"],
                m["ApiKeyRequired"],
                sorted(m["RequestParameters"]),
            )
            for m in template.all("AWS::ApiGateway::Method").values()
        )

    assert seen(self_hosted) == seen(managed)


def test_every_method_wants_a_key_and_validates_what_it_is_sent(template: Template) -> None:
    validator = template.id("AWS::ApiGateway::RequestValidator")
    assert template.one("AWS::ApiGateway::RequestValidator")["ValidateRequestParameters"] is True
    for method in template.all("AWS::ApiGateway::Method").values():
        assert method["ApiKeyRequired"] is True
        assert method["RequestValidatorId"] == {"Ref": validator}

    # An Open Inference client sends no content type with its JSON; /invocations cannot be read without one.
    wants_type = [
        method["ResourceId"]
        for method in template.all("AWS::ApiGateway::Method").values()
        if "method.request.header.Content-Type" in method["RequestParameters"]
    ]
    (invocations,) = [
        name
        for name, r in template.all("AWS::ApiGateway::Resource").items()
        if r["PathPart"] == "invocations"
    ]
    assert wants_type == [{"Ref": invocations}]


@pytest.mark.parametrize("architecture", ["self-hosted", "managed"])
def test_iam_auth_replaces_the_api_key(tmp_path: Path, architecture: str) -> None:
    from modelstacks.core.spec import Api

    template = synth(tmp_path, architecture, api=Api(auth="iam"))
    assert {m["AuthorizationType"] for m in template.all("AWS::ApiGateway::Method").values()} == {"AWS_IAM"}
    assert not any(m["ApiKeyRequired"] for m in template.all("AWS::ApiGateway::Method").values())
    assert not template.all("AWS::ApiGateway::ApiKey")
    assert "ApiKeyId" not in template.document["Outputs"]


def test_throttle_and_quota_stand_on_the_stage_and_on_the_usage_plan(tmp_path: Path) -> None:
    from modelstacks.core.spec import Api, Quota, Throttle

    api = Api(throttle=Throttle(rate=7, burst=9), quota=Quota(requests=1000, per="week"))
    template = synth(tmp_path, "managed", api=api)
    [setting] = template.one("AWS::ApiGateway::Stage")["MethodSettings"]
    assert (setting["ThrottlingRateLimit"], setting["ThrottlingBurstLimit"]) == (7, 9)
    plan = template.one("AWS::ApiGateway::UsagePlan")
    assert plan["Throttle"] == {"RateLimit": 7, "BurstLimit": 9}
    assert plan["Quota"] == {"Limit": 1000, "Period": "WEEK"}
    assert template.one("AWS::ApiGateway::UsagePlanKey")["KeyId"] == {
        "Ref": template.id("AWS::ApiGateway::ApiKey")
    }


def test_the_deployment_is_new_when_the_api_is_and_only_then(tmp_path: Path, managed: Template) -> None:
    from modelstacks.core.spec import Api

    same = synth(tmp_path / "same", "managed", description="another word")
    other = synth(tmp_path / "other", "managed", api=Api(timeout_seconds=10))
    deployment = "AWS::ApiGateway::Deployment"
    assert same.id(deployment) == managed.id(deployment)
    assert other.id(deployment) != managed.id(deployment)


def test_the_stage_waits_for_the_deployment_of_every_method(template: Template) -> None:
    deployment = template.document["Resources"][template.id("AWS::ApiGateway::Deployment")]
    assert set(template.all("AWS::ApiGateway::Method")) <= set(deployment["DependsOn"])
    stage = template.one("AWS::ApiGateway::Stage")
    assert stage["StageName"] == STAGE
    assert stage["DeploymentId"] == {"Ref": template.id("AWS::ApiGateway::Deployment")}


def test_the_stage_is_traced_and_logs_each_request_but_no_body(template: Template) -> None:
    stage = template.one("AWS::ApiGateway::Stage")
    assert stage["TracingEnabled"] is True
    log = json.loads(stage["AccessLogSetting"]["Format"])
    assert {"requestId", "status", "latency", "route", "integrationError"} <= set(log)
    assert stage["MethodSettings"][0]["DataTraceEnabled"] is False


def test_the_accounts_logging_role_is_set_once_there_is_an_api_and_before_the_stage(
    template: Template,
) -> None:
    account = template.id("AWS::ApiGateway::Account")
    assert template.depends(account, template.id("AWS::ApiGateway::RestApi"))
    assert template.depends(template.id("AWS::ApiGateway::Stage"), account)


def test_the_accounts_logging_role_can_be_left_alone(tmp_path: Path) -> None:
    from modelstacks.core.spec import Api

    template = synth(tmp_path, "managed", api=Api(account_logging_role="existing"))
    assert not template.all("AWS::ApiGateway::Account")
    assert not [name for name in template.all("AWS::IAM::Role") if "LogsRole" in name and "Api" in name]
    [setting] = template.one("AWS::ApiGateway::Stage")["MethodSettings"]
    assert setting["LoggingLevel"] == "ERROR"


def gateway_problems(template: Template) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """The API's gateway responses and their documents, by type."""
    return {
        response["ResponseType"]: (
            response,
            json.loads(
                response["ResponseTemplates"]["application/json"].replace(
                    "$context.error.messageString", '"its own words"'
                )
            ),
        )
        for response in template.all("AWS::ApiGateway::GatewayResponse").values()
    }


def test_api_gateways_own_errors_are_the_model_servers_problems(template: Template) -> None:
    members = set(ProblemError(503, "x").to_json("id"))
    for kind, (response, document) in gateway_problems(template).items():
        sent = response["ResponseParameters"]
        assert sent["gatewayresponse.header.Content-Type"] == "'application/problem+json'"
        assert sent["gatewayresponse.header.X-Request-Id"] == "context.requestId"
        assert document["error"] == document["detail"]
        if kind.startswith("DEFAULT"):  # whatever AWS may add: nobody knows its status
            assert set(document) == members - {"status"}
            continue
        assert set(document) - {"retry_after"} == members
        assert str(document["status"]) == response["StatusCode"]
        retry = sent.get("gatewayresponse.header.Retry-After")
        assert retry == (f"'{document['retry_after']}'" if "retry_after" in document else None)


def test_a_body_that_api_gateway_refuses_is_refused_in_the_model_servers_words(template: Template) -> None:
    _, document = gateway_problems(template)["REQUEST_TOO_LARGE"]
    assert document == too_large(4_194_304).to_json("$context.requestId")


def test_a_throttled_function_is_overload_and_an_unreachable_balancer_is_not(
    managed: Template, self_hosted: Template
) -> None:
    busy, document = gateway_problems(managed)["INTEGRATION_FAILURE"]
    assert (busy["StatusCode"], document["status"]) == ("429", 429)
    assert busy["ResponseParameters"]["gatewayresponse.header.Retry-After"] == "'1'"
    unreachable, _ = gateway_problems(self_hosted)["INTEGRATION_FAILURE"]
    assert unreachable["StatusCode"] == "502"


def test_every_log_group_is_encrypted_with_the_stacks_key_and_has_an_end(template: Template) -> None:
    key = template.id("AWS::KMS::Key")
    groups = template.all("AWS::Logs::LogGroup")
    assert len(groups) >= 4
    for group in groups.values():
        assert group["KmsKeyId"] == {"Fn::GetAtt": [key, "Arn"]}
        assert group["RetentionInDays"] == 90
    assert template.one("AWS::KMS::Key")["EnableKeyRotation"] is True


def test_the_key_serves_log_groups_of_this_account_and_no_others(template: Template) -> None:
    statements = template.one("AWS::KMS::Key")["KeyPolicy"]["Statement"]
    [logs] = [s for s in statements if "Service" in s["Principal"]]
    assert "kms:EncryptionContext:aws:logs:arn" in logs["Condition"]["ArnLike"]


def test_no_managed_policy_is_attached_to_anything(template: Template) -> None:
    assert not any("ManagedPolicyArns" in role for role in template.all("AWS::IAM::Role").values())
    assert "AWS::IAM::ManagedPolicy" not in template.text()


# What IAM has no resource for, and so must be allowed on "*": each is reasoned about next to its role.
NAMES_NO_RESOURCE = {"ecr:GetAuthorizationToken", "xray:", "ec2:", "cloudwatch:PutMetricData"}


def test_a_wildcard_stands_only_where_iam_knows_no_resource(template: Template) -> None:
    for role, statement in template.statements():
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        assert not any(action.endswith("*") for action in actions), (role, statement)
        if statement["Resource"] == "*":
            assert all(any(action.startswith(known) for known in NAMES_NO_RESOURCE) for action in actions), (
                role
            )


def test_the_model_can_be_read_by_its_digest_and_nothing_beside_it(template: Template) -> None:
    readers = [(role, s) for role, s in template.statements() if "s3:GetObject" in s["Action"]]
    assert len(readers) == 1
    arn = json.dumps(readers[0][1]["Resource"])
    assert f"{'a' * 64}.tar.gz" in arn
    assert "*" not in arn


def test_the_model_is_packaged_when_assets_are_published_never_in_synth(assembly: Path) -> None:
    for stack in ("churn-self-hosted", "churn-managed"):
        assets = json.loads((assembly / f"{stack}.assets.json").read_text())
        [model] = [asset for asset in assets["files"].values() if "executable" in asset["source"]]
        assert model["source"]["executable"] == [*make("managed").package_command]
        [destination] = model["destinations"].values()
        assert destination["objectKey"] == "a" * 64 + ".tar.gz"


def test_the_network_has_two_zones_and_no_way_out(template: Template) -> None:
    subnets = template.all("AWS::EC2::Subnet").values()
    assert len({json.dumps(subnet["AvailabilityZone"]) for subnet in subnets}) == 2
    assert not any(subnet.get("MapPublicIpOnLaunch") for subnet in subnets)
    for kind in ("InternetGateway", "NatGateway", "Route", "EIP", "VPCGatewayAttachment"):
        assert not template.all(f"AWS::EC2::{kind}"), kind
    assert template.one("AWS::EC2::FlowLog")["TrafficType"] == "ALL"


def test_every_vpc_endpoint_has_a_policy_that_names_what_may_be_asked(template: Template) -> None:
    for endpoint in template.all("AWS::EC2::VPCEndpoint").values():
        for statement in endpoint["PolicyDocument"]["Statement"]:
            assert statement["Action"] != "*"
            assert statement["Resource"] != "*" or statement["Action"] == "ecr:GetAuthorizationToken"


def test_every_hop_is_open_at_both_ends(template: Template) -> None:
    groups = template.all("AWS::EC2::SecurityGroup")
    out = {
        (name, rule["DestinationSecurityGroupId"]["Fn::GetAtt"][0], rule["FromPort"])
        for name, group in groups.items()
        for rule in group["SecurityGroupEgress"]
        if "DestinationSecurityGroupId" in rule
    }
    into = {
        (rule["SourceSecurityGroupId"]["Fn::GetAtt"][0], rule["GroupId"]["Fn::GetAtt"][0], rule["FromPort"])
        for rule in template.all("AWS::EC2::SecurityGroupIngress").values()
    }
    assert out == into
    assert out


def test_no_security_group_lets_an_address_in_or_opens_more_than_s3(template: Template) -> None:
    for group in template.all("AWS::EC2::SecurityGroup").values():
        assert "SecurityGroupIngress" not in group
        assert group["SecurityGroupEgress"], "an empty list would mean: anywhere"
        for rule in group["SecurityGroupEgress"]:
            if rule.get("CidrIp") == "0.0.0.0/0":
                assert (rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) == (443, 443, "tcp")


def test_every_taggable_resource_bears_the_deployments_tags(tmp_path: Path) -> None:
    template = synth(tmp_path, "self-hosted", tags={"team": "risk"})
    for kind in (
        "AWS::EC2::VPC",
        "AWS::ECS::Service",
        "AWS::KMS::Key",
        "AWS::IAM::Role",
        "AWS::ApiGateway::Stage",
    ):
        for name, properties in template.all(kind).items():
            tags = {tag["Key"]: tag["Value"] for tag in properties["Tags"]}
            assert tags.items() >= {"team": "risk", "modelstacks:deployment": "churn"}.items(), name


def test_the_outputs_have_stable_names(self_hosted: Template, managed: Template) -> None:
    common = {"ApiUrl", "ApiId", "ApiKeyId", "LogGroupName"}
    assert set(self_hosted.document["Outputs"]) == common | {"ClusterName", "ServiceName"}
    assert set(managed.document["Outputs"]) == common | {
        "EndpointName",
        "FunctionName",
        "FunctionLogGroupName",
    }


@pytest.mark.parametrize("architecture", ["self-hosted", "managed"])
def test_a_spec_that_names_account_and_region_needs_no_lookup(tmp_path: Path, architecture: str) -> None:
    from modelstacks.core.spec import Aws

    where = Aws(account="111122223333", region="eu-west-1", zones=("euw1-az1", "euw1-az2", "euw1-az3"))
    template = synth(tmp_path, architecture, aws=where)  # asserts that no context is missing
    zones = [subnet["AvailabilityZoneId"] for subnet in template.all("AWS::EC2::Subnet").values()]
    assert zones == ["euw1-az1", "euw1-az2", "euw1-az3"]


def test_the_model_may_lie_on_other_processors(tmp_path: Path) -> None:
    block = {"self-hosted": EcsFargate(processor="arm64")}
    template = synth(tmp_path, "self-hosted", **block)
    assert template.one("AWS::ECS::TaskDefinition")["RuntimePlatform"]["CpuArchitecture"] == "ARM64"
    assets = json.loads((tmp_path / "churn-self-hosted.assets.json").read_text())
    [image] = assets["dockerImages"].values()
    assert image["source"]["platform"] == "linux/arm64"
    assert image["source"]["dockerBuildArgs"] == {"ENGINE": "xgboost"}
