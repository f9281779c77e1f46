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
from mutation.edits import drop
from mutation.run_time import MUTANTS, RunTimeMutant

from modelstacks.cloud.api import KillReplica, PoisonDeploys

pytestmark = pytest.mark.e2e

RULE = "AWS::ElasticLoadBalancingV2::ListenerRule"
STACKS = {"self-hosted": "wine-self-hosted", "managed": "diabetes-managed"}
BY_ID = {mutant.id: mutant for mutant in MUTANTS}
REFUSED = [mutant for mutant in MUTANTS if mutant.caught_by == "request"]
FAILING = [mutant for mutant in MUTANTS if mutant.caught_by == "update"]
# Half a second apart: longer than the replacement of a task takes.
ANSWERS = 60
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


@pytest.mark.parametrize("mutant", REFUSED, ids=lambda mutant: mutant.id)
def test_what_is_missing_in_the_template_is_named(cloud: Cloud, mutant: RunTimeMutant) -> None:
    stack = STACKS[mutant.architecture]
    deployment, _, architecture = stack.partition("-")
    body = holdout(deployment).body
    with deployed_otherwise(cloud, stack, mutant.change):
        for _ in range(ANSWERS):
            answer = cloud.predict(deployment, architecture, body)
            assert answer.status in mutant.statuses
            # While the service replaces what its balancer cannot reach, no target may be registered.
            if mutant.reason in answer.headers["x-modelstacks-reason"]:
                break
            assert "has no registered targets" in answer.headers["x-modelstacks-reason"]
            time.sleep(0.5)
        assert mutant.reason in answer.headers["x-modelstacks-reason"]
        assert any(mutant.reason in refusal.reason for refusal in cloud.status().refusals[-5:])


def test_a_throttled_function_is_overload(cloud: Cloud) -> None:
    with deployed_otherwise(cloud, "diabetes-managed", BY_ID["function-is-throttled"].change):
        answer = cloud.predict("diabetes", "managed", holdout("diabetes").body)
    document = json.loads(answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status, document["status"], document["retry_after"]) == (429, 429, 1)
    assert answer.headers["retry-after"] == "1"
    assert "throttled" in answer.headers["x-modelstacks-reason"]


def test_a_path_that_keeps_the_stages_name_is_not_found(cloud: Cloud) -> None:
    body = holdout("wine").body
    sent = cloud.status().settings.stage_in_path
    with deployed_otherwise(cloud, "wine-self-hosted", drop(RULE, "Properties/Transforms")):
        assert cloud.predict("wine", "self-hosted", body).status == (404 if sent else 200)


@pytest.mark.parametrize("mutant", FAILING, ids=lambda mutant: mutant.id)
def test_a_fault_that_no_replica_survives_never_takes_over(cloud: Cloud, mutant: RunTimeMutant) -> None:
    """The circuit breaker fails the update and says why, and the tasks that were there go on answering."""
    stack = STACKS[mutant.architecture]
    deployment, _, architecture = stack.partition("-")
    reason = failed_update(cloud, stack, mutant.applied_to(template_of(cloud, stack)))
    assert "ECS Deployment Circuit Breaker was triggered" in reason
    assert mutant.reason in reason
    assert cloud.predict(deployment, architecture, holdout(deployment).body).status == 200
    assert cloud.workload(stack, "ecs-service").state == "stable"


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
