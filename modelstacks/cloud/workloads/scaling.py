"""How many replicas scaling policies ask for: target tracking and step scaling, as Application Auto Scaling.

Target tracking looks once a minute, at a high-resolution metric every ten seconds. It scales out after three
periods above the target, and in, one replica at a time, after fifteen minutes below nine tenths of it; where
there are several such policies, all of them have to agree to that. Cooldowns are the policy's.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from modelstacks.cloud.workloads.metrics import HIGH_RESOLUTION, measure, unemulated
from modelstacks.cloud.workloads.policies import (
    Alarm,
    Bounds,
    Counters,
    Policy,
    Readings,
    Step,
    StepScaling,
    TargetTracking,
    Unknown,
)

__all__ = ["MOST_SCALED", "Scaler"]

PERIOD, HIGH_RESOLUTION_PERIOD = 60.0, 10.0  # seconds
PERIODS_TO_SCALE_OUT = 3
SECONDS_TO_SCALE_IN = 900.0
SCALE_IN_BELOW = 0.9  # of the target
#: A cloud has room for a scalable target's maximum, a laptop may not: scaling stops here, starting does not.
MOST_SCALED = 4


class _Follower(Protocol):
    """Follows one policy."""

    @property
    def quiet(self) -> bool | None:
        """Whether it agrees to scaling in; None where it has no say in that."""

    def due(self, now: float) -> bool:
        """Whether a period has passed since it looked last."""

    def look(self, now: float, counters: Counters, desired: int) -> int:
        """The count that it asks for, at the end of a period."""


class Scaler:
    """Follows the policies of one group. `pace` is how many times as fast its periods pass."""

    def __init__(self, pace: Callable[[], float]) -> None:
        self._pace = pace
        self._now = 0.0  # in the policies' seconds
        self._seen: float | None = None
        self._followers: dict[Policy, _Follower] = {}
        self._scaled_in = -math.inf

    def look(
        self,
        policies: Sequence[Policy],
        bounds: Bounds,
        at: float,
        counters: Callable[[], Counters],
        desired: int,
    ) -> int:
        """The count that the policies ask for at a time of this machine's clock, within the bounds.

        `counters` is called only at the end of a period: reading them takes a while.
        """
        if self._seen is not None:
            self._now += max(0.0, at - self._seen) * self._pace()
        self._seen = at
        known: dict[Policy, _Follower] = {}
        for policy in policies:
            if not isinstance(policy, Unknown) and not unemulated(policy):
                known[policy] = self._followers.get(policy) or _follow(policy)
        self._followers = known
        due = [follower for follower in known.values() if follower.due(self._now)]
        read = counters() if due else None
        asked = [follower.look(self._now, read, desired) for follower in due if read is not None]
        if (most := max(asked, default=desired)) > desired:
            return max(desired, min(most, bounds.maximum, max(bounds.minimum, MOST_SCALED)))
        if (least := min(asked, default=desired)) < desired:
            return max(least, bounds.minimum)
        return self._scale_in(bounds, desired)

    def _scale_in(self, bounds: Bounds, desired: int) -> int:
        """One replica less, where every target tracking policy that may scale in agrees."""
        opinions = [one.quiet for one in self._followers.values() if one.quiet is not None]
        cooldown = max(
            (one.in_cooldown for one in self._followers if isinstance(one, TargetTracking)), default=0.0
        )
        if not opinions or not all(opinions) or desired <= bounds.minimum:
            return desired
        if self._now - self._scaled_in < cooldown:
            return desired
        self._scaled_in = self._now
        return desired - 1


def _follow(policy: TargetTracking | StepScaling) -> _Follower:
    return _Tracking(policy) if isinstance(policy, TargetTracking) else _Steps(policy)


class _Cooldown:
    """While it lasts, a count grows only beyond what it was raised to, reckoned from where it was before."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began, self._base = -math.inf, 0

    def base(self, now: float, desired: int) -> int:
        """The count from which a change is reckoned now."""
        return self._base if now - self._began < self._seconds else desired

    def over(self, now: float) -> bool:
        """Whether it has ended."""
        return now - self._began >= self._seconds

    def begin(self, now: float, desired: int) -> None:
        """A change from `desired` begins."""
        self._base = self.base(now, desired)
        self._began = now


