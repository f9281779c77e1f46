"""Execution environments: the deployed zip, run by AWS's own runtime client against a Runtime API.

An environment is a process; it takes one invocation at a time, stays warm, and ends when an invocation
exceeds the function's timeout. It sees boto3 and the zip, and no other package of this machine.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from modelstacks.adapters.sandbox import Policy, interpreter_paths
from modelstacks.cloud.context import Context
from modelstacks.cloud.host.listener import Listener, listen
from modelstacks.cloud.host.replicas import REPLICA_LIMITS, Command, Replica, log_path
from modelstacks.cloud.host.wire import Request, Response
from modelstacks.cloud.network import policies
from modelstacks.cloud.network.calls import ApiCall, Caller, may_call
from modelstacks.cloud.network.gateway import Gateway
from modelstacks.cloud.runtime import Runtimes
from modelstacks.cloud.services.iam.snapshot import IamSnapshot
from modelstacks.cloud.services.lambda_.outcome import Outcome
from modelstacks.cloud.services.lambda_.packages import RuntimePackages, unpacked
from modelstacks.cloud.services.lambda_.snapshot import Function
from modelstacks.cloud.workloads.kind import GivenUp, Sick, StartFailedError
from modelstacks.core.errors import DeploymentFailed

__all__ = ["Environment", "Environments", "InitFailedError", "failed"]

STOP_SECONDS = 2.0
# Lambda gives the init phase ten seconds beside the function's timeout; a busy laptop needs more.
INIT_SECONDS = 30.0
# Without the virtual environment, whose packages are this machine's own.
PYTHON = str(Path(sys.executable).resolve())
NEXT = "/2018-06-01/runtime/invocation/next"
JSON = [("content-type", "application/json")]


class InitFailedError(StartFailedError):
    """An environment did not come up; `outcome` is the answer to the invocation that it was started for."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.payload.decode("utf-8", "replace"))
        self.outcome = outcome


def failed(kind: str, message: str) -> Outcome:
    """An invocation that failed, as Lambda answers it."""
    return Outcome(json.dumps({"errorType": kind, "errorMessage": message}).encode(), error=True)


@dataclass(slots=True)
class _Invocation:
    payload: bytes
    trace: str
    deadline: float  # seconds since the epoch
    done: asyncio.Future[Outcome]
    id: str = field(default_factory=lambda: str(uuid4()))


