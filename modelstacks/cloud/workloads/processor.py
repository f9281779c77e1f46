"""The processor time that replicas have used, their child processes included."""

from __future__ import annotations

from collections.abc import Iterable

import psutil

from modelstacks.cloud.host.replicas import Replica

__all__ = ["ProcessorTime"]


class ProcessorTime:
    """Sums up what replicas use from when each was first asked for.

    Callers ask for healthy replicas only: loading a model takes as long here as in AWS while scaling's
    periods pass faster, so that a start would look like hours of load.
    """

    def __init__(self) -> None:
        self._total = 0.0
        self._used: dict[str, float] = {}  # replica id -> seconds when it was last looked at

    def of(self, replicas: Iterable[Replica]) -> float:
        """Seconds that all replicas ever asked for have used, as far as somebody looked."""
        now = {one.id: _seconds(one.pid) for one in replicas if one.pid is not None}
        for name, seconds in now.items():
            self._total += max(0.0, seconds - self._used.get(name, seconds))
        self._used = now
        return self._total


def _seconds(pid: int) -> float:
    """What a process and its children have used; children that have ended count for their parent."""
    total = 0.0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            times = one.cpu_times()
            total += times.user + times.system
        ended = process.cpu_times()
    except psutil.Error:
        return total
    return total + ended.children_user + ended.children_system
