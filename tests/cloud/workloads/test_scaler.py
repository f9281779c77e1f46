"""How many replicas scaling policies ask for, minute by minute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from modelstacks.cloud.workloads.policies import (
    Alarm,
    Bounds,
    Counters,
    Metric,
    MetricQuery,
    Policy,
    Step,
    StepScaling,
    TargetTracking,
    Unknown,
)
from modelstacks.cloud.workloads.scaling import Scaler

ON_CPU = TargetTracking(
    "cpu", Metric("ECSServiceAverageCPUUtilization"), 50.0, out_cooldown=60, in_cooldown=300
)
ON_REQUESTS = TargetTracking("requests", Metric("ALBRequestCountPerTarget"), 100.0)
CPU = Metric(queries=(MetricQuery("m", "", "AWS/ECS", "CPUUtilization", True),))
WIDE = Bounds(1, 10)


class Group:
    """A group whose replicas use so much of one processor each, scaled minute by minute."""

    def __init__(self, *policies: Policy, desired: int = 1, bounds: Bounds = WIDE, pace: float = 1.0) -> None:
        self.policies, self.desired, self.bounds = policies, desired, bounds
        self._pace = pace
        self._scaler = Scaler(lambda: pace)
        self._counters = Counters(at=0.0, healthy=desired, vcpus=1.0)
        self._look()

    def _look(self) -> None:
        self.desired = self._scaler.look(
            self.policies, self.bounds, self._counters.at, lambda: self._counters, self.desired
        )

    def pass_minutes(self, minutes: int, *, load: float = 0.0, requests: int = 0) -> list[int]:
        """The desired count after each minute, in which `load` processors' worth of work is shared."""
        counts = []
        for _ in range(minutes):
            seconds = 60.0 / self._pace
            self._counters = replace(
                self._counters,
                at=self._counters.at + seconds,
                healthy=self.desired,
                cpu=self._counters.cpu + load * seconds,
                requests=self._counters.requests + requests,
            )
            self._look()
            counts.append(self.desired)
        return counts


class TestTargetTracking:
    def test_scales_out_after_three_minutes_above_the_target_to_what_is_needed(self) -> None:
        assert Group(ON_CPU).pass_minutes(4, load=0.9) == [1, 1, 2, 2]

    def test_does_not_follow_a_short_peak(self) -> None:
        group = Group(ON_CPU)
        counts = group.pass_minutes(2, load=0.9) + group.pass_minutes(1) + group.pass_minutes(2, load=0.9)
        assert set(counts) == {1}

    def test_scales_out_no_further_than_a_laptop_bears(self) -> None:
        assert max(Group(ON_CPU).pass_minutes(10, load=9.0)) == 4

    def test_stays_within_the_maximum(self) -> None:
        assert max(Group(ON_CPU, bounds=Bounds(1, 2)).pass_minutes(10, load=9.0)) == 2

    def test_scales_in_one_by_one_after_fifteen_quiet_minutes_and_its_cooldown(self) -> None:
        group = Group(ON_CPU, desired=4, bounds=Bounds(2, 10))
        assert group.pass_minutes(14) == [4] * 14
        assert group.pass_minutes(11) == [3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2]

    def test_does_not_scale_in_near_its_target(self) -> None:
        assert set(Group(ON_CPU, desired=2).pass_minutes(40, load=0.95)) == {2}

    def test_that_may_not_scale_in_does_not(self) -> None:
        assert set(Group(replace(ON_CPU, scales_in=False), desired=3).pass_minutes(40)) == {3}

    def test_scales_in_only_where_every_policy_agrees(self) -> None:
        busy = Group(ON_CPU, ON_REQUESTS, desired=2)
        assert set(busy.pass_minutes(40, requests=190)) == {2}
        assert busy.pass_minutes(40, requests=10)[-1] == 1

    def test_counts_from_before_while_its_cooldown_lasts(self) -> None:
        """The same load does not raise the count twice, a larger one does, by what it adds to the first."""
        group = Group(replace(ON_CPU, out_cooldown=900.0), desired=1)
        assert group.pass_minutes(6, load=0.9)[-1] == 2
        assert group.pass_minutes(3, load=3.0)[-1] == 3

    def test_passes_faster_where_the_pace_is_faster(self) -> None:
        assert Group(ON_CPU, pace=20.0).pass_minutes(3, load=0.9) == [1, 1, 2]


def alarm(name: str, comparison: str, threshold: float, periods: int = 2) -> Alarm:
    return Alarm(name, CPU, threshold, comparison, 60.0, periods, periods)


def steps(kind: str, *changes: Step, least: int = 0, alarms: Sequence[Alarm] = ()) -> StepScaling:
    high = alarm("high", "GreaterThanOrEqualToThreshold", 50.0)
    return StepScaling("steps", kind, changes, tuple(alarms) or (high,), cooldown=120.0, least=least)  # type: ignore[arg-type]


class TestStepScaling:
    def test_changes_the_count_by_the_step_that_the_metric_is_in(self) -> None:
        policy = steps("ChangeInCapacity", Step(0, 30, 1), Step(30, None, 3))
        assert Group(policy).pass_minutes(2, load=0.6) == [1, 2]
        assert Group(policy).pass_minutes(2, load=0.9) == [1, 4]

    def test_waits_for_its_cooldown(self) -> None:
        policy = steps("ChangeInCapacity", Step(0, None, 1))
        assert Group(policy).pass_minutes(5, load=4.0) == [1, 2, 2, 3, 3]

    @pytest.mark.parametrize(
        ("kind", "change", "least", "count"),
        [
            ("ExactCapacity", 3, 0, 3),
            ("PercentChangeInCapacity", 50, 0, 3),
            ("PercentChangeInCapacity", 10, 2, 4),
            ("PercentChangeInCapacity", 10, 0, 3),
        ],
    )
    def test_adjusts_in_three_ways(self, kind: str, change: int, least: int, count: int) -> None:
        group = Group(steps(kind, Step(0, None, change), least=least), desired=2)
        assert group.pass_minutes(2, load=2.0)[-1] == count

    def test_scales_in_by_an_alarm_of_its_own(self) -> None:
        policy = steps(
            "ChangeInCapacity", Step(None, 0, -1), alarms=[alarm("low", "LessThanThreshold", 10.0)]
        )
        assert Group(policy, desired=3, bounds=Bounds(2, 10)).pass_minutes(6) == [3, 2, 2, 2, 2, 2]


def test_a_policy_that_is_not_understood_changes_nothing() -> None:
    group = Group(Unknown("scaling policy p of type PredictiveScaling"), desired=2)
    assert set(group.pass_minutes(40, load=9.0)) == {2}
