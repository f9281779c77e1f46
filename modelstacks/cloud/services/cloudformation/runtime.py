"""Stacks, for `status`, and custom resources: functions that CloudFormation invokes and waits for.

A function answers with a PUT to a URL. In AWS that is a signed URL of S3; here it is a path of the function's
own gateway that cannot be guessed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

from modelstacks.cloud import api
from modelstacks.cloud.account.aws_errors import refusal
from modelstacks.cloud.context import Context
from modelstacks.cloud.host.wire import Request, Response
from modelstacks.cloud.network.calls import ApiCall, Caller, may_call
from modelstacks.cloud.network.gateway import refuse
from modelstacks.cloud.runtime import Runtime, Runtimes
from modelstacks.cloud.services.cloudformation.custom_resources import ROUTE
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.lambda_.runtime import Functions
from modelstacks.core.errors import ModelstacksError

__all__ = ["CustomResources"]

RESPONSE_PATH = "/custom-resource-response/"
LONGEST_RESPONSE = 4096  # bytes, as CloudFormation takes them
PAUSE_SECONDS = 1.0  # before a control plane that does not answer is asked again
log = logging.getLogger("modelstacks.cloud")


class Stacks(Runtime):
    """The account's stacks, and what in them nothing acts upon."""

    def __init__(self, context: Context, runtimes: Runtimes) -> None:
        super().__init__(context, runtimes)
        self._unemulated: dict[str, list[api.Unemulated]] = {}

    async def reconcile(self) -> None:
        """Ask the control plane which resources it accepted without acting upon them."""
        found = await self._context.blocking(self._context.clients.unemulated)
        self._unemulated = {}
        for one in found:
            entry = api.Unemulated(type=one.type, logical_id=one.logical_id)
            self._unemulated.setdefault(one.stack, []).append(entry)

    def describe(self) -> tuple[api.Stack, ...]:
        """For `status`."""
        return tuple(
            api.Stack(
                name=one.name,
                status=one.status,
                outputs=dict(one.outputs),
                unemulated=(*self._unemulated.get(one.name, ()), *self._in_part(one.name)),
            )
            for one in self._context.account[CloudFormationSnapshot].stacks
        )

    def _in_part(self, stack: str) -> Iterator[api.Unemulated]:
        """What the runtimes say of the stack's resources."""
        members = self._context.account[CloudFormationSnapshot].members
        for one in self._runtimes:
            for physical_id, what in one.unemulated():
                member = members.get(physical_id)
                if member is not None and member.stack == stack:
                    yield api.Unemulated(type=member.type, logical_id=member.logical_id, what=what)


class CustomResources(Runtime):
    """Invokes the functions that the control plane's engine asks for, and returns their answers."""

    needs = (Functions,)

    def __init__(self, context: Context, runtimes: Runtimes) -> None:
        super().__init__(context, runtimes)
        self._functions = runtimes[Functions]
        self._jobs: set[asyncio.Task[None]] = set()
        # The secret part of each response URL -> what the function answers.
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    async def open(self) -> None:
        """Start to take questions from the control plane."""
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
            answer = await self._context.control_plane.send(Request("GET", ROUTE))
            body = await answer.read()
            if answer.status != 200:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            for question in json.loads(body):
                self._start(self._serve(question))

    async def _serve(self, question: dict[str, Any]) -> None:
        token = question["token"]
        try:
            await self._runtimes.reconcile()
            answer = await self._ask(question["function"], token, question["event"])
        except ModelstacksError as error:
            answer = {"failure": str(error)}
        except Exception as error:
            log.exception("the function of a custom resource could not be asked")
            answer = {"failure": f"internal error of the embedded cloud: {error!r}"}
        body = json.dumps(answer).encode()
        await (await self._context.control_plane.send(Request("POST", f"{ROUTE}/{token}", body=body))).read()

    async def _ask(self, arn: str, token: str, event: dict[str, Any]) -> dict[str, Any]:
        name = arn.split(":function:")[-1].partition(":")[0]
        gateway = await self._functions.make_ready(name)
        if gateway is None:
            return {"failure": f"function {arn} does not exist"}
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[token] = waiting
        try:
            payload = json.dumps({**event, "ResponseURL": f"{gateway}{RESPONSE_PATH}{token}"}).encode()
            outcome = await self._functions.invoke(name, payload)
        finally:
            del self._waiting[token]
        if waiting.done():
            return _read(waiting.result())
        said = outcome.payload.decode("utf-8", "replace")
        return {"failure": f"function {name} ended without a response to the URL that it was given: {said}"}

    async def receive(self, request: Request, caller: Caller) -> Response | None:
        """Take a function's answer, at the URL that only this function was given."""
        if not request.path.startswith(RESPONSE_PATH):
            return None
        # The URL leads to S3 in AWS, and its signature is all the permission that it takes.
        bucket = ApiCall("s3", "s3", "", "*")
        if refused := may_call(self._context.account, caller, bucket):
            return refuse(self._context, "s3", refused)
        waiting = self._waiting.get(request.path.removeprefix(RESPONSE_PATH))
        if request.method != "PUT" or waiting is None or waiting.done():
            return refusal("s3", "AccessDenied", "Access Denied", 403)
        if len(request.body) > LONGEST_RESPONSE:
            text = "Your proposed upload exceeds the maximum allowed size"
            return refusal("s3", "EntityTooLarge", text, 400)
        waiting.set_result(request.body)
        return Response(200, [])


def _read(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError as error:
        return {"failure": f"the function's response is not JSON: {error}"}
    return answer if isinstance(answer, dict) else {"failure": "the function's response is not an object"}
