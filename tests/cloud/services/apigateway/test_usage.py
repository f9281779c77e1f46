"""Token buckets and quotas."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from modelstacks.cloud.services.apigateway.snapshot import Throttle, UsagePlan
from modelstacks.cloud.services.apigateway.usage import Meter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def plan(quota: int | None, period: str = "DAY") -> UsagePlan:
    return UsagePlan("plan", "plan", frozenset(), frozenset(), None, quota, period)


def test_a_burst_passes_and_the_rate_refills_it() -> None:
    clock = Clock()
    meter = Meter(clock)
    limit = Throttle(rate=2, burst=3)
    assert [meter.within_rate(limit, "key") for _ in range(4)] == [True, True, True, False]
    clock.now = 0.5
    assert [meter.within_rate(limit, "key") for _ in range(2)] == [True, False]


def test_callers_have_buckets_of_their_own() -> None:
    meter = Meter(Clock())
    limit = Throttle(rate=1, burst=1)
    assert meter.within_rate(limit, "a")
    assert not meter.within_rate(limit, "a")
    assert meter.within_rate(limit, "b")


def test_no_limit_is_no_limit() -> None:
    meter = Meter(Clock())
    assert all(meter.within_rate(None, "a") for _ in range(100))
    assert all(meter.within_quota(plan(None), "a") for _ in range(100))


def test_a_quota_starts_anew_with_its_period() -> None:
    days = [datetime(2026, 1, 31, tzinfo=UTC)] * 3 + [datetime(2026, 2, 1, tzinfo=UTC)]
    meter = Meter(Clock(), today=lambda: days.pop(0))
    assert [meter.within_quota(plan(2, "MONTH"), "key") for _ in range(4)] == [True, True, False, True]


@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 10), st.floats(0.1, 20))
def test_never_more_than_the_burst_and_the_rate_allow(pauses: list[float], burst: int, rate: float) -> None:
    clock = Clock()
    meter = Meter(clock)
    passed = 0
    for pause in pauses:
        clock.now += pause
        passed += meter.within_rate(Throttle(rate, burst), "key")
    assert passed <= burst + rate * clock.now + 1e-6
