"""The value of a scaling policy's metric: a predefined one, or metric math over CloudWatch's own.

Metric math is read as an expression tree of numbers, metric ids, + - * / and the functions FILL, PERIOD,
MAX, MIN and ABS. A policy with anything else is not emulated, and `unknown` says what that is.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence

from modelstacks.cloud.workloads.policies import (
    Metric,
    MetricQuery,
    Policy,
    Readings,
    TargetTracking,
    Unknown,
)

__all__ = ["HIGH_RESOLUTION", "measure", "unemulated"]


def _per_minute_and_replica(readings: Readings) -> float | None:
    return readings.requests * 60 / readings.period / readings.healthy if readings.healthy else None


def _concurrency(readings: Readings) -> float | None:
    return readings.seconds / readings.period / readings.healthy if readings.healthy else None


HIGH_RESOLUTION = "SageMakerVariantConcurrentRequestsPerModelHighResolution"

#: Predefined metric -> its value, in the unit of the policy's target. Requests arrive here as fast as in AWS,
#: so that those of a minute are counted by this machine's clock.
PREDEFINED: Mapping[str, Callable[[Readings], float | None]] = {
    "ALBRequestCountPerTarget": _per_minute_and_replica,
    "ECSServiceAverageCPUUtilization": lambda readings: readings.cpu,
    "SageMakerVariantInvocationsPerInstance": _per_minute_and_replica,
    HIGH_RESOLUTION: _concurrency,
}


def _if_any(value: Callable[[Readings], float | None]) -> Callable[[Readings], float | None]:
    """Without requests, these metrics have no data points."""
    return lambda readings: value(readings) if readings.requests else None


#: (namespace, metric) -> its value; None where it has no data points.
CLOUDWATCH: Mapping[tuple[str, str], Callable[[Readings], float | None]] = {
    ("AWS/ApplicationELB", "RequestCount"): _if_any(lambda readings: float(readings.requests)),
    ("AWS/ApplicationELB", "RequestCountPerTarget"): _if_any(
        lambda readings: readings.requests / readings.healthy if readings.healthy else None
    ),
    ("AWS/ApplicationELB", "TargetResponseTime"): _if_any(
        lambda readings: readings.seconds / readings.requests
    ),
    ("AWS/ApplicationELB", "HealthyHostCount"): lambda readings: float(readings.healthy),
    ("AWS/ECS", "CPUUtilization"): lambda readings: readings.cpu,
    ("AWS/SageMaker", "Invocations"): _if_any(lambda readings: float(readings.requests)),
    ("AWS/SageMaker", "InvocationsPerInstance"): _if_any(
        lambda readings: readings.requests / readings.healthy if readings.healthy else None
    ),
    ("AWS/SageMaker", "ConcurrentRequestsPerModel"): _concurrency,
}


class _UnknownError(ValueError):
    """The metric has something that is not understood."""


def measure(metric: Metric, readings: Readings) -> float | None:
    """The metric's value; None where it has no data or is not understood."""
    try:
        return _value(metric, readings)
    except (_UnknownError, ZeroDivisionError):
        return None


def unemulated(policy: Policy) -> str:
    """What about a policy is not emulated; empty where it is followed."""
    if isinstance(policy, Unknown):
        return policy.what
    metrics = [policy.metric] if isinstance(policy, TargetTracking) else [one.metric for one in policy.alarms]
    if not metrics:
        return f"scaling policy {policy.name}: no alarm triggers it"
    for metric in metrics:
        try:
            _value(metric, Readings(period=60.0, requests=1, seconds=1.0, healthy=1, cpu=1.0))
        except _UnknownError as error:
            return f"scaling policy {policy.name}: {error}"
        except ZeroDivisionError:
            continue
    return ""


def _value(metric: Metric, readings: Readings) -> float | None:
    if metric.predefined:
        if metric.predefined not in PREDEFINED:
            raise _UnknownError(f"the predefined metric {metric.predefined}")
        return PREDEFINED[metric.predefined](readings)
    wanted = next((query for query in metric.queries if query.returned), None)
    if wanted is None:
        raise _UnknownError("a metric that returns no data")
    return _query(wanted, metric.queries, readings)


def _query(query: MetricQuery, queries: Sequence[MetricQuery], readings: Readings) -> float | None:
    if not query.expression:
        statistic = CLOUDWATCH.get((query.namespace, query.metric))
        if statistic is None:
            raise _UnknownError(f"the metric {query.namespace} {query.metric}")
        return statistic(readings)
    others: Mapping[str, Callable[[], float | None]] = {
        one.id: lambda one=one: _query(one, queries, readings)  # type: ignore[misc]
        for one in queries
        if one.id != query.id
    }
    try:
        tree = ast.parse(query.expression, mode="eval").body
    except SyntaxError:
        raise _UnknownError(f"the expression {query.expression}") from None
    return _evaluate(tree, others, readings.period)


OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
FUNCTIONS: Mapping[str, Callable[..., float]] = {"MAX": max, "MIN": min, "ABS": abs}


def _evaluate(
    node: ast.expr, metrics: Mapping[str, Callable[[], float | None]], period: float
) -> float | None:
    """The expression's value. As in CloudWatch, a missing data point makes everything built on it missing."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return float(node.value)
    if isinstance(node, ast.Name) and node.id in metrics:
        return metrics[node.id]()
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _evaluate(node.operand, metrics, period)
        return None if value is None else -value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = _evaluate(node.left, metrics, period), _evaluate(node.right, metrics, period)
        return None if left is None or right is None else OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id == "PERIOD":
            return period
        values = [_evaluate(argument, metrics, period) for argument in node.args]
        if node.func.id == "FILL" and len(values) == 2:
            return values[1] if values[0] is None else values[0]
        if node.func.id in FUNCTIONS:
            present = [value for value in values if value is not None]
            return FUNCTIONS[node.func.id](*present) if present else None
    raise _UnknownError(f"{ast.unparse(node)} in an expression")
