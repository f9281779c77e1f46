"""The self-hosted architecture: tasks, load balancer, VPC link, and the path from one to the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.cdk import PROJECT, Template, synth
from support.plans import make

from modelstacks.core.contract import PREDICTIVE_ROUTES, SERVER_PORT, STAGE
from modelstacks.core.model import Archive
from modelstacks.core.spec import Aws, Network


def test_at_least_two_tasks_run_and_a_failed_deployment_rolls_back(self_hosted: Template) -> None:
    service = self_hosted.one("AWS::ECS::Service")
    assert self_hosted.one("AWS::ApplicationAutoScaling::ScalableTarget")["MinCapacity"] == 2
    assert "DesiredCount" not in service  # an update that names it would undo what autoscaling has done
    assert service["DeploymentConfiguration"]["DeploymentCircuitBreaker"] == {
        "Enable": True,
        "Rollback": True,
    }
    assert service["DeploymentConfiguration"]["MinimumHealthyPercent"] == 100
    assert service["AvailabilityZoneRebalancing"] == "ENABLED"
    assert service["NetworkConfiguration"]["AwsvpcConfiguration"]["AssignPublicIp"] == "DISABLED"


def test_the_container_is_not_root_and_writes_to_its_volumes_only(self_hosted: Template) -> None:
    [container] = self_hosted.one("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    assert container["ReadonlyRootFilesystem"] is True
    assert container["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}
    assert {mount["ContainerPath"] for mount in container["MountPoints"]} == {"/opt/ml/model", "/tmp"}
    assert container["User"] == "1000:1000"


def test_user_port_and_volumes_are_those_of_the_image(self_hosted: Template) -> None:
    dockerfile = (PROJECT / "serving" / "Dockerfile").read_text()
    [container] = self_hosted.one("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    user, _, group = container["User"].partition(":")
    assert f"useradd --uid {user} " in dockerfile
    assert f"chown {user}:{group} /opt/ml/model" in dockerfile
    assert f"\nEXPOSE {container['PortMappings'][0]['ContainerPort']}\n" in dockerfile
    volumes = re.search(r"^VOLUME \[(.*)\]$", dockerfile, re.MULTILINE)
    assert volumes is not None
    # A volume that the image does not declare would belong to root, and the server could not write to it.
    assert set(re.findall(r'"(.*?)"', volumes[1])) == {
        mount["ContainerPath"] for mount in container["MountPoints"]
    }


def test_the_container_is_told_where_its_model_lies_and_what_it_must_hash_to(self_hosted: Template) -> None:
    [container] = self_hosted.one("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    environment = {pair["Name"]: pair["Value"] for pair in container["Environment"]}
    assert environment["MODEL_SERVER_MODEL_SHA256"] == "a" * 64
    assert environment["MODEL_SERVER_MODEL_URI"]["Fn::Join"][1][-1].endswith(f"/{'a' * 64}.tar.gz")
    assert environment["MODEL_SERVER_ENGINE"] == "xgboost"


def test_the_servers_settings_are_settings_that_the_server_knows(self_hosted: Template) -> None:
    from model_server.settings import settings_from_environment

    [container] = self_hosted.one("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    environment = {pair["Name"]: str(pair["Value"]) for pair in container["Environment"]}
    environment["MODEL_SERVER_MODEL_URI"] = "s3://bucket/key.tar.gz"  # a token until it is deployed
    settings = settings_from_environment(environment)
    assert settings.model_name == "churn"
    assert settings.port == container["PortMappings"][0]["ContainerPort"]


def test_only_the_model_can_be_fetched_by_the_task(self_hosted: Template) -> None:
    task = self_hosted.one("AWS::ECS::TaskDefinition")["TaskRoleArn"]["Fn::GetAtt"][0]
    statements = [statement for role, statement in self_hosted.statements() if role == task]
    assert [statement["Action"] for statement in statements] == ["s3:GetObject"]


def test_the_service_waits_for_everything_that_its_tasks_need(self_hosted: Template) -> None:
    service = self_hosted.id("AWS::ECS::Service")
    for kind in (
        "AWS::EC2::VPCEndpoint",
        "AWS::EC2::SubnetRouteTableAssociation",
        "AWS::EC2::SecurityGroupIngress",
        "AWS::ElasticLoadBalancingV2::ListenerRule",
        "AWS::IAM::Policy",
    ):
        assert self_hosted.all(kind), kind
        assert [name for name in self_hosted.all(kind) if not self_hosted.depends(service, name)] == []


def test_another_archive_leaves_the_old_ones_grant_and_the_way_to_it(
    self_hosted: Template, tmp_path: Path
) -> None:
    """Old and new tasks start side by side: each archive has its own policy, the endpoint's fits both."""
    plan = make("self-hosted")
    newer = plan.model_copy(
        update={"model": plan.model.model_copy(update={"archive": Archive(sha256="b" * 64, size=1)})}
    )
    new = synth([newer], tmp_path)[newer.stack_name]
    assert new.id("AWS::IAM::Policy") != self_hosted.id("AWS::IAM::Policy")
    assert new.one("AWS::IAM::Policy")["Roles"] == self_hosted.one("AWS::IAM::Policy")["Roles"]

    def gateway(template: Template) -> object:
        endpoints = template.all("AWS::EC2::VPCEndpoint").values()
        return [each["PolicyDocument"] for each in endpoints if each["VpcEndpointType"] == "Gateway"]

    assert gateway(new) == gateway(self_hosted)


