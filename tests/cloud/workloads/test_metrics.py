"""What a target tracking policy measures."""

from __future__ import annotations

import pytest

from modelstacks.cloud.workloads.metrics import measure, unemulated
from modelstacks.cloud.workloads.policies import (
    Metric,
    MetricQuery,
    Readings,
    StepScaling,
    TargetTracking,
    Unknown,
)

BUSY = Readings(period=3.0, requests=600, seconds=30.0, healthy=2, cpu=45.0)
QUIET = Readings(period=3.0, requests=0, seconds=0.0, healthy=2)


def metric(id_: str, name: str, namespace: str = "AWS/ApplicationELB") -> MetricQuery:
    return MetricQuery(id_, "", namespace, name, returned=False)


def math(expression: str, *more: MetricQuery) -> Metric:
    queries = (
        metric("requests", "RequestCount"),
        metric("seconds", "TargetResponseTime"),
        metric("tasks", "HealthyHostCount"),
        *more,
        MetricQuery("result", expression, "", "", returned=True),
    )
    return Metric(queries=queries)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALBRequestCountPerTarget", 6000.0),  # a minute
        ("SageMakerVariantInvocationsPerInstance", 6000.0),
        ("SageMakerVariantConcurrentRequestsPerModelHighResolution", 5.0),
        ("ECSServiceAverageCPUUtilization", 45.0),
    ],
)
def test_a_predefined_metric(name: str, value: float) -> None:
    assert measure(Metric(name), BUSY) == pytest.approx(value)


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
    got = measure(math(expression), readings)
    assert got is None if value is None else got == pytest.approx(value)


@pytest.mark.parametrize(
    ("metric_", "reason"),
    [
        (Metric("ECSServiceAverageMemoryUtilization"), "the predefined metric ECSServiceAverageMemory"),
        (math("other * 1", metric("other", "QueueDepth", "Mine")), "the metric Mine QueueDepth"),
        (math("STDDEV(requests)"), "STDDEV(requests) in an expression"),
        (math("requests +"), "the expression requests +"),
        (Metric(), "a metric that returns no data"),
    ],
)
def test_a_policy_that_is_not_understood_says_so(metric_: Metric, reason: str) -> None:
    assert reason in unemulated(TargetTracking("policy", metric_, 8.0))
    assert measure(metric_, BUSY) is None


def test_a_policy_of_an_unknown_kind_and_one_that_nothing_triggers_say_so() -> None:
    assert unemulated(Unknown("scheduled action nightly")) == "scheduled action nightly"
    assert "no alarm triggers it" in unemulated(StepScaling("steps", "ExactCapacity", (), ()))


def test_a_policy_that_is_understood_says_nothing() -> None:
    assert unemulated(TargetTracking("policy", math(CONCURRENCY), 8.0)) == ""