class Environment:
    """One execution environment: its process and its Runtime API."""

    def __init__(self, function: Function, replica: Replica) -> None:
        self._function, self.replica = function, replica
        self._current: _Invocation | None = None
        self._handed = asyncio.Event()
        self.initialised: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._listener: Listener | None = None
        self.sick: Sick | None = None

    @property
    def replicas(self) -> Sequence[Replica]:
        """Its process."""
        return (self.replica,)

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.replica.alive

    @property
    def healthy(self) -> bool:
        """Whether it takes invocations."""
        return self.replica.state == "healthy" and self.sick is None

    @property
    def cause(self) -> str:
        """Its last words."""
        return self.replica.reason or ""

    async def withdraw(self) -> None:
        """It gets no invocations but those that it was leased for."""

    async def stop(self) -> None:
        """End its process, and its Runtime API with it."""
        await self.replica.stop(STOP_SECONDS)
        self._handed.set()
        if self._listener is not None:
            await self._listener.close()

    async def open(self) -> str:
        """Serve the Runtime API; its address as AWS_LAMBDA_RUNTIME_API."""
        self._listener = await listen(self._serve)
        return f"127.0.0.1:{self._listener.port}"

    async def invoke(self, payload: bytes, trace: str) -> Outcome:
        """Run one invocation. After a timeout the environment is of no more use."""
        timeout = self._function.timeout
        loop = asyncio.get_running_loop()
        invocation = _Invocation(payload, trace, time.time() + timeout, loop.create_future())
        started = time.perf_counter()
        self._say(f"START RequestId: {invocation.id} Version: $LATEST")
        self._current = invocation
        self._handed.set()
        try:
            outcome = await asyncio.wait_for(asyncio.shield(invocation.done), timeout)
        except TimeoutError:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
            self._say(f"{now} {invocation.id} Task timed out after {timeout:.2f} seconds")
            text = f"RequestId: {invocation.id} Error: Task timed out after {timeout:.2f} seconds"
            outcome = failed("Sandbox.Timedout", text)
            self._spoil()
        except BaseException:
            self._spoil()
            raise
        elapsed = (time.perf_counter() - started) * 1000
        self._say(
            f"END RequestId: {invocation.id}\n"
            f"REPORT RequestId: {invocation.id}\tDuration: {elapsed:.2f} ms"
            f"\tMemory Size: {self._function.memory} MB"
        )
        return outcome

    def _spoil(self) -> None:
        """Take no more invocations: the process is still busy with one that nobody waits for."""
        self._current = None
        self.sick = Sick("an invocation exceeded the function's timeout", lasting=True)

    def died(self) -> None:
        """Answer for a process that ended in the middle."""
        code = self.replica.exit_code or 0
        how = f"signal: {-code}" if code < 0 else f"exit status {code}"
        request = f"RequestId: {self._current.id} " if self._current is not None else ""
        outcome = failed("Runtime.ExitError", f"{request}Error: Runtime exited with error: {how}")
        self._up(outcome)
        self._finish(outcome)

    def _up(self, outcome: Outcome | None) -> None:
        """The init phase is over; an outcome says that it failed."""
        if not self.initialised.done():
            self.initialised.set_result(outcome)

    def _finish(self, outcome: Outcome) -> None:
        if self._current is not None and not self._current.done.done():
            self._current.done.set_result(outcome)
        self._current = None

    def _say(self, text: str) -> None:
        """Write into the environment's log as Lambda itself does."""
        with self.replica.log.open("a") as log:
            log.write(text + "\n")

    async def _serve(self, request: Request) -> Response:
        """The Runtime API."""
        if request.method == "GET" and request.path == NEXT:
            self._up(None)
            await self._handed.wait()
            self._handed.clear()
            return self._next()
        if request.method == "POST" and request.path.endswith("/runtime/init/error"):
            self._up(Outcome(request.body, error=True))
            return Response(202, JSON, b'{"status":"OK"}')
        found = re.fullmatch(r"/2018-06-01/runtime/invocation/([^/]+)/(response|error)", request.path)
        if request.method == "POST" and found:
            if self._current is not None and self._current.id == found[1]:
                self._finish(Outcome(request.body, error=found[2] == "error"))
            return Response(202, JSON, b'{"status":"OK"}')
        return Response(404, JSON, b'{"errorMessage":"no such resource","errorType":"NotFound"}')

    def _next(self) -> Response:
        invocation = self._current
        if invocation is None:  # the environment is closed: nobody reads this any more
            return Response(410, JSON)
        headers = [
            *JSON,
            ("Lambda-Runtime-Aws-Request-Id", invocation.id),
            ("Lambda-Runtime-Deadline-Ms", str(int(invocation.deadline * 1000))),
            ("Lambda-Runtime-Invoked-Function-Arn", self._function.arn),
            ("Lambda-Runtime-Trace-Id", f"Root={invocation.trace};Sampled=0"),
        ]
        return Response(200, headers, invocation.payload)


