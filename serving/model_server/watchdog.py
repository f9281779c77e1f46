"""Which workers have stopped making progress, seen from the supervisor.

A worker's event loop writes the time to shared memory several times a second, also while a call of the engine
runs on its thread. The event loop of a hung worker does not; nor does that of a stopped one. What the kernel
says about the process tells these from a worker that only gets no processor. Time is counted in the
supervisor's own looks, so that a machine that was suspended, or a container that was paused as a whole, is no
reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from model_server import metrics
from model_server.settings import Settings

LOOK_SECONDS = 0.5
BEAT_SECONDS = 0.25
# A call is overdue after so many deadlines: nobody has been waiting for its answer for long.
OVERDUE_DEADLINES = 4
# A call may take so long in any case, and may keep the interpreter, and with it the event loop, for so long.
SHORTEST_OVERDUE = 60.0
# A thread that wants to run and has used less of the time than this is kept from running by other processes.
STARVED = 0.05


@dataclass(frozen=True, slots=True)
class Thread:
    """A process's main thread, as the kernel describes it."""

    state: str  # R running or ready, S sleeping, D waiting for a disk, T stopped, and others; "": unknown
    cpu_seconds: float


@dataclass(slots=True)
class _Seen:
    """What was seen of one worker."""

    beat: int
    cpu_seconds: float
    silent: float = 0.0
    call: int = 0  # when the call that runs began
    calling: float = 0.0


class Watchdog:
    """Looks at the workers of one supervisor."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = perf_counter,
        thread_of: Callable[[int], Thread] | None = None,
    ) -> None:
        """`thread_of`: the main thread of a process id; read from the kernel by default."""
        self._clock, self._thread_of = clock, thread_of or main_thread
        self._stall = settings.stall_seconds
        derived = max(SHORTEST_OVERDUE, OVERDUE_DEADLINES * settings.deadline_seconds)
        self._longest_call = settings.call_seconds or derived
        self._ends_calls = bool(settings.call_seconds or settings.deadline_seconds)
        self._seen: dict[int, _Seen] = {}
        self._looked = clock()

    @property
    def on(self) -> bool:
        """Whether there is anything to look for."""
        return self._stall > 0 or self._ends_calls

    def look(self, workers: Mapping[int, memoryview]) -> dict[int, str]:
        """The workers that will not go on by themselves, and why.

        Args:
            workers: the slot of each process id.
        """
        now = self._clock()
        elapsed, self._looked = min(now - self._looked, 2 * LOOK_SECONDS), now
        self._seen = {pid: seen for pid, seen in self._seen.items() if pid in workers}
        found = {}
        for pid, values in workers.items():
            # A worker that loads its model may keep the interpreter for long.
            if values[metrics.READY] and values[metrics.BEAT] and (why := self._judge(pid, values, elapsed)):
                found[pid] = why
        return found

    def _judge(self, pid: int, values: memoryview, elapsed: float) -> str:
        thread, beat = self._thread_of(pid), values[metrics.BEAT]
        seen = self._seen.setdefault(pid, _Seen(beat, thread.cpu_seconds))
        used, seen.cpu_seconds = thread.cpu_seconds - seen.cpu_seconds, thread.cpu_seconds
        if beat != seen.beat:
            seen.beat, seen.silent = beat, 0.0
        elif not (thread.state == "D" or (thread.state == "R" and used < STARVED * elapsed)):
            seen.silent += elapsed
        call = values[metrics.CALL_SINCE]
        seen.calling = seen.calling + elapsed if call and call == seen.call else 0.0
        seen.call = call
        if self._ends_calls and seen.calling > self._longest_call:
            return f"a call of the engine has taken {seen.calling:.0f} s"
        if not self._stall or seen.silent <= self._stall:
            return ""
        if thread.state == "T":
            return f"it has been stopped for {seen.silent:.0f} s"
        if call and seen.silent <= self._longest_call:
            return ""
        return f"its event loop has not run for {seen.silent:.0f} s"


def main_thread(pid: int) -> Thread:
    """Reads /proc; where there is none, nothing is known."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/stat").read_text(encoding="latin-1")
    except OSError:
        return Thread("", 0.0)
    fields = text[text.rindex(")") + 2 :].split()
    return Thread(fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
