"""Under load, replicas of each kind become more, and fewer again when it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from modelstacks.cloud.services.ecs.runtime import Services
from modelstacks.cloud.services.lambda_.runtime import Functions
from modelstacks.cloud.services.sagemaker.runtime import Endpoints
from modelstacks.cloud.workloads.machine import Workload
from modelstacks.cloud.workloads.scaling import MOST_SCALED

FIXTURES = Path(__file__).parent / "fixtures"
JSON = {"content-type": "application/json"}
PACE = 200.0  # an hour in 18 seconds: what scaling counts in minutes passes before a test is tired of it

SERVICE = """
  Capacity:
    Type: AWS::ApplicationAutoScaling::ScalableTarget
    Properties:
      ServiceNamespace: ecs
      ScalableDimension: ecs:service:DesiredCount
      ResourceId: !Sub "service/${Cluster}/${Service.Name}"
      MinCapacity: 1
      MaxCapacity: 3
"""
ENDPOINT = """
  Capacity:
    Type: AWS::ApplicationAutoScaling::ScalableTarget
    Properties:
      ServiceNamespace: sagemaker
      ScalableDimension: sagemaker:variant:DesiredInstanceCount
      ResourceId: !Sub "endpoint/${Endpoint.EndpointName}/variant/main"
      MinCapacity: 1
      MaxCapacity: 3
"""
TRACKING = """
  Policy:
    Type: AWS::ApplicationAutoScaling::ScalingPolicy
    Properties:
      PolicyName: under-load
      PolicyType: TargetTrackingScaling
      ScalingTargetId: !Ref Capacity
      TargetTrackingScalingPolicyConfiguration:
        TargetValue: {target}
        ScaleOutCooldown: 60
        ScaleInCooldown: 60
        PredefinedMetricSpecification: {{PredefinedMetricType: {metric}}}
"""
STEPS = """
  Policy:
    Type: AWS::ApplicationAutoScaling::ScalingPolicy
    Properties:
      PolicyName: under-load
      PolicyType: StepScaling
      ScalingTargetId: !Ref Capacity
      StepScalingPolicyConfiguration:
        AdjustmentType: ExactCapacity
        Cooldown: 60
        StepAdjustments: [{MetricIntervalLowerBound: 0, ScalingAdjustment: 3}]
  Alarm:
    Type: AWS::CloudWatch::Alarm
    Properties:
      Namespace: AWS/ApplicationELB
      MetricName: RequestCount
      Statistic: Sum
      Period: 60
      EvaluationPeriods: 2
      Threshold: 1
      ComparisonOperator: GreaterThanOrEqualToThreshold
      AlarmActions: [!Ref Policy]
"""


@contextmanager
def load(call: Callable[[], Any], callers: int = 4) -> Iterator[None]:
    """Calls, one after the other from each caller, for as long as the block runs."""
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            call()

    with ThreadPoolExecutor(callers) as pool:
        calling = [pool.submit(go_on) for _ in range(callers)]
        try:
            yield
        finally:
            over.set()
            for one in calling:
                one.result()


@pytest.fixture
def deployed(cloud: Any, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Deploys a fixture with more resources, and removes it afterwards."""
    stacks = []

    def deploy(stack: str, template: str, *more: str, **parameters: str) -> None:
        text = (FIXTURES / template).read_text().replace("\nOutputs:", "".join(more) + "\nOutputs:")
        (tmp_path / template).write_text(text)
        stacks.append(stack)
        cloud.deploy(stack, str(tmp_path / template), **parameters)

    yield deploy
    for stack in stacks:
        cloud.delete(stack)


def service(cloud: Any, stack: str) -> Workload:
    name = cloud.workload(stack, "ecs-service").name
    found = (one._workload for one in cloud.plane.runtimes[Services]._services.values())
    return next(one for one in found if one.name == name)


def healthy(cloud: Any, stack: str, kind: str) -> int:
    return sum(one.state == "healthy" for one in cloud.workload(stack, kind).replicas)


