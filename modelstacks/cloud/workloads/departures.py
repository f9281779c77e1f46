"""Workloads that the account no longer has, while they are being stopped."""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["Departures"]


class Departing(Protocol):
    """What can be stopped."""

    async def close(self) -> None:
        """Stop every replica, each after the requests that it has."""

    def hurry(self) -> None:
        """Wait for no request any more."""


class Departures:
    """Stops workloads without holding up whoever follows the account."""

    def __init__(self) -> None:
        self._leaving: dict[asyncio.Task[None], Departing] = {}

    def begin(self, workload: Departing) -> None:
        """Stop a workload; return at once."""
        task = asyncio.create_task(workload.close())
        self._leaving[task] = workload
        task.add_done_callback(lambda done: self._leaving.pop(done, None))

    async def finish(self) -> None:
        """Return when all are stopped, without waiting for the requests that they have."""
        for workload in self._leaving.values():
            workload.hurry()
        await asyncio.gather(*self._leaving)
