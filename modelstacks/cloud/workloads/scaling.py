"""What a target tracking policy measures: a predefined metric, or metric math over a load balancer's own.

Metric math is read as an expression tree of numbers, metric ids, + - * / and the functions FILL, PERIOD,
MAX, MIN and ABS; an expression with anything else is not evaluated, and its policy then scales nothing.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from modelstacks.cloud.services.application_autoscaling.snapshot import MetricQuery, ScalingPolicy

__all__ = ["Readings", "measure"]

REQUESTS_PER_TARGET = "ALBRequestCountPerTarget"
NAMESPACE = "AWS/ApplicationELB"


@dataclass(frozen=True, slots=True)
class Readings:
    """What a load balancer saw of one service during `period` seconds."""

    period: float
    requests: int
    seconds: float  # response times, summed up
    healthy: int


class _UnknownError(ValueError):
    """The expression has something that is not understood."""


def measure(policy: ScalingPolicy, readings: Readings) -> float | None:
    """The policy's metric, in the unit of its target; None where it has no data or is not understood."""
    if policy.metric == REQUESTS_PER_TARGET:
        return readings.requests * 60 / readings.period / readings.healthy if readings.healthy else None
    wanted = next((query for query in policy.queries if query.returned), None)
    if wanted is None:
        return None
    try:
        return _query(wanted, policy.queries, readings)
    except (_UnknownError, ZeroDivisionError, SyntaxError):
        return None


def _query(query: MetricQuery, queries: Sequence[MetricQuery], readings: Readings) -> float | None:
    if not query.expression:
        return _statistic(query, readings)
    others: Mapping[str, Callable[[], float | None]] = {
        one.id: lambda one=one: _query(one, queries, readings)  # type: ignore[misc]
        for one in queries
        if one.id != query.id
    }
    return _evaluate(ast.parse(query.expression, mode="eval").body, others, readings.period)


def _statistic(query: MetricQuery, readings: Readings) -> float | None:
    if query.namespace != NAMESPACE:
        raise _UnknownError(query.namespace)
    match query.metric:
        case "RequestCount":
            return float(readings.requests) if readings.requests else None
        case "RequestCountPerTarget":
            return readings.requests / readings.healthy if readings.requests and readings.healthy else None
        case "TargetResponseTime":
            return readings.seconds / readings.requests if readings.requests else None
        case "HealthyHostCount":
            return float(readings.healthy)
        case _:
            raise _UnknownError(query.metric)


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
    raise _UnknownError(ast.dump(node))