@pytest.mark.parametrize(
    ("policy", "body"),
    [
        (TRACKING.format(target=60, metric="ECSServiceAverageCPUUtilization"), "burn"),
        (STEPS, "{}"),
    ],
    ids=["by processor time", "by steps of an alarm"],
)
def test_a_service_scales_out(cloud: Any, deployed: Callable[..., None], policy: str, body: str) -> None:
    deployed("pressed", "self_hosted.yaml", SERVICE, policy, Tasks="1")
    service(cloud, "pressed").pace = PACE
    seen = 0
    with cloud.http("pressed") as http, load(lambda: http.post("/invocations", content=body, headers=JSON)):
        cloud.until(lambda: healthy(cloud, "pressed", "ecs-service") == 3)
        seen = cloud.workload("pressed", "ecs-service").desired
    assert seen == 3 <= MOST_SCALED


def test_a_service_scales_in_again(cloud: Any, deployed: Callable[..., None]) -> None:
    policy = TRACKING.format(target=60, metric="ALBRequestCountPerTarget")
    deployed("relaxed", "self_hosted.yaml", SERVICE, policy, Tasks="3")
    service(cloud, "relaxed").pace = PACE
    cloud.until(lambda: healthy(cloud, "relaxed", "ecs-service") == 1)
    assert cloud.workload("relaxed", "ecs-service").desired == 1


def test_an_endpoint_scales_out_and_in_by_its_concurrency_and_keeps_its_instances(
    cloud: Any, deployed: Callable[..., None]
) -> None:
    policy = TRACKING.format(target=1, metric="SageMakerVariantConcurrentRequestsPerModelHighResolution")
    deployed("crowded", "managed.yaml", ENDPOINT, policy)
    before = {one.id for one in cloud.workload("crowded", "sagemaker-endpoint").replicas}
    cloud.plane.runtimes[Endpoints]._endpoints["crowded"].workload.pace = PACE
    runtime = cloud.client("sagemaker-runtime")

    def described_instances() -> int:
        found = cloud.client("sagemaker").describe_endpoint(EndpointName="crowded")
        return int(found["ProductionVariants"][0]["DesiredInstanceCount"])

    with load(lambda: runtime.invoke_endpoint(EndpointName="crowded", Body=b"unhurried")):
        cloud.until(lambda: healthy(cloud, "crowded", "sagemaker-endpoint") == 3)
        during = {one.id for one in cloud.workload("crowded", "sagemaker-endpoint").replicas}
        # The service hears of the new count a moment after the instances run.
        cloud.until(lambda: described_instances() == 3)
    assert before < during, "an instance was replaced"
    cloud.until(lambda: healthy(cloud, "crowded", "sagemaker-endpoint") == 1)
    assert cloud.workload("crowded", "sagemaker-endpoint").desired == 1


def test_a_function_has_as_many_environments_as_invocations_and_none_when_it_is_idle(
    cloud: Any, deployed: Callable[..., None]
) -> None:
    deployed("called", "managed.yaml")
    name = cloud.workload("called", "lambda-function").name
    with cloud.http("called") as http, load(lambda: http.post("/x", content="unhurried"), callers=2):
        cloud.until(lambda: healthy(cloud, "called", "lambda-function") == 2)
    cloud.plane.runtimes[Functions]._functions[name]._workload.pace = 1e6
    cloud.until(lambda: not cloud.workload("called", "lambda-function").replicas)
    with cloud.http("called") as http:
        assert http.post("/x", content="").status_code == 200


def test_a_policy_that_is_not_emulated_is_named(cloud: Any, deployed: Callable[..., None]) -> None:
    policy = TRACKING.format(target=60, metric="ECSServiceAverageMemoryUtilization")
    nightly = "{ScheduledActionName: nightly, Schedule: rate(1 day), ScalableTargetAction: {MinCapacity: 1}}"
    scheduled = f"{SERVICE}      ScheduledActions: [{nightly}]\n"
    deployed("lenient", "self_hosted.yaml", scheduled, policy, Tasks="1")
    assert cloud.workload("lenient", "ecs-service").unemulated == (
        "scaling policy under-load: the predefined metric ECSServiceAverageMemoryUtilization",
        "scheduled action nightly",
    )
