"""Lambda functions: each is a workload of the rollout machine whose replicas start on demand.

A replica is an execution environment (environments.py). A new version of a function takes over at once; the
old version's environments finish the invocations that they have. Layers and container images are not run.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import unquote
from uuid import uuid4

from modelstacks.cloud import api
from modelstacks.cloud.account.aws_errors import refusal
from modelstacks.cloud.account.channel import Report
from modelstacks.cloud.context import Context
from modelstacks.cloud.host.wire import Request, Response
from modelstacks.cloud.network.reasons import trace_root
from modelstacks.cloud.runtime import Runtime, Runtimes
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.lambda_.environments import (
    Environment,
    Environments,
    InitFailedError,
    failed,
)
from modelstacks.cloud.services.lambda_.outcome import Outcome, Throttled
from modelstacks.cloud.services.lambda_.packages import RuntimePackages
from modelstacks.cloud.services.lambda_.snapshot import Function, LambdaSnapshot
from modelstacks.cloud.workloads import kind as workloads
from modelstacks.cloud.workloads.departures import Departures
from modelstacks.cloud.workloads.kind import Goal, OnDemand, Share, StartFailedError, Terms, Unit
from modelstacks.cloud.workloads.machine import Workload
from modelstacks.cloud.workloads.policies import Bounds, Counters, Policy
from modelstacks.core.errors import ModelstacksError

__all__ = ["MOST_ENVIRONMENTS", "Functions"]

# The account's concurrency. Each takes some 50 MB: these are about as many as a laptop can bear.
MOST_ENVIRONMENTS = 20
ENVIRONMENTS = "environments"  # the one group of a function's replicas
INVOCATION = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")
# Lambda's words for a throttled invocation.
THROTTLED: Mapping[Throttled, str] = {
    "function": "ReservedFunctionConcurrentInvocationLimitExceeded",
    "account": "ConcurrentInvocationLimitExceeded",
}
#: AWS does not say after how long an idle environment ends; recorded runs say 5 to 45 minutes.
IDLE_SECONDS = 900.0


class Functions(Runtime):
    """Every Lambda function of the account."""

    def __init__(self, context: Context, runtimes: Runtimes) -> None:
        super().__init__(context, runtimes)
        self._functions: dict[str, _Function] = {}
        self._departures = Departures()
        self.packages = RuntimePackages(context.state.work / "lambda-runtime")

    async def reconcile(self) -> None:
        """Make ready the functions that are new or changed; end those that are gone."""
        functions = self._context.account[LambdaSnapshot].functions
        for name in [name for name in self._functions if name not in functions]:
            self._departures.begin(self._functions.pop(name))
        await asyncio.gather(*map(self._follow, functions.values()))

    async def make_ready(self, name: str) -> str | None:
        """Make one function ready, though its stack is still being made.

        Returns the address of its gateway, the only one that it can reach, or None where there is no such
        function.
        """
        function = self._context.account[LambdaSnapshot].functions.get(name)
        if function is None:
            return None
        await self._follow(function)
        return self._functions[name].gateway_url()

    async def _follow(self, function: Function) -> None:
        name = function.name
        if name not in self._functions:
            self._functions[name] = _Function(self._context, self._runtimes, self.packages, function)
        await self._functions[name].follow(function)

    async def close(self) -> None:
        """End every environment."""
        for one in self._functions.values():
            self._departures.begin(one)
        self._functions.clear()
        await self._departures.finish()

    def workloads(self) -> list[api.Workload]:
        """For `status`."""
        return [one.describe() for one in self._functions.values()]

    async def answer(self, request: Request, service: str) -> Response | None:
        """Answer Invoke, of the synchronous kind."""
        called = INVOCATION.fullmatch(request.path)
        if service != "lambda" or called is None or request.method != "POST":
            return None
        kind = request.header("x-amz-invocation-type") or "RequestResponse"
        if kind != "RequestResponse":
            text = f"the embedded cloud invokes functions with RequestResponse, not {kind}"
            return refusal("lambda", "InvalidParameterValueException", text, 400)
        name = unquote(called[1]).split(":function:")[-1].partition(":")[0]
        account = self._context.account
        if name not in account[LambdaSnapshot].functions:
            text = f"Function not found: arn:aws:lambda:{account.region}:{account.id}:function:{name}"
            return refusal("lambda", "ResourceNotFoundException", text, 404)
        outcome = await self.invoke(name, request.body)
        if outcome.throttled:
            return refusal("lambda", "TooManyRequestsException", "Rate Exceeded.", 429)
        headers = [("content-type", "application/json"), ("x-amz-executed-version", "$LATEST")]
        headers += [("x-amz-function-error", "Unhandled")] if outcome.error else []
        return Response(200, headers, outcome.payload)

    async def invoke(self, name: str, payload: bytes, trace: str | None = None) -> Outcome:
        """Invoke a function and wait for what it returns. Raises KeyError for an unknown one.

        `trace` is the X-Ray header of the request that it serves; the SDK in the function sends it on.
        """
        root = trace_root(trace) or f"1-{int(time.time()):08x}-{uuid4().hex[:24]}"
        return await self._functions[name].invoke(payload, root)


class _Function:
    """One function: what the machine asks about it, what it tells, and how it is invoked."""

    def __init__(
        self, context: Context, runtimes: Runtimes, packages: RuntimePackages, function: Function
    ) -> None:
        self._context, self._runtimes = context, runtimes
        self._packages, self._function = packages, function
        self._workload = Workload(function.name, self, runtimes.following)
        self.running = 0  # invocations

    async def follow(self, function: Function) -> None:
        """Make the newest version ready; one that was rejected is tried again."""
        self._function = function
        blueprint = replace(function, code_location="", policy=None, reserved_concurrency=None, revision="")
        goal = Goal(
            generation=repr(blueprint),
            blueprint=blueprint,
            groups={ENVIRONMENTS: Share(0, on_demand=OnDemand(IDLE_SECONDS))},
            terms=Terms(drain=function.timeout),
        )
        make = lambda: Environments(self._context, self._runtimes, self._packages, function)  # noqa: E731
        await self._workload.follow(goal, make, again=True)
        await self._workload.prepared()
        self._tell()

    def _tell(self) -> None:
        """Report whether the newest version can be invoked: Lambda and CloudFormation wait for it."""
        workload, function = self._workload, self._function
        if workload.state != "starting":
            reason = workload.reason or ""
            report = Report("lambda-function", function.arn, function.revision, workload.state, reason=reason)
            self._context.report(report)

    def hurry(self) -> None:
        """Wait for no request any more."""
        self._workload.hurry()

    async def close(self) -> None:
        """End its environments."""
        await self._workload.close()

    def gateway_url(self) -> str:
        """The address of its way to AWS; empty where no version of it is ready."""
        active = self._workload.active
        return active.maker.gateway.url if active and isinstance(active.maker, Environments) else ""

    def describe(self) -> api.Workload:
        """For `status`."""
        workload, function = self._workload, self._function
        return api.Workload(
            kind="lambda-function",
            name=function.name,
            stack=self._context.account[CloudFormationSnapshot].owner(function.name, function.arn),
            desired=0,
            state=workload.state,
            reason=workload.reason,
            replicas=tuple(one.describe() for one in workload.replicas()),
        )

    # --- what the machine tells and asks ----------------------------------------------------------

    def changed(self) -> None:
        """Something that `status` shows is different."""
        self._context.changed()

    def report(self, outcome: workloads.Outcome) -> None:
        """The function's state is reported, and not the outcome: an update may change no environment."""
        del outcome
        self._tell()

    def bounds(self, group: str) -> Bounds | None:
        """Its concurrency scales it: an environment starts for each invocation that finds none idle."""
        del group
        return None

    def policies(self, group: str) -> Sequence[Policy]:
        """See `bounds`."""
        del group
        return ()

    def counters(self, group: str, healthy: Sequence[Unit]) -> Counters:
        """What its invocations were."""
        load = self._workload.load(group)
        now = asyncio.get_running_loop().time()
        return Counters(now, len(healthy), load.requests, load.seconds())

    async def set_desired(self, group: str, count: int) -> None:
        """See `bounds`."""

    # --- invocations ------------------------------------------------------------------------------

    async def invoke(self, payload: bytes, trace: str) -> Outcome:
        """Invoke it, unless its concurrency is used up."""
        name = self._function.name
        with self._context.traffic.passing(f"lambda {name}") as counter:
            if self._workload.active is None:
                return failed("Runtime.Unavailable", self._workload.reason or "the function is not ready yet")
            if why := self._over_the_limit():
                counter.refusals += 1
                return Outcome(json.dumps({"Reason": THROTTLED[why]}).encode(), throttled=why)
            self.running += 1
            try:
                if delay := self._context.faults.latency(name):
                    await asyncio.sleep(delay)
                outcome = await self._run(payload, trace)
            finally:
                self.running -= 1
            counter.errors += outcome.error
            return outcome

    def _over_the_limit(self) -> Throttled:
        """Which concurrency is used up; empty where one more invocation may run.

        In AWS no invocation waits for another. A queue here would hide an overload from the caller.
        """
        reserved = self._function.reserved_concurrency
        if reserved is not None and self.running >= reserved:
            return "function"
        return "account" if self.running >= MOST_ENVIRONMENTS else ""

    async def _run(self, payload: bytes, trace: str) -> Outcome:
        """Run an invocation in an environment of the version that is active when it gets one."""
        try:
            while (active := self._workload.active) is not None:
                async with active.groups[ENVIRONMENTS].leased() as member:
                    if member is None:  # the version was replaced while the environment started
                        continue
                    assert isinstance(member.unit, Environment)
                    return await member.unit.invoke(payload, trace)
        except InitFailedError as error:
            return error.outcome
        except (StartFailedError, ModelstacksError) as error:
            return failed("Runtime.Unavailable", str(error))
        return failed("Runtime.Unavailable", "the function was deleted")
