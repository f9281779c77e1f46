"""The data plane's end of the channel to the control plane, for changes of the account and workload reports.

account/channel.py describes the channel. The data plane reads everything else about the account through
boto3.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from modelstacks.cloud.account.channel import Report
from modelstacks.cloud.host.wire import Request, Response

__all__ = ["Channel"]

POLL_SECONDS = 20.0
RETRY_SECONDS = 0.5
JSON = [("content-type", "application/json")]
log = logging.getLogger("modelstacks.cloud")


class Channel:
    """Talks to the control plane through `send`, which forwards a request and returns the response."""

    def __init__(self, send: Callable[[Request], Awaitable[Response]]) -> None:
        self._send = send
        self._heard = 0
        self._told: dict[str, Report] = {}
        self._untold: list[Report] = []
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Announce the data plane, then call `changed` whenever the account changes."""
        await self._post([])
        self._tasks = [asyncio.create_task(self._listen(changed)), asyncio.create_task(self._report())]

    async def close(self) -> None:
        """Stop listening and reporting."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def tell(self, report: Report) -> None:
        """Send a workload's report, unless it equals the workload's last one."""
        if self._told.get(report.arn) != report:
            self._told[report.arn] = report
            self._untold.append(report)
            self._news.set()

    async def _listen(self, changed: Callable[[], Awaitable[None]]) -> None:
        while True:
            query = f"after={self._heard}&seconds={POLL_SECONDS:g}"
            answer = await self._send(Request("GET", "/_modelstacks/changes", query))
            body = await answer.read()
            if answer.status != 200:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            before, self._heard = self._heard, int(json.loads(body)["version"])
            if self._heard != before:
                await changed()

    async def _report(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            reports, self._untold = self._untold, []
            # Until the control plane accepts them: it sends no event when it is back.
            while not await self._post(reports):  # noqa: ASYNC110
                await asyncio.sleep(RETRY_SECONDS)

    async def _post(self, reports: list[Report]) -> bool:
        body = json.dumps([asdict(one) for one in reports]).encode()
        request = Request("POST", "/_modelstacks/workloads", headers=list(JSON), body=body)
        answer = await self._send(request)
        await answer.read()
        if answer.status != 200:
            log.warning("the control plane answered %s to a report", answer.status)
        return answer.status == 200
