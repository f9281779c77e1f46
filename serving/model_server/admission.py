"""Which requests may wait for the engine, decided when they arrive.

A request is worth a place in the queue if its answer will still be of use. Two bounds say whether it will:

- Its deadline: what waits, what runs and its own call together must end before its caller gives up.
- The delay: what load adds to the time that the request would take on an idle engine. A burst may add several
  calls' time, since an idle moment will work it off. Under an overload that lasts no idle moment comes, every
  further place in the queue only makes all answers later, and the bound falls to less than one call's time.

Burst and overload are told apart by the debt: the engine's time that refused requests would have taken, less
the time in which the engine had nothing to do and would have done that work. A burst leaves little debt, and
idle moments pay it; under overload the debt grows until the load falls. A server that is offered just what it
can take refuses a few requests, too, and must not take that for an overload: some debt is without effect, and
busy time pays a part of it.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

# Seconds of a call that was never made.
UNKNOWN = 1.0
# A delay below this is never a reason to refuse: a pause of the machine or of the collector is as long.
SHORTEST_TARGET = 0.02
# In calls' times: the delay that lasting overload may add, where a request has a call to itself and where it
# shares one (it waits for the end of the call before its own); the delay that a burst may add; the debt that
# has no effect; the most debt beyond that.
TARGET_CALLS = 0.75
TARGET_SHARED_CALLS = 1.25
BURST_CALLS = 4.0
SLACK_CALLS = 4.0
DEBT_CALLS = 3.0
# How much faster than the debt grows the allowed delay falls.
PAYMENT = 2.0
# A queue stands still where, for so many calls' time, its wait was never below SHORT_CALLS and changed by
# less than STILL_CALLS. Each further call adds STANDING_DEBT calls of debt.
STANDING_CALLS = 20.0
SHORT_CALLS = 0.25
STILL_CALLS = 1.75
STANDING_DEBT = 0.5
LENIENCY = 4 / 3
# The part of a busy second that pays debt. A server is refusing too few requests to be overloaded where they
# would have kept it busy for less than this.
FORGIVEN = 0.2
# An unknown call of twice the size is expected to take this much longer: a batch costs more than one row and
# less than its rows one by one. Guessed too low, the first such call corrects it.
GROWTH = math.sqrt(2)
LONGEST_RETRY_AFTER = 60


class ServiceTimes:
    """Seconds of an engine's calls by their size, in powers of two."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = [UNKNOWN] * 64  # read by the batcher for each call

    def learn(self, size: int, seconds: float) -> None:
        """One call took so long."""
        bucket = size.bit_length()
        known = self.seconds[bucket]
        # One slow call among quick ones (the machine was busy) says little, several in a row say much.
        if known != UNKNOWN:
            seconds = known + 0.2 * (min(seconds, 4 * known) - known)
        self.seconds[bucket] = seconds

    def estimate(self, size: int) -> float:
        """What a call of this size will take; 0 while nothing is known."""
        bucket = size.bit_length()
        seconds = self.seconds[bucket]
        if seconds != UNKNOWN:
            return seconds
        for distance in range(1, len(self.seconds)):
            if bucket >= distance and (seconds := self.seconds[bucket - distance]) != UNKNOWN:
                return float(seconds * GROWTH**distance)
            if bucket + distance < len(self.seconds) and (
                (seconds := self.seconds[bucket + distance]) != UNKNOWN
            ):
                return float(seconds / GROWTH**distance)
        return 0.0

    def of_one_more(self, size: int, more: int) -> float:
        """What a call of this size takes longer for so much more in it."""
        below = size // 2
        if not below:
            return self.estimate(more)
        return max(0.0, self.estimate(size) - self.estimate(below)) * more / (size - below)


