"""The embedded cloud refuses for the reasons AWS would, and names the rule."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from botocore.exceptions import ClientError
from e2e.conftest import Cloud, Template, deploy, failed_update, template_of
from e2e.holdout import holdout

from modelstacks.cloud.api import KillReplica, PoisonDeploys

pytestmark = pytest.mark.e2e

ARCHITECTURE_OF_KIND = {"ecs-service": "self-hosted", "sagemaker-endpoint": "managed"}


def test_an_unknown_endpoint_is_refused_in_sagemakers_words(cloud: Cloud) -> None:
    runtime = cloud.boto3("sagemaker-runtime")
    with pytest.raises(ClientError) as refusal:
        runtime.invoke_endpoint(EndpointName="nobody", Body=b"{}", ContentType="application/json")
    error = refusal.value.response["Error"]
    assert error["Code"] == "ValidationError"
    assert error["Message"] == f"Endpoint nobody of account {cloud.status().account} not found."


def test_boto3_invokes_the_endpoint_directly(cloud: Cloud) -> None:
    held_out = holdout("churn")
    endpoint = cloud.workload("churn-managed", "sagemaker-endpoint").name
    answer = cloud.boto3("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, Body=json.dumps(held_out.body), ContentType="application/json"
    )
    direct = json.loads(answer["Body"].read())
    assert direct == json.loads(cloud.predict("churn", "managed", held_out.body).body)


def resources(template: Template, kind: str) -> dict[str, Template]:
    """The resources of one CloudFormation type, by logical id."""
    return {key: one for key, one in template["Resources"].items() if one["Type"] == kind}


def remove(template: Template, key: str) -> None:
    """Delete a resource that nothing refers to, and whatever waits for it by name."""
    del template["Resources"][key]
    for resource in template["Resources"].values():
        if key in resource.get("DependsOn", []):
            resource["DependsOn"].remove(key)


def without_the_rule_from_load_balancer_to_tasks(template: Template) -> None:
    (rule,) = [
        key
        for key, one in resources(template, "AWS::EC2::SecurityGroupIngress").items()
        if one["Properties"]["Description"] == "load balancer to model servers"
    ]
    remove(template, rule)


def without_the_rule_from_link_to_load_balancer(template: Template) -> None:
    (rule,) = [
        key
        for key, one in resources(template, "AWS::EC2::SecurityGroupIngress").items()
        if one["Properties"]["Description"] == "VPC link to load balancer"
    ]
    remove(template, rule)


def with_a_port_that_nothing_listens_on(template: Template) -> None:
    (service,) = resources(template, "AWS::ECS::Service").values()
    (task,) = resources(template, "AWS::ECS::TaskDefinition").values()
    service["Properties"]["LoadBalancers"][0]["ContainerPort"] = 8081
    task["Properties"]["ContainerDefinitions"][0]["PortMappings"][0]["ContainerPort"] = 8081


def without_the_rewrite_of_the_path(template: Template) -> None:
    (rule,) = resources(template, "AWS::ElasticLoadBalancingV2::ListenerRule").values()
    del rule["Properties"]["Transforms"]


def without_the_interface_endpoint(template: Template) -> None:
    (key,) = [
        key
        for key, one in resources(template, "AWS::EC2::VPCEndpoint").items()
        if "sagemaker.runtime" in json.dumps(one["Properties"]["ServiceName"])
    ]
    remove(template, key)


def without_the_permission_to_invoke(template: Template) -> None:
    for role in resources(template, "AWS::IAM::Role").values():
        for policy in role["Properties"].get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                if statement["Action"] == "sagemaker:InvokeEndpoint":
                    statement["Action"] = "sagemaker:DescribeEndpoint"


def without_apis_permission_to_call_the_function(template: Template) -> None:
    for key in resources(template, "AWS::Lambda::Permission"):
        remove(template, key)


def answers_again(cloud: Cloud, stack: str) -> None:
    """Wait for tasks that were replaced meanwhile; fails after a minute."""
    deployment, _, architecture = stack.partition("-")
    body = holdout(deployment).body
    deadline = time.monotonic() + 60
    while (answer := cloud.predict(deployment, architecture, body)).status != 200:
        assert time.monotonic() < deadline, answer.text
        for _ in cloud.session.reconcile():
            pass


@contextmanager
def deployed_otherwise(cloud: Cloud, stack: str, change: Callable[[Template], None]) -> Iterator[None]:
    """A stack with a fault in its template while the block runs; then the right one, until it answers."""
    right = template_of(cloud, stack)
    wrong = copy.deepcopy(right)
    change(wrong)
    assert wrong != right
    try:
        deploy(cloud, stack, wrong)
        yield
    finally:
        deploy(cloud, stack, right)
        answers_again(cloud, stack)


@pytest.mark.parametrize(
    ("stack", "change", "status", "reason"),
    [
        (
            "wine-self-hosted",
            without_the_rule_from_link_to_load_balancer,
            (503, 504),
            "no ingress rule for tcp 80 from",
        ),
        (
            "wine-self-hosted",
            without_the_rule_from_load_balancer_to_tasks,
            (502, 503, 504),
            "no ingress rule for tcp 8080 from",
        ),
        ("diabetes-managed", without_the_interface_endpoint, (502, 503, 504), "sagemaker.runtime"),
        ("diabetes-managed", without_the_permission_to_invoke, (502,), "sagemaker:InvokeEndpoint"),
        (
            "diabetes-managed",
            without_apis_permission_to_call_the_function,
            (500,),
            "no resource policy of lambda",
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_is_missing_in_the_template_is_named(
    cloud: Cloud, stack: str, change: Callable[[Template], None], status: tuple[int, ...], reason: str
) -> None:
    deployment, _, architecture = stack.partition("-")
    body = holdout(deployment).body
    with deployed_otherwise(cloud, stack, change):
        answer = cloud.predict(deployment, architecture, body)
        assert answer.status in status
        assert reason in answer.headers["x-modelstacks-reason"]
        assert any(reason in refusal.reason for refusal in cloud.status().refusals[-5:])


def with_a_function_that_may_not_run(template: Template) -> None:
    for function in resources(template, "AWS::Lambda::Function").values():
        if "ENDPOINT_NAME" in json.dumps(function["Properties"].get("Environment", {})):
            function["Properties"]["ReservedConcurrentExecutions"] = 0


def test_a_throttled_function_is_overload(cloud: Cloud) -> None:
    with deployed_otherwise(cloud, "diabetes-managed", with_a_function_that_may_not_run):
        answer = cloud.predict("diabetes", "managed", holdout("diabetes").body)
    document = json.loads(answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status, document["status"], document["retry_after"]) == (429, 429, 1)
    assert answer.headers["retry-after"] == "1"
    assert "throttled" in answer.headers["x-modelstacks-reason"]


def test_a_path_that_keeps_the_stages_name_is_not_found(cloud: Cloud) -> None:
    body = holdout("wine").body
    sent = cloud.status().settings.stage_in_path
    with deployed_otherwise(cloud, "wine-self-hosted", without_the_rewrite_of_the_path):
        assert cloud.predict("wine", "self-hosted", body).status == (404 if sent else 200)


def test_tasks_on_a_wrong_port_never_take_over(cloud: Cloud) -> None:
    """The circuit breaker fails the update and says why, and the tasks that were there go on answering."""
    wrong = copy.deepcopy(template_of(cloud, "wine-self-hosted"))
    with_a_port_that_nothing_listens_on(wrong)
    reason = failed_update(cloud, "wine-self-hosted", wrong)
    assert "ECS Deployment Circuit Breaker was triggered" in reason
    assert "8081" in reason
    assert cloud.predict("wine", "self-hosted", holdout("wine").body).status == 200
    assert cloud.workload("wine-self-hosted", "ecs-service").state == "stable"


@pytest.mark.parametrize("kind", ARCHITECTURE_OF_KIND)
def test_no_model_server_no_prediction(cloud: Cloud, kind: str) -> None:
    """What all other end-to-end tests rest on: answers come from the model server and from nothing else."""
    architecture = ARCHITECTURE_OF_KIND[kind]
    body = holdout("digits").body
    workload = cloud.workload(f"digits-{architecture}", kind)
    assert cloud.predict("digits", architecture, body).status == 200
    cloud.session.inject(PoisonDeploys(workload=workload.name))
    try:
        for replica in workload.replicas:
            cloud.session.inject(KillReplica(replica=replica.id))
        assert cloud.predict("digits", architecture, body).status >= 500
    finally:
        cloud.session.clear_faults()
        answers_again(cloud, f"digits-{architecture}")
