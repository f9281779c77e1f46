"""What a target tracking policy measures."""

from __future__ import annotations

import pytest

from modelstacks.cloud.services.application_autoscaling.snapshot import MetricQuery, ScalingPolicy
from modelstacks.cloud.workloads.scaling import Readings, measure

BUSY = Readings(period=3.0, requests=600, seconds=30.0, healthy=2)
QUIET = Readings(period=3.0, requests=0, seconds=0.0, healthy=2)


def metric(id_: str, name: str, namespace: str = "AWS/ApplicationELB") -> MetricQuery:
    return MetricQuery(id_, "", namespace, name, returned=False)


def policy(expression: str, *more: MetricQuery) -> ScalingPolicy:
    queries = (
        metric("requests", "RequestCount"),
        metric("seconds", "TargetResponseTime"),
        metric("tasks", "HealthyHostCount"),
        *more,
        MetricQuery("result", expression, "", "", returned=True),
    )
    return ScalingPolicy("policy", "ecs", "service/c/s", "", 8.0, queries)


def test_requests_per_target_are_counted_by_the_minute() -> None:
    predefined = ScalingPolicy("policy", "ecs", "service/c/s", "ALBRequestCountPerTarget", 100.0)
    assert measure(predefined, BUSY) == pytest.approx(6000.0)


CONCURRENCY = "FILL(requests, 0) / PERIOD(requests) * FILL(seconds, 0) / tasks"


@pytest.mark.parametrize(
    ("expression", "readings", "value"),
    [
        (CONCURRENCY, BUSY, 5.0),  # 200 requests a second, 0.05 s each, over 2 tasks
        (CONCURRENCY, QUIET, 0.0),
        ("requests / tasks", QUIET, None),
        ("MAX(requests, 7) - 2 * -tasks", BUSY, 604.0),
        ("requests / (tasks - 2)", BUSY, None),
        ("STDDEV(requests)", BUSY, None),
        ("requests if tasks else 0", BUSY, None),
        ("__import__('os')", BUSY, None),
        ("requests +", BUSY, None),
    ],
)
def test_metric_math(expression: str, readings: Readings, value: float | None) -> None:
    got = measure(policy(expression), readings)
    assert got is None if value is None else got == pytest.approx(value)


def test_a_metric_of_another_namespace_is_not_guessed() -> None:
    assert measure(policy("other * 1", metric("other", "CPUUtilization", "AWS/ECS")), BUSY) is None
