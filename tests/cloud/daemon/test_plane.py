"""The data plane goes on following the account, whatever one reading of it meets."""

from __future__ import annotations

import asyncio
from typing import Any

from modelstacks.cloud.daemon.plane import DataPlane
from modelstacks.core.errors import EnvironmentFault


class FailingRuntimes:
    """Runtimes whose next reconciliations raise these errors, or succeed where there is None."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self._outcomes = list(outcomes)

    async def open(self) -> None:
        return

    async def reconcile(self) -> None:
        if outcome := self._outcomes.pop(0):
            raise outcome


class FakeChannel:
    """Keeps what is to be called when the account has changed."""

    async def open(self, changed: Any) -> None:
        self.changed = changed


async def followed(*outcomes: Exception | None) -> tuple[DataPlane, FakeChannel]:
    channel: Any = FakeChannel()
    runtimes: Any = FailingRuntimes(None, *outcomes)
    context: Any = object()
    plane = DataPlane(context, runtimes, channel)
    await plane.follow()
    return plane, channel


def test_a_defect_is_shown_until_a_later_change_is_followed() -> None:
    async def main() -> None:
        plane, channel = await followed(KeyError("LoadBalancers"), None)
        await channel.changed()
        assert plane.problem is not None
        assert "cannot follow what was deployed: KeyError: 'LoadBalancers'" in plane.problem
        assert "daemon.log" in plane.problem
        await channel.changed()
        assert plane.problem is None

    asyncio.run(main())


def test_an_account_that_cannot_be_read_for_a_moment_is_no_problem() -> None:
    async def main() -> None:
        plane, channel = await followed(EnvironmentFault("the control plane does not answer"))
        await channel.changed()
        assert plane.problem is None

    asyncio.run(main())