class _Tracking:
    """Follows a target tracking policy."""

    def __init__(self, policy: TargetTracking) -> None:
        self._policy = policy
        fine = policy.metric.predefined == HIGH_RESOLUTION
        self._period = HIGH_RESOLUTION_PERIOD if fine else PERIOD
        self._before: Counters | None = None
        self._looked = -math.inf
        self._above = 0  # periods in a row
        self._below = 0.0  # seconds in a row
        self._cooldown = _Cooldown(policy.out_cooldown)

    @property
    def quiet(self) -> bool | None:
        """Whether the metric has been low for long enough to scale in."""
        return self._below >= SECONDS_TO_SCALE_IN if self._policy.scales_in else None

    def due(self, now: float) -> bool:
        """Whether a period has passed since it looked last."""
        return now - self._looked >= self._period

    def look(self, now: float, counters: Counters, desired: int) -> int:
        """The count at which the metric would meet its target, once it was above it for long enough."""
        before, passed = self._before, now - self._looked
        self._before, self._looked = counters, now
        if before is None:
            return desired
        value = measure(self._policy.metric, Readings.between(before, counters))
        target = self._policy.target
        self._above = self._above + 1 if value is not None and value > target else 0
        low = value is not None and value < target * SCALE_IN_BELOW
        self._below = self._below + passed if low else 0.0
        if value is None or self._above < PERIODS_TO_SCALE_OUT:
            return desired
        needed = math.ceil(self._cooldown.base(now, desired) * value / target)
        if needed <= desired:
            return desired
        self._cooldown.begin(now, desired)
        return needed


class _Steps:
    """Follows a step scaling policy."""

    quiet = None

    def __init__(self, policy: StepScaling) -> None:
        self._policy = policy
        self._alarms = [_Watched(alarm) for alarm in policy.alarms]
        self._cooldown = _Cooldown(policy.cooldown)

    def due(self, now: float) -> bool:
        """Whether a period of one of its alarms has passed."""
        return any(alarm.due(now) for alarm in self._alarms)

    def look(self, now: float, counters: Counters, desired: int) -> int:
        """The count after the step of the first alarm that is in ALARM."""
        for alarm in self._alarms:
            if not alarm.due(now):
                continue
            value = alarm.look(now, counters)
            if value is None:
                continue
            step = next((one for one in self._policy.steps if _within(one, value - alarm.threshold)), None)
            if step is None:
                continue
            wanted = self._after(step, self._cooldown.base(now, desired))
            if wanted > desired or (wanted < desired and self._cooldown.over(now)):
                self._cooldown.begin(now, desired)
                return wanted
        return desired

    def _after(self, step: Step, count: int) -> int:
        match self._policy.adjustment:
            case "ExactCapacity":
                return step.change
            case "ChangeInCapacity":
                return max(0, count + step.change)
            case "PercentChangeInCapacity":
                change = count * step.change / 100
                whole = math.floor(abs(change)) if abs(change) > 1 else math.ceil(abs(change))
                return max(0, count + int(math.copysign(max(whole, self._policy.least), change)))


def _within(step: Step, above: float) -> bool:
    lower = -math.inf if step.lower is None else step.lower
    upper = math.inf if step.upper is None else step.upper
    # The bound nearer to the threshold belongs to the step.
    return lower <= above < upper if above >= 0 else lower < above <= upper


class _Watched:
    """An alarm's latest data points."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self.threshold = alarm.threshold
        self._before: Counters | None = None
        self._looked = -math.inf
        self._values: deque[float | None] = deque(maxlen=alarm.evaluations)

    def due(self, now: float) -> bool:
        """Whether a period has passed since it looked last."""
        return now - self._looked >= self._alarm.period

    def look(self, now: float, counters: Counters) -> float | None:
        """The value of the period that has passed, where the alarm is in ALARM."""
        before, self._before, self._looked = self._before, counters, now
        if before is None:
            return None
        self._values.append(measure(self._alarm.metric, Readings.between(before, counters)))
        breaching = [value for value in self._values if value is not None and self._breaches(value)]
        return breaching[-1] if len(breaching) >= self._alarm.datapoints else None

    def _breaches(self, value: float) -> bool:
        match self._alarm.comparison:
            case "GreaterThanThreshold":
                return value > self.threshold
            case "GreaterThanOrEqualToThreshold":
                return value >= self.threshold
            case "LessThanThreshold":
                return value < self.threshold
            case _:
                return value <= self.threshold
