"""The order of one stack operation: what may begin, what is waited for, and when to stop.

A resource that is not stable at once holds up only the resources that depend on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

__all__ = ["InterruptedByUserError", "Pace", "Unhurried", "Waited", "carry_out"]

_REST_SECONDS = 0.05


class InterruptedByUserError(Exception):
    """CancelUpdateStack or DeleteStack ended the operation."""

    def __init__(self) -> None:
        super().__init__("User Initiated")


class Waited(Protocol):
    """A resource that was created or updated and is not stable yet."""

    def stable(self) -> bool:
        """Whether it is stable now. Raises where it never will be."""

    def cancel(self) -> None:
        """It is not waited for any longer."""


class Pace(Protocol):
    """How an operation waits."""

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""

    def check(self) -> None:
        """Raises InterruptedByUserError where a user has ended the operation."""

    def rest(self, *, began: bool) -> None:
        """Everything that can begin has begun: wait until something may have become stable.

        `began` tells whether anything has begun since the last rest.
        """

    def until_restored(self) -> Pace:
        """The pace of a rollback: only DeleteStack ends it."""


class Unhurried:
    """A pace that nobody interrupts."""

    def now(self) -> float:
        """The system's monotonic clock."""
        return time.monotonic()

    def check(self) -> None:
        """Never raises."""

    def rest(self, *, began: bool) -> None:
        """Wait a moment."""
        time.sleep(_REST_SECONDS)

    def until_restored(self) -> Pace:
        """The same pace."""
        return self


def carry_out(needs: Mapping[str, set[str]], begin: Callable[[str], Waited | None], pace: Pace) -> None:
    """Begin each key of `needs` once everything that it needs is stable; return when all of them are.

    `begin` returns None for a resource that is stable at once. What it or `Waited.stable` raises ends the
    operation; what is still waited for is cancelled.
    """
    todo = dict.fromkeys(needs)
    waiting: dict[str, Waited] = {}

    def ready() -> str | None:
        return next((one for one in todo if not any(it in todo or it in waiting for it in needs[one])), None)

    began = False
    try:
        while todo or waiting:
            pace.check()
            if (name := ready()) is not None:
                del todo[name]
                began = True
                if (begun := begin(name)) is not None:
                    waiting[name] = begun
            elif not (stable := [name for name in list(waiting) if _is_stable(waiting, name)]):
                pace.rest(began=began)
                began = False
            else:
                for name in stable:
                    del waiting[name]
    except BaseException:
        for one in waiting.values():
            one.cancel()
        raise


def _is_stable(waiting: dict[str, Waited], name: str) -> bool:
    try:
        return waiting[name].stable()
    except BaseException:
        del waiting[name]  # it has failed by itself: there is nothing to cancel
        raise