@pytest.mark.parametrize(
    "changed",
    [
        {"aws": Aws(account="111122223333", region="us-east-1", zones=("use1-az1", "use1-az2"))},
        {"network": Network(cidr="10.42.0.0/16")},
    ],
    ids=["zones", "network"],
)
def test_a_replaced_vpc_link_makes_a_new_deployment(
    self_hosted: Template, tmp_path: Path, changed: dict[str, Any]
) -> None:
    """The link's logical id stays while its subnets are replaced: an old snapshot refers to the old link."""
    plan = make("self-hosted", **changed)
    new = synth([plan], tmp_path)[plan.stack_name]
    deployment = "AWS::ApiGateway::Deployment"
    assert new.id(deployment) != self_hosted.id(deployment)


def test_exchanging_a_zone_leaves_the_other_subnet_and_the_load_balancer(tmp_path: Path) -> None:
    old, new = (
        synth(
            [
                make(
                    "self-hosted",
                    aws=Aws(account="111122223333", region="us-east-1", zones=("use1-az1", zone)),
                )
            ],
            tmp_path / zone,
        )["churn-self-hosted"]
        for zone in ("use1-az2", "use1-az4")
    )
    subnets = [template.all("AWS::EC2::Subnet") for template in (old, new)]
    kept = subnets[0].keys() & subnets[1].keys()
    assert [subnets[0][name]["AvailabilityZoneId"] for name in kept] == ["use1-az1"]
    ranges = [subnet["CidrBlock"] for each in subnets for subnet in each.values()]
    assert len(set(ranges)) == 3, "the new subnet does not overlap with the one that it replaces"
    balancer = "AWS::ElasticLoadBalancingV2::LoadBalancer"
    assert old.id(balancer) == new.id(balancer)


def test_another_network_gets_a_load_balancer_and_a_service_of_its_own(
    self_hosted: Template, tmp_path: Path
) -> None:
    """A load balancer cannot move into another VPC, so that an update in place would fail."""
    plan = make("self-hosted", network=Network(cidr="10.42.0.0/22"))
    new = synth([plan], tmp_path)[plan.stack_name]
    assert new.one("AWS::EC2::VPC")["CidrBlock"] == "10.42.0.0/22"
    assert [each["CidrBlock"] for each in new.all("AWS::EC2::Subnet").values()] == [
        "10.42.0.0/25",
        "10.42.0.128/25",
    ]
    for kind in ("AWS::ElasticLoadBalancingV2::LoadBalancer", "AWS::ECS::Service"):
        assert new.id(kind) != self_hosted.id(kind)


def test_tasks_reach_what_they_call_and_nothing_else(self_hosted: Template) -> None:
    services = {
        endpoint["ServiceName"]["Fn::Join"][1][-1]
        for endpoint in self_hosted.all("AWS::EC2::VPCEndpoint").values()
    }
    assert services == {".s3", ".ecr.api", ".ecr.dkr", ".logs"}


def test_health_is_readiness_and_leaving_tasks_drain(self_hosted: Template) -> None:
    group = self_hosted.one("AWS::ElasticLoadBalancingV2::TargetGroup")
    assert group["HealthCheckPath"] == "/ping"
    assert (group["Port"], group["TargetType"], group["Matcher"]) == (SERVER_PORT, "ip", {"HttpCode": "200"})
    attributes = {each["Key"]: each["Value"] for each in group["TargetGroupAttributes"]}
    [container] = self_hosted.one("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    drain = int(attributes["deregistration_delay.timeout_seconds"])
    assert drain >= 29, "as long as API Gateway may wait for an answer"
    assert container["StopTimeout"] > 25, "as long as the server drains"


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ("/live/invocations", "/invocations"),
        ("/invocations", "/invocations"),
        ("/live/v2/models/live/infer", "/v2/models/live/infer"),
        ("/v2/models/live/infer", "/v2/models/live/infer"),
        ("/v2/models/a?next=/live/b", "/v2/models/a?next=/live/b"),
        ("/livex", "/livex"),
        ("/live", "/live"),
        ("/", "/"),
    ],
)
def test_tasks_receive_the_contracts_path_whether_or_not_the_stage_is_sent(
    self_hosted: Template, sent: str, received: str
) -> None:
    rule = self_hosted.one("AWS::ElasticLoadBalancingV2::ListenerRule")
    assert rule["Conditions"] == [{"Field": "path-pattern", "PathPatternConfig": {"Values": ["/*"]}}]
    [rewrite] = rule["Transforms"][0]["UrlRewriteConfig"]["Rewrites"]
    # As the load balancer: without a match, the original request is forwarded.
    assert re.sub(rewrite["Regex"], rewrite["Replace"].replace("$1", r"\1"), sent) == received


