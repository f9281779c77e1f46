"""The managed architecture: endpoint, function, and the one way between them."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from typing import Any

import pytest
from lambda_.loading import load_handler
from support.cdk import CONTEXT, Template, synth, use_own_node
from support.plans import make

from modelstacks.core.spec import Api, Scaling
from modelstacks.targets.sagemaker_endpoint import SagemakerEndpoint


def invoker(template: Template) -> dict[str, Any]:
    """The function between API and endpoint."""
    [function] = [one for one in template.all("AWS::Lambda::Function").values() if "VpcConfig" in one]
    return function


def test_the_model_is_private_and_cut_off(managed: Template) -> None:
    model = managed.one("AWS::SageMaker::Model")
    assert model["EnableNetworkIsolation"] is True
    assert len(model["VpcConfig"]["Subnets"]) == 2
    source = model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]
    assert source["S3DataType"] == "S3Object"
    assert source["CompressionType"] == "Gzip"
    assert source["S3Uri"]["Fn::Join"][1][-1].endswith(f"/{'a' * 64}.tar.gz")


def test_both_architectures_run_the_same_image_with_the_same_settings(
    managed: Template, self_hosted: Template
) -> None:
    model = managed.one("AWS::SageMaker::Model")["PrimaryContainer"]
    [container] = self_hosted.one("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    fetches = {"MODEL_SERVER_MODEL_URI", "MODEL_SERVER_MODEL_SHA256"}  # SageMaker puts the model there itself
    settings = {e["Name"]: e["Value"] for e in container["Environment"] if e["Name"] not in fetches}
    assert model["Image"] == container["Image"]
    deadline = "MODEL_SERVER_DEADLINE_SECONDS"  # the function gives up before the API does
    assert int(settings[deadline]) == int(model["Environment"][deadline]) + 2
    differs = {deadline: model["Environment"][deadline], "MODEL_SERVER_TUNNEL": "true"}
    assert "MODEL_SERVER_TUNNEL" not in settings  # nobody but SageMaker may name a route by a header
    assert model["Environment"] == settings | differs


def test_a_change_replaces_the_endpoint_configuration_and_moves_the_endpoint_over(managed: Template) -> None:
    assert "EndpointConfigName" not in managed.one("AWS::SageMaker::EndpointConfig")
    assert "ModelName" not in managed.one("AWS::SageMaker::Model")
    configuration = managed.id("AWS::SageMaker::EndpointConfig")
    endpoint = managed.one("AWS::SageMaker::Endpoint")
    assert endpoint["EndpointConfigName"] == {"Fn::GetAtt": [configuration, "EndpointConfigName"]}
    assert endpoint["RetainAllVariantProperties"] is True


def test_at_least_two_instances_stand_ready(managed: Template) -> None:
    [variant] = managed.one("AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert variant["InitialInstanceCount"] == 2
    assert variant["RoutingConfig"] == {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}


def test_the_endpoint_scales_on_the_high_resolution_concurrency_metric(managed: Template) -> None:
    [variant] = managed.one("AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    target = managed.one("AWS::ApplicationAutoScaling::ScalableTarget")
    assert target["ResourceId"]["Fn::Join"][1][-1] == f"/variant/{variant['VariantName']}"
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 8)
    tracking = managed.one("AWS::ApplicationAutoScaling::ScalingPolicy")[
        "TargetTrackingScalingPolicyConfiguration"
    ]
    metric = tracking["PredefinedMetricSpecification"]["PredefinedMetricType"]
    assert metric == "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    assert tracking["TargetValue"] == 8


def test_the_endpoints_log_group_is_there_before_the_endpoint(managed: Template) -> None:
    endpoint = managed.document["Resources"][managed.id("AWS::SageMaker::Endpoint")]
    [name] = [
        each
        for each, group in managed.all("AWS::Logs::LogGroup").items()
        if group.get("LogGroupName") == f"/aws/sagemaker/Endpoints/{endpoint['Properties']['EndpointName']}"
    ]
    assert name in endpoint["DependsOn"]


def test_another_instance_type_is_another_endpoint_that_the_function_may_invoke_beside_the_old_one(
    managed: Template, tmp_path: Path
) -> None:
    """SageMaker refuses to change, or to remove, a variant while it is a scaling target."""
    plan = make("managed", managed=SagemakerEndpoint(instance_type="ml.c5.large"))
    new = synth([plan], tmp_path)[plan.stack_name]
    names = [template.one("AWS::SageMaker::Endpoint")["EndpointName"] for template in (managed, new)]
    assert names[0] != names[1]
    assert new.id("AWS::SageMaker::Endpoint") == managed.id("AWS::SageMaker::Endpoint")
    for template in (managed, new):
        [statement] = [s for _, s in template.statements() if s["Action"] == "sagemaker:InvokeEndpoint"]
        pattern = str(statement["Resource"]["Fn::Join"][1][-1]).rpartition("/")[2]
        assert all(fnmatch.fnmatchcase(name, pattern) for name in names)
        other = "churn-managed-x-managed-" + names[0].rpartition("-")[2]
        assert not fnmatch.fnmatchcase(other, pattern), "another deployment's endpoint"
        target = template.one("AWS::ApplicationAutoScaling::ScalableTarget")
        endpoint = template.id("AWS::SageMaker::Endpoint")
        assert {"Fn::GetAtt": [endpoint, "EndpointName"]} in target["ResourceId"]["Fn::Join"][1]


def test_everything_else_leaves_the_endpoint_its_name(managed: Template, tmp_path: Path) -> None:
    plan = make("managed", managed=SagemakerEndpoint(startup_seconds=900), scaling=Scaling(max_replicas=3))
    new = synth([plan], tmp_path)[plan.stack_name]
    assert (
        new.one("AWS::SageMaker::Endpoint")["EndpointName"]
        == managed.one("AWS::SageMaker::Endpoint")["EndpointName"]
    )


def test_the_endpoint_waits_for_the_way_to_its_model(managed: Template) -> None:
    endpoint, model = managed.id("AWS::SageMaker::Endpoint"), managed.id("AWS::SageMaker::Model")
    assert managed.depends(endpoint, managed.id("AWS::EC2::VPCEndpoint", "NetworkS3"))
    for name in managed.all("AWS::EC2::SubnetRouteTableAssociation"):
        assert managed.depends(endpoint, name)
    assert managed.depends(model, managed.id("AWS::IAM::Policy"))


def test_the_images_manifest_is_checked_before_the_model_is_made(managed: Template) -> None:
    check = managed.one("Custom::ImageManifest")
    assert managed.depends(managed.id("AWS::SageMaker::Model"), managed.id("Custom::ImageManifest"))
    image = managed.one("AWS::SageMaker::Model")["PrimaryContainer"]["Image"]
    uri = json.dumps(image)
    assert check["ImageTag"] in uri
    function = check["ServiceToken"]["Fn::GetAtt"][0]
    role = managed.all("AWS::Lambda::Function")[function]["Role"]["Fn::GetAtt"][0]
    allowed = {str(s["Action"]): s["Resource"] for name, s in managed.statements() if name == role}
    assert set(allowed) == {"ecr:BatchGetImage", "['logs:CreateLogStream', 'logs:PutLogEvents']"}
    repository = check["RepositoryName"]
    assert allowed["ecr:BatchGetImage"]["Fn::Join"][1][-2:] == [":repository/", repository]


def test_images_are_asked_for_with_dockers_manifest(managed: Template, assembly: Path) -> None:
    """SageMaker refuses OCI manifests; with `type=docker` the CDK CLI finds the image and pushes it."""
    for stack in ("churn-managed", "churn-self-hosted"):
        assets = json.loads((assembly / f"{stack}.assets.json").read_text())
        [image] = assets["dockerImages"].values()
        assert image["source"]["dockerOutputs"] == ["type=docker,oci-mediatypes=false"]


def test_the_function_waits_for_the_way_to_the_runtime(managed: Template) -> None:
    [function] = [name for name, one in managed.all("AWS::Lambda::Function").items() if "VpcConfig" in one]
    for kind in ("AWS::EC2::VPCEndpoint", "AWS::EC2::SecurityGroupIngress"):
        assert all(managed.depends(function, name) for name in managed.all(kind))


def network_interface_statements(template: Template, role: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, statement in template.statements():
        if name == role and statement["Effect"] == "Allow":
            actions = statement["Action"]
            for action in [actions] if isinstance(actions, str) else actions:
                if action.startswith("ec2:"):
                    resources = statement["Resource"]
                    found[action] = resources if isinstance(resources, list) else [resources]
    return found


def test_network_interfaces_are_made_in_the_stacks_subnets_and_group_only(managed: Template) -> None:
    model_role = managed.one("AWS::SageMaker::Model")["ExecutionRoleArn"]["Fn::GetAtt"][0]
    function_role = invoker(managed)["Role"]["Fn::GetAtt"][0]
    for role in (model_role, function_role):
        allowed = network_interface_statements(managed, role)
        made = [arn["Fn::Join"][1][-2:] for arn in allowed["ec2:CreateNetworkInterface"]]
        places = [part for _, part in made if isinstance(part, dict)]
        assert sorted(place["Fn::GetAtt"][0] for place in places) == sorted(
            [
                *managed.all("AWS::EC2::Subnet"),
                next(p["Fn::GetAtt"][0] for p in places if "GroupId" in str(p)),
            ]
        )
        everywhere = [action for action, resources in allowed.items() if resources == ["*"]]
        assert everywhere
        assert all(action.startswith("ec2:Describe") for action in everywhere)


def test_the_functions_own_code_cannot_use_what_lambda_needs(managed: Template) -> None:
    role = invoker(managed)["Role"]["Fn::GetAtt"][0]
    [denied] = [s for name, s in managed.statements() if name == role and s["Effect"] == "Deny"]
    assert set(denied["Action"]) == set(network_interface_statements(managed, role))
    assert list(denied["Condition"]["ArnLike"]) == ["lambda:SourceFunctionArn"]


def arn_ends_with(arn: Any, end: str) -> bool:
    return str(arn["Fn::Join"][1][-1]).endswith(end)


def test_the_function_may_invoke_this_endpoint_and_no_other(managed: Template) -> None:
    invokes = [s for _, s in managed.statements() if "sagemaker:" in json.dumps(s["Action"])]
    [statement] = invokes
    assert statement["Action"] == "sagemaker:InvokeEndpoint"
    assert arn_ends_with(statement["Resource"], ":endpoint/churn-managed-????????")


def test_the_vpc_endpoint_carries_calls_of_this_endpoint_only(managed: Template) -> None:
    [interface] = [
        e for e in managed.all("AWS::EC2::VPCEndpoint").values() if e["VpcEndpointType"] == "Interface"
    ]
    assert interface["ServiceName"]["Fn::Join"][1][-1] == ".sagemaker.runtime"
    [statement] = interface["PolicyDocument"]["Statement"]
    assert statement["Action"] == "sagemaker:InvokeEndpoint"
    assert arn_ends_with(statement["Resource"], ":endpoint/churn-managed-????????")
    assert "aws:PrincipalAccount" in statement["Condition"]["StringEquals"]


def test_the_function_is_small_private_and_bounded(managed: Template) -> None:
    function = invoker(managed)
    assert function["Architectures"] == ["arm64"]
    assert len(function["VpcConfig"]["SubnetIds"]) == 2
    assert function["TracingConfig"] == {"Mode": "Active"}
    assert function["LoggingConfig"]["LogFormat"] == "JSON"
    assert "Ref" in function["LoggingConfig"]["LogGroup"]


def test_the_function_reserves_no_concurrency_unless_the_spec_says_so(
    managed: Template, tmp_path: Path
) -> None:
    use_own_node()
    from modelstacks.cdk.synth import synthesize

    plan = make("managed", managed=SagemakerEndpoint(reserved_concurrency=20))
    synthesize([plan], outdir=str(tmp_path), context=CONTEXT)
    reserving = invoker(Template.read(tmp_path, plan.stack_name))

    assert "ReservedConcurrentExecutions" not in invoker(managed)
    assert reserving["ReservedConcurrentExecutions"] == 20


def test_the_handler_starts_with_the_environment_that_the_stack_sets(managed: Template) -> None:
    variables = invoker(managed)["Environment"]["Variables"]
    endpoint = managed.id("AWS::SageMaker::Endpoint")
    assert variables.pop("ENDPOINT_NAME") == {"Fn::GetAtt": [endpoint, "EndpointName"]}
    handler = load_handler({"ENDPOINT_NAME": "churn-managed", **variables})
    read = handler.Environment.read({"ENDPOINT_NAME": "churn-managed", **variables})
    assert set(variables) | {"ENDPOINT_NAME"} == {name.upper() for name in vars(read)}
    assert callable(getattr(handler, invoker(managed)["Handler"].split(".")[1]))


@pytest.mark.parametrize("seconds", [1, 2, 3, 5, 15, 29])
def test_timeouts_are_in_order(tmp_path: Path, seconds: int) -> None:
    from modelstacks.cdk.constructs.endpoint_function import Timeouts

    timeouts = Timeouts(seconds)
    assert 1 <= timeouts.client_seconds < timeouts.function_seconds
    if seconds >= 3:
        assert timeouts.function_seconds < timeouts.api_seconds


def test_the_template_carries_the_timeouts(managed: Template) -> None:
    function = invoker(managed)
    read = int(function["Environment"]["Variables"]["READ_TIMEOUT_SECONDS"])
    [wait] = {m["Integration"]["TimeoutInMillis"] for m in managed.all("AWS::ApiGateway::Method").values()}
    assert read < function["Timeout"] < wait / 1000 == 29
    server = managed.one("AWS::SageMaker::Model")["PrimaryContainer"]["Environment"]
    assert int(server["MODEL_SERVER_DEADLINE_SECONDS"]) == read


def test_the_api_and_only_its_stage_may_call_the_function(managed: Template) -> None:
    permission = managed.one("AWS::Lambda::Permission")
    assert permission["Principal"] == "apigateway.amazonaws.com"
    parts = permission["SourceArn"]["Fn::Join"][1]
    assert {"Ref": managed.id("AWS::ApiGateway::RestApi")} in parts
    assert parts[-1] == "/live/*/*"


@pytest.mark.parametrize(
    ("instance", "encrypted", "platform"),
    [
        ("ml.m5.large", True, "linux/amd64"),
        ("ml.c7g.xlarge", True, "linux/arm64"),
        ("ml.m5d.large", False, "linux/amd64"),
        ("ml.g5.xlarge", False, "linux/amd64"),
        ("ml.g4dn.xlarge", False, "linux/amd64"),
        ("ml.c6gd.large", False, "linux/arm64"),
        ("ml.p3.2xlarge", True, "linux/amd64"),
    ],
)
def test_a_key_is_named_where_the_volume_is_not_nvme(
    tmp_path: Path, instance: str, encrypted: bool, platform: str
) -> None:
    use_own_node()
    from modelstacks.cdk.synth import synthesize

    plan = make("managed", managed=SagemakerEndpoint(instance_type=instance), api=Api(timeout_seconds=20))
    synthesize([plan], outdir=str(tmp_path), context=CONTEXT)
    template = Template.read(tmp_path, plan.stack_name)
    assert ("KmsKeyId" in template.one("AWS::SageMaker::EndpointConfig")) is encrypted
    assets = json.loads((tmp_path / "churn-managed.assets.json").read_text())
    [image] = assets["dockerImages"].values()
    assert image["source"]["platform"] == platform
