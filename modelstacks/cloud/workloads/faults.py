"""Faults on demand, and the counters of what passed each hop."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from modelstacks.cloud import api
from modelstacks.cloud.network import Refused

__all__ = ["Faults", "Traffic"]

KEPT_REFUSALS = 50


class Faults:
    """The faults that are active now."""

    def __init__(self) -> None:
        self._active: list[api.Fault] = []

    def add(self, fault: api.Fault) -> None:
        """Add a lasting fault; one of the same kind on the same victim is replaced."""
        self._active = [one for one in self._active if _victim(one) != _victim(fault)] + [fault]

    def clear(self) -> None:
        """Everything works again."""
        self._active = []

    @property
    def active(self) -> tuple[api.Fault, ...]:
        """In the order in which they were injected."""
        return tuple(self._active)

    def latency(self, workload: str) -> float:
        """Seconds to hold each request to a workload."""
        return sum(
            one.seconds for one in self._active if isinstance(one, api.Latency) and one.workload == workload
        )

    def fails_health_checks(self, replica: str) -> bool:
        """Whether a replica's health checks should fail."""
        return any(isinstance(one, api.FailHealthChecks) and one.replica == replica for one in self._active)

    def poisoned(self, workload: str) -> bool:
        """Whether a workload's new replicas should exit at once."""
        return any(isinstance(one, api.PoisonDeploys) and one.workload == workload for one in self._active)


def _victim(fault: api.Fault) -> tuple[str, str]:
    return fault.kind, getattr(fault, "workload", "") or getattr(fault, "replica", "")


@dataclass(slots=True)
class _Counter:
    requests: int = 0
    errors: int = 0
    refusals: int = 0
    seconds: float = 0.0


class Traffic:
    """What passed each hop, and what was refused there."""

    def __init__(self) -> None:
        self._hops: dict[str, _Counter] = {}
        self._refusals: deque[api.Refusal] = deque(maxlen=KEPT_REFUSALS)

    @contextmanager
    def passing(self, hop: str) -> Iterator[_Counter]:
        """Count one request at a hop; an exception counts as an error."""
        counter = self._hops.setdefault(hop, _Counter())
        counter.requests += 1
        started = time.perf_counter()
        try:
            yield counter
        except BaseException:
            counter.errors += 1
            raise
        finally:
            counter.seconds += time.perf_counter() - started

    def requests(self, hop: str) -> int:
        """How many requests a hop has seen."""
        counter = self._hops.get(hop)
        return counter.requests if counter else 0

    def seen(self, hop: str) -> tuple[int, float]:
        """Requests at a hop, and the seconds that they took."""
        counter = self._hops.get(hop)
        return (counter.requests, counter.seconds) if counter else (0, 0.0)

    def refused(self, refused: Refused) -> None:
        """Keep a refusal for `status`; one that repeats the last is not kept again."""
        self._hops.setdefault(refused.hop, _Counter()).refusals += 1
        if self._refusals and (self._refusals[-1].hop, self._refusals[-1].reason) == (
            refused.hop,
            refused.reason,
        ):
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._refusals.append(api.Refusal(time=now, hop=refused.hop, reason=refused.reason))

    @property
    def refusals(self) -> tuple[api.Refusal, ...]:
        """The latest, oldest first."""
        return tuple(self._refusals)

    def describe(self) -> dict[str, api.HopTraffic]:
        """For `status`."""
        return {
            hop: api.HopTraffic(
                requests=counter.requests,
                errors=counter.errors,
                refusals=counter.refusals,
                seconds=round(counter.seconds, 6),
            )
            for hop, counter in self._hops.items()
        }