class Ledger(Protocol):
    """The debts of a replica's workers.

    What overloads one of them is seen by all, or those that get just as much as they can take would have a
    burst's queue for good.
    """

    def owe(self, seconds: float) -> None:
        """This worker's debt beyond the slack, from now on."""

    def most_owed(self) -> float:
        """The largest debt of all."""


class Admission:
    """The delay that requests may have, from what was refused and from when the engine was idle.

    Every `now` is seconds of one clock that only goes forward. `call` is a call's seconds.
    """

    __slots__ = (
        "_debt",
        "_floor",
        "_ledger",
        "_settled",
        "_slack",
        "_target",
        "_target_calls",
        "_waits",
    )

    def __init__(
        self, ledger: Ledger, *, target: float = 0.0, company: float = 0.0, shared: bool = False
    ) -> None:
        """Start without a debt.

        Args:
            target: the delay in seconds allowed under lasting overload; 0 derives it from the calls.
            company: seconds that a batch waits to be filled even on an idle engine.
            shared: whether requests share calls.
        """
        self._ledger = ledger
        self._target = target
        self._target_calls = TARGET_SHARED_CALLS if shared else TARGET_CALLS
        self._floor = SHORTEST_TARGET + company
        self._debt = self._slack = 0.0
        self._settled = 0.0
        self._waits: deque[tuple[float, float]] = deque()  # when, and how long, since one was short

    def settle(self, now: float, *, busy: bool) -> None:
        """The engine was busy, or idle, since the last time this was said."""
        if self._debt:
            elapsed = now - self._settled
            self._debt = max(0.0, self._debt - (FORGIVEN * elapsed if busy else elapsed))
            self._owe()
        self._settled = now

    def target(self, call: float) -> float:
        """The delay that is allowed however long the load lasts."""
        return self._target or max(self._floor, self._target_calls * call)

    def limit(self, call: float) -> float:
        """The delay that is allowed now."""
        burst = BURST_CALLS * max(self._floor, call)
        return max(self.target(call), burst - PAYMENT * self._ledger.most_owed())

    @property
    def overloaded(self) -> bool:
        """Whether more requests were refused lately than the engine has found time to make up for."""
        return self._ledger.most_owed() > 0

    def too_late(self, waited: float, call: float) -> bool:
        """Whether a request should not be served after all: the burst that it came with was an overload.

        It may have waited for somewhat longer than foreseen, as calls are not all equally long.
        """
        return self.overloaded and waited > LENIENCY * self.limit(call)

    def waited(self, seconds: float, now: float, call: float) -> None:
        """Takes note of how long the next request, if there is one, has waited.

        Arrivals by chance let a queue grow and shrink. One that stands still is kept at its length: by
        callers that wait for their answers before they ask again, or by something in front that lets a
        number of requests through. Nothing may be refused here, but it is an overload all the same.
        """
        call, waits = max(self._floor, call), self._waits
        if seconds <= SHORT_CALLS * call:
            waits.clear()
            return
        waits.append((now, seconds))
        begin = now - STANDING_CALLS * call
        while len(waits) > 1 and waits[1][0] <= begin:
            waits.popleft()
        if waits[0][0] > begin:
            return
        values = [wait for _, wait in waits]
        if max(values) - min(values) < STILL_CALLS * call:
            self.refused(STANDING_DEBT * call, call)

    def refused(self, seconds: float, call: float) -> None:
        """A request was refused that would have taken so many of the engine's seconds."""
        call = max(self._floor, call)
        self._slack = SLACK_CALLS * call
        self._debt = min(self._debt + seconds, self._slack + DEBT_CALLS * call)
        self._owe()

    def retry_after(self, delay: float, call: float) -> int:
        """Whole seconds until such a request has a chance: what waits is done, and the debt is paid."""
        return max(
            1, min(LONGEST_RETRY_AFTER, math.ceil(delay - self.target(call) + self._ledger.most_owed()))
        )

    def _owe(self) -> None:
        self._ledger.owe(max(0.0, self._debt - self._slack))
