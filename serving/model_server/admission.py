"""Which requests may wait for the engine, decided when they arrive.

A request is worth a place in the queue if its answer will still be of use. Two bounds say whether it will:

- Its deadline: what waits, what runs and its own call together must end before its caller gives up.
- The delay: what load adds to the time that the request would take on an idle engine. A burst may add several
  calls' time, since an idle moment will work it off. Under an overload that lasts no idle moment comes, every
  further place in the queue only makes all answers later, and the bound falls to less than one call's time.

Burst and overload are told apart by the debt: the engine's time that refused requests would have taken, less
the time in which the engine had nothing to do and would have done that work. A burst leaves little debt, and
idle moments pay it; under overload the debt grows until the load falls.
"""

from __future__ import annotations

import math
from typing import Protocol

UNKNOWN = 1.0  # seconds of a call that was never made
# A delay below this is never a reason to refuse: a pause of the machine or of the collector is as long.
SHORTEST_TARGET = 0.02
# In calls' times: the delay that lasting overload may add, where a request has a call to itself and where it
# shares one (it waits for the end of the call before its own); the delay that a burst may add; the most debt.
TARGET_CALLS = 0.75
TARGET_SHARED_CALLS = 1.25
BURST_CALLS = 4.0
DEBT_CALLS = 3.0
PAYMENT = 2.0  # how much sooner than the debt itself the bound falls
LASTING_CALLS = 6.0  # a queue that is never short for so many calls' time is no burst
LENIENCY = 4 / 3
FORGIVEN = 0.1  # of a busy second: a queue that is only just too long is not an overload
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

    Their connections share the load unevenly: what overloads one of them is seen by all, or those that get
    just as much as they can take would have a burst's queue for good.
    """

    def owe(self, seconds: float) -> None:
        """This worker's debt, from now on."""

    def most_owed(self) -> float:
        """The largest debt of all."""


class Admission:
    """The delay that requests may have, from what was refused and from when the engine was idle.

    Every `now` is seconds of one clock that only goes forward. `call` is a call's seconds.
    """

    __slots__ = ("_debt", "_floor", "_ledger", "_long_since", "_settled", "_target", "_target_calls")

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
        self._debt = 0.0
        self._settled = 0.0
        self._long_since = math.inf  # the wait has been above the target

    def settle(self, now: float, *, busy: bool) -> None:
        """The engine was busy, or idle, since the last time this was said."""
        if self._debt:
            elapsed = now - self._settled
            self._debt = max(0.0, self._debt - (FORGIVEN * elapsed if busy else elapsed))
            self._ledger.owe(self._debt)
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
        """Whether requests were refused lately that the engine has found no time to make up for."""
        return self._ledger.most_owed() > 0

    def too_late(self, waited: float, call: float) -> bool:
        """Whether a request should not be served after all: the burst that it came with was an overload.

        It may have waited for somewhat longer than foreseen, as calls are not all equally long.
        """
        return self.overloaded and waited > LENIENCY * self.limit(call)

    def waited(self, seconds: float, now: float, call: float) -> None:
        """The next request, if there is one, has waited so long.

        Callers that wait for their answers before they ask again keep a queue as long as they are many, and
        none is refused: that is no burst either once it lasts.
        """
        if seconds <= self.target(call):
            self._long_since = math.inf
            return
        self._long_since = min(self._long_since, now)
        if now - self._long_since > LASTING_CALLS * max(self._floor, call):
            self.refused(math.inf, call)

    def refused(self, seconds: float, call: float) -> None:
        """A request was refused that would have taken so many of the engine's seconds."""
        self._debt = min(self._debt + seconds, DEBT_CALLS * max(self._floor, call))
        self._ledger.owe(self._debt)

    def retry_after(self, delay: float, call: float) -> int:
        """Whole seconds until such a request has a chance: what waits is done, and the debt is paid."""
        return max(
            1, min(LONGEST_RETRY_AFTER, math.ceil(delay - self.target(call) + self._ledger.most_owed()))
        )
