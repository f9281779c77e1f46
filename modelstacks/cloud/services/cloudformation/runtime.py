"""Custom resources: functions that CloudFormation invokes while it makes a stack, and waits for.

A function answers by a PUT to a URL. In AWS that is a signed one of S3; here it is a path of the function's
own gateway that cannot be guessed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from modelstacks.cloud.context import Context
from modelstacks.cloud.host.wire import Request
from modelstacks.cloud.network.gateway import RESPONSE_PATH, to_control_plane
from modelstacks.cloud.services.cloudformation.custom_resources import ROUTE
from modelstacks.cloud.services.lambda_.runtime import Functions
from modelstacks.core.errors import ModelstacksError

__all__ = ["CustomResources"]

PAUSE_SECONDS = 1.0  # before a control plane that does not answer is asked again
log = logging.getLogger("modelstacks.cloud")


class CustomResources:
    """Invokes what the control plane's engine asks for, and brings the answers back.

    Args:
        reconcile: reads the account back; the function may have been made a moment ago.
    """

    def __init__(
        self, context: Context, functions: Functions, reconcile: Callable[[], Awaitable[None]]
    ) -> None:
        self._context, self._functions, self._reconcile = context, functions, reconcile
        self._jobs: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Start to take what is asked."""
        self._start(self._take())

    async def close(self) -> None:
        """Leave what is asked unanswered."""
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    def _start(self, work: Any) -> None:
        job: asyncio.Task[None] = asyncio.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _take(self) -> None:
        while True:
            answer = await to_control_plane(self._context, Request("GET", ROUTE))
            body = await answer.read()
            if answer.status != 200:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            for question in json.loads(body):
                self._start(self._serve(question))

    async def _serve(self, question: dict[str, Any]) -> None:
        token = question["token"]
        try:
            await self._reconcile()
            answer = await self._ask(question["function"], token, question["event"])
        except ModelstacksError as error:
            answer = {"failure": str(error)}
        except Exception as error:
            log.exception("the function of a custom resource could not be asked")
            answer = {"failure": f"internal error of the embedded cloud: {error!r}"}
        body = json.dumps(answer).encode()
        await (await to_control_plane(self._context, Request("POST", f"{ROUTE}/{token}", body=body))).read()

    async def _ask(self, arn: str, token: str, event: dict[str, Any]) -> dict[str, Any]:
        name = arn.split(":function:")[-1].partition(":")[0]
        gateway = await self._functions.make_ready(name)
        if gateway is None:
            return {"failure": f"function {arn} does not exist"}
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._context.responses[token] = waiting
        try:
            payload = json.dumps({**event, "ResponseURL": f"{gateway}{RESPONSE_PATH}{token}"}).encode()
            outcome = await self._functions.invoke(name, payload)
        finally:
            del self._context.responses[token]
        if waiting.done():
            return _read(waiting.result())
        said = outcome.payload.decode("utf-8", "replace")
        return {"failure": f"function {name} ended without a response to the URL that it was given: {said}"}


def _read(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError as error:
        return {"failure": f"the function's response is not JSON: {error}"}
    return answer if isinstance(answer, dict) else {"failure": "the function's response is not an object"}