class Environments:
    """Makes the execution environments of one version of a function."""

    def __init__(
        self, context: Context, runtimes: Runtimes, packages: RuntimePackages, function: Function
    ) -> None:
        self._context, self._packages, self._function = context, packages, function
        caller = Caller(f"lambda {function.name}", function.role_arn, function.network)
        self.gateway = Gateway(context, runtimes, caller)
        self._code: Path | None = None

    async def open(self) -> None:
        """Check the function, unpack its code and open its way to AWS. Raises ModelstacksError."""
        self._check()
        self._code = await unpacked(self._context, self._function)
        try:
            await self.gateway.open()
        except (ClientError, BotoCoreError) as error:
            raise StartFailedError(
                f"lambda {self._function.name}: no credentials for its role: {error}"
            ) from error

    def _check(self) -> None:
        """What Lambda checks before it makes a function active."""
        function, account = self._function, self._context.account
        if function.package_type != "Zip" or not function.runtime.startswith("python"):
            raise DeploymentFailed(
                f"lambda {function.name}: the embedded cloud runs Python functions from a zip",
                got=f"{function.package_type} {function.runtime}",
            )
        role = account[IamSnapshot].roles.get(function.role_arn)
        if role is None:
            raise DeploymentFailed(f"lambda {function.name}: the role {function.role_arn} does not exist")
        if refused := policies.trusts(role, "lambda.amazonaws.com", source=function.arn):
            raise DeploymentFailed(f"lambda {function.name}: the role cannot be assumed: {refused}")
        if function.network is not None:
            interface = f"arn:aws:ec2:{account.region}:{account.id}:network-interface/*"
            attach = ApiCall("ec2", "ec2", "ec2:CreateNetworkInterface", interface)
            if refused := may_call(account, Caller(f"lambda {function.name}", function.role_arn), attach):
                raise DeploymentFailed(
                    f"lambda {function.name} cannot be attached to its VPC: {refused.reason}"
                )

    async def close(self) -> None:
        """Close the environments' way to AWS."""
        await self.gateway.close()

    def explain(self, given_up: GivenUp) -> str:
        """Only `open` gives a version up, and says why itself."""
        return given_up.cause

    async def start(self, group: str) -> Environment:
        """Start one environment and wait for its init phase. Raises InitFailedError."""
        del group
        function = self._function
        stream = f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{uuid4().hex}"
        replica = Replica(
            kind="lambda-environment",
            workload=function.name,
            log_group=function.log_group,
            log_stream=stream,
            log=log_path(self._context.state.logs, function.log_group, stream),
        )
        environment = Environment(function, replica)
        replica.state = "healthy"
        try:
            await self._start(environment)
            outcome = await asyncio.wait_for(asyncio.shield(environment.initialised), INIT_SECONDS)
        except TimeoutError:
            text = f"the init phase took longer than {INIT_SECONDS:g} seconds"
            outcome = failed("Sandbox.Timedout", text)
        except BaseException:
            await environment.stop()
            raise
        if outcome is not None:
            await environment.stop()
            raise InitFailedError(outcome)
        return environment

    async def _start(self, environment: Environment) -> None:
        replica = environment.replica
        assert self._code is not None
        scratch = self._context.state.work / "replicas" / replica.id
        scratch.mkdir(parents=True, exist_ok=True)
        runtime = await self._packages.directory()
        address = await environment.open()
        # -S keeps this machine's packages out: the zip must bring what Lambda would not have.
        argv: tuple[str, ...] = (PYTHON, "-S", "-m", "awslambdaric", self._function.handler)
        if self._context.faults.poisoned(self._function.name):
            argv = (PYTHON, "-c", "raise SystemExit('poisoned by an injected fault')")

        def ended(_: Replica) -> None:
            shutil.rmtree(scratch, ignore_errors=True)
            environment.died()

        variables = self._variables(runtime, scratch, address, replica.log_stream)
        policy = _policy(runtime, self._code, scratch, (address, self.gateway.url))
        command = Command(argv, variables, self._code, policy)
        await self._context.registry.start(replica, command, ended)

    def _variables(self, runtime: Path, scratch: Path, address: str, stream: str) -> Mapping[str, str]:
        """The environment variables that Lambda's runtime defines, and the function's own."""
        function, issued = self._function, self.gateway.credentials
        variables = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "TMPDIR": str(scratch),
            "HOME": str(scratch),
            "PYTHONPATH": str(runtime),
            "PYTHONUNBUFFERED": "1",
            **function.environment,
            **self.gateway.environment(),
            "_HANDLER": function.handler,
            "LAMBDA_TASK_ROOT": str(self._code),
            "LAMBDA_RUNTIME_DIR": str(runtime),
            "AWS_LAMBDA_RUNTIME_API": address,
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
            "AWS_LAMBDA_LOG_GROUP_NAME": function.log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": stream,
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.runtime}",
        }
        if issued is not None:
            variables |= {
                "AWS_ACCESS_KEY_ID": issued.access_key_id,
                "AWS_SECRET_ACCESS_KEY": issued.secret_access_key,
                "AWS_SESSION_TOKEN": issued.session_token,
            }
        return variables


def _policy(runtime: Path, code: Path, scratch: Path, reached: tuple[str, ...]) -> Policy:
    """A function sees its code and Lambda's packages, and reaches its Runtime API and its way to AWS."""
    packages = {link.resolve() for link in runtime.iterdir()}  # the folder holds links to them
    return Policy(
        readable=(code, runtime, *packages, *interpreter_paths(Path(PYTHON))),
        writable=(scratch,),
        network="loopback",
        connect=tuple(int(address.rpartition(":")[2]) for address in reached),
        forks=True,
        limits=REPLICA_LIMITS,
    )