def test_no_route_of_the_contract_begins_with_the_stages_name() -> None:
    """A path with the stage in front can then not be mistaken for one without."""
    assert not [route.path for route in PREDICTIVE_ROUTES if route.path.split("/")[1] == STAGE]


def test_the_listener_answers_404_without_its_rule(self_hosted: Template) -> None:
    [action] = self_hosted.one("AWS::ElasticLoadBalancingV2::Listener")["DefaultActions"]
    assert action["FixedResponseConfig"]["StatusCode"] == "404"


def test_the_load_balancer_is_internal_and_logs(self_hosted: Template) -> None:
    balancer = self_hosted.one("AWS::ElasticLoadBalancingV2::LoadBalancer")
    assert balancer["Scheme"] == "internal"
    attributes = {each["Key"]: each["Value"] for each in balancer["LoadBalancerAttributes"]}
    assert attributes["routing.http.drop_invalid_header_fields.enabled"] == "true"
    # "strictest" answers 400 to requests that API Gateway sends through a VPC link.
    assert attributes["routing.http.desync_mitigation_mode"] == "defensive"
    assert attributes["access_logs.s3.enabled"] == "true"
    bucket = self_hosted.one("AWS::S3::Bucket")
    assert all(bucket["PublicAccessBlockConfiguration"].values())


def test_timeouts_are_in_order(self_hosted: Template) -> None:
    from model_server.settings import Settings

    balancer = self_hosted.one("AWS::ElasticLoadBalancingV2::LoadBalancer")
    attributes = {each["Key"]: each["Value"] for each in balancer["LoadBalancerAttributes"]}
    idle = int(attributes["idle_timeout.timeout_seconds"])
    for method in self_hosted.all("AWS::ApiGateway::Method").values():
        assert method["Integration"]["TimeoutInMillis"] / 1000 < idle
    assert idle < Settings(model_name="m").keep_alive_seconds


def test_every_method_goes_through_the_vpc_link_to_the_load_balancer(self_hosted: Template) -> None:
    link = self_hosted.id("AWS::ApiGatewayV2::VpcLink")
    balancer = self_hosted.id("AWS::ElasticLoadBalancingV2::LoadBalancer")
    listener = self_hosted.id("AWS::ElasticLoadBalancingV2::Listener")
    assert self_hosted.one("AWS::ElasticLoadBalancingV2::Listener")["Port"] == 80
    for name, method in self_hosted.all("AWS::ApiGateway::Method").items():
        integration = method["Integration"]
        assert self_hosted.depends(name, listener)
        assert self_hosted.depends(name, self_hosted.id("AWS::ECS::Service")), "the API moves to ready tasks"
        assert (integration["Type"], integration["ConnectionType"]) == ("HTTP_PROXY", "VPC_LINK")
        assert integration["ConnectionId"] == {"Ref": link}
        # API Gateway refuses a listener's ARN. The port of the URI, 80 by default, selects the listener.
        assert integration["IntegrationTarget"] == {"Ref": balancer}
        start, host, path = integration["Uri"]["Fn::Join"][1]
        assert (start, host) == ("http://", {"Fn::GetAtt": [balancer, "DNSName"]})
        for name in re.findall(r"{(\w+)}", path):
            mapped = integration["RequestParameters"][f"integration.request.path.{name}"]
            assert mapped == f"method.request.path.{name}"


def test_the_service_scales_on_concurrency_and_on_cpu(self_hosted: Template) -> None:
    target = self_hosted.one("AWS::ApplicationAutoScaling::ScalableTarget")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 8)
    tracked = [
        policy["TargetTrackingScalingPolicyConfiguration"]
        for policy in self_hosted.all("AWS::ApplicationAutoScaling::ScalingPolicy").values()
    ]
    [cpu] = [each for each in tracked if "PredefinedMetricSpecification" in each]
    [concurrency] = [each for each in tracked if "CustomizedMetricSpecification" in each]
    assert (cpu["TargetValue"], concurrency["TargetValue"]) == (60, 8)
    metrics = {m["Id"]: m for m in concurrency["CustomizedMetricSpecification"]["Metrics"]}
    returned = [m["Id"] for m in metrics.values() if m.get("ReturnData") is not False]
    assert returned == ["concurrency"]
    # Little's law, by hand: 1200 requests in a 60 s period, 0.4 s each, on 2 tasks are 4 in flight per task.
    expression = metrics["concurrency"]["Expression"].replace("FILL(requests, 0)", "1200")
    expression = (
        expression.replace("PERIOD(requests)", "60").replace("FILL(seconds, 0)", "0.4").replace("tasks", "2")
    )
    assert abs(eval(expression) - 4) < 1e-9


def test_the_serving_folder_stands_where_the_image_is_built_from() -> None:
    from modelstacks.cdk.constructs.serving_image import SERVING

    assert Path(SERVING) == PROJECT / "serving"
