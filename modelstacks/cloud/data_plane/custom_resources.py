"""Custom resources: functions that CloudFormation invokes while it makes a stack, and waits for.

A function answers by a PUT to a URL. In AWS that is a signed one of S3; here it is a port that listens for
this one answer, with a path that cannot be guessed.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from modelstacks.cloud.control_plane.custom_resources import ROUTE
from modelstacks.cloud.data_plane.context import Context
from modelstacks.cloud.data_plane.gateway import to_control_plane
from modelstacks.cloud.data_plane.lambda_ import Functions
from modelstacks.cloud.data_plane.wire import Limits, Request, Response, listen
from modelstacks.core.errors import ModelstacksError

__all__ = ["CustomResources"]

LONGEST_ANSWER = 4096  # bytes, as in CloudFormation
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

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            while True:
                answer = await to_control_plane(self._context, Request("GET", ROUTE))
                body = await answer.read()
                if answer.status != 200:
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                for question in json.loads(body):
                    job = asyncio.create_task(self._serve(question))
                    self._jobs.add(job)
                    job.add_done_callback(self._jobs.discard)
        finally:
            for job in self._jobs:
                job.cancel()

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
        if not await self._functions.make_ready(name):
            return {"failure": f"function {arn} does not exist"}
        answered: list[dict[str, Any]] = []

        async def receive(request: Request) -> Response:
            if request.method != "PUT" or not hmac.compare_digest(
                request.path.encode(), f"/{token}".encode()
            ):
                return Response(403, [])
            answered.append(_read(request.body))
            return Response(200, [])

        listener = await listen(receive, limits=Limits(body=LONGEST_ANSWER))
        try:
            url = f"http://127.0.0.1:{listener.port}/{token}"
            payload = json.dumps({**event, "ResponseURL": url}).encode()
            outcome = await self._functions.invoke(name, payload)
        finally:
            await listener.close()
        if answered:
            return answered[0]
        said = outcome.payload.decode("utf-8", "replace")
        return {"failure": f"function {name} ended without a response to the URL that it was given: {said}"}


def _read(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError as error:
        return {"failure": f"the function's response is not JSON: {error}"}
    return answer if isinstance(answer, dict) else {"failure": "the function's response is not an object"}
