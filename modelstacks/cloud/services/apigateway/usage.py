"""Throttles and quotas of REST APIs: token buckets for rates, counters for a day, week or month."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from modelstacks.cloud.services.apigateway.snapshot import Throttle, UsagePlan

__all__ = ["Meter"]


class _Bucket:
    """`burst` tokens, refilled at `rate` a second."""

    def __init__(self, throttle: Throttle, now: float) -> None:
        self.throttle, self._tokens, self._at = throttle, float(throttle.burst), now

    def take(self, now: float) -> bool:
        self._tokens = min(float(self.throttle.burst), self._tokens + (now - self._at) * self.throttle.rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Meter:
    """Counts what callers use. Counters survive a reconcile; a changed limit starts a new bucket."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, today: Callable[[], datetime] | None = None
    ) -> None:
        self._clock = clock
        self._today = today or (lambda: datetime.now(UTC))
        self._buckets: dict[tuple[str, ...], _Bucket] = {}
        self._used: dict[tuple[str, str, str], int] = {}

    def within_rate(self, throttle: Throttle | None, *who: str) -> bool:
        """Take one token from the bucket of `who`; always True without a limit."""
        if throttle is None:
            return True
        now = self._clock()
        bucket = self._buckets.get(who)
        if bucket is None or bucket.throttle != throttle:
            bucket = self._buckets[who] = _Bucket(throttle, now)
        return bucket.take(now)

    def within_quota(self, plan: UsagePlan, key_id: str) -> bool:
        """Count one request of a key against its plan's quota."""
        if plan.quota is None:
            return True
        counter = (plan.id, key_id, _period(plan.period, self._today()))
        self._used[counter] = self._used.get(counter, 0) + 1
        return self._used[counter] <= plan.quota


def _period(period: str, now: datetime) -> str:
    return now.strftime({"DAY": "%Y-%m-%d", "WEEK": "%G-%V"}.get(period, "%Y-%m"))
