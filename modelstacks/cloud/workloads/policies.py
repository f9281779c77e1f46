"""Scaling policies and bounds as they were deployed, and the counters and readings that they are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Alarm",
    "Bounds",
    "Counters",
    "Metric",
    "MetricQuery",
    "Policy",
    "Readings",
    "Step",
    "StepScaling",
    "TargetTracking",
    "Unknown",
]


@dataclass(frozen=True, slots=True)
class Bounds:
    """A scalable target's minimum and maximum."""

    minimum: int
    maximum: int

    def clamp(self, count: int) -> int:
        """The nearest count within the bounds."""
        return min(max(count, self.minimum), self.maximum)


@dataclass(frozen=True, slots=True)
class MetricQuery:
    """One line of metric math: an expression, or a metric. `returned` marks the one that counts."""

    id: str
    expression: str
    namespace: str
    metric: str
    returned: bool


@dataclass(frozen=True, slots=True)
class Metric:
    """A predefined metric, by its name, or metric math."""

    predefined: str = ""
    queries: tuple[MetricQuery, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetTracking:
    """Keep a metric near a target."""

    name: str
    metric: Metric
    target: float
    scales_in: bool = True
    out_cooldown: float = 300.0
    in_cooldown: float = 300.0


@dataclass(frozen=True, slots=True)
class Step:
    """A change while the metric is between two bounds, which are relative to the alarm's threshold."""

    lower: float | None
    upper: float | None
    change: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """A CloudWatch alarm that triggers a step scaling policy."""

    name: str
    metric: Metric
    threshold: float
    comparison: str  # GreaterThanThreshold | GreaterThanOrEqualToThreshold | LessThan...
    period: float
    evaluations: int
    datapoints: int  # of them that must breach the threshold


@dataclass(frozen=True, slots=True)
class StepScaling:
    """Change the count by a step while an alarm is in ALARM."""

    name: str
    adjustment: Literal["ChangeInCapacity", "PercentChangeInCapacity", "ExactCapacity"]
    steps: tuple[Step, ...]
    alarms: tuple[Alarm, ...]
    cooldown: float = 300.0
    least: int = 0  # MinAdjustmentMagnitude, of a percentage


@dataclass(frozen=True, slots=True)
class Unknown:
    """A policy of a kind that is not emulated; `what` names kind and policy."""

    what: str


Policy = TargetTracking | StepScaling | Unknown


@dataclass(frozen=True, slots=True)
class Counters:
    """What a group has done since it exists; two of them make a reading."""

    at: float  # seconds of this machine's clock
    healthy: int
    requests: int = 0
    seconds: float = 0.0  # that requests took, summed up
    cpu: float = 0.0  # seconds of processor time
    vcpus: float = 0.0  # of one replica; 0 where its processor time is not limited


@dataclass(frozen=True, slots=True)
class Readings:
    """What a group did during `period` seconds."""

    period: float
    requests: int
    seconds: float
    healthy: int
    cpu: float | None = None  # percent of what its replicas may use

    @classmethod
    def between(cls, before: Counters, now: Counters) -> Readings:
        """The difference of two counters."""
        period = now.at - before.at
        allowed = period * now.healthy * now.vcpus
        return cls(
            period=period,
            requests=now.requests - before.requests,
            seconds=now.seconds - before.seconds,
            healthy=now.healthy,
            cpu=100 * max(0.0, now.cpu - before.cpu) / allowed if allowed > 0 else None,
        )
