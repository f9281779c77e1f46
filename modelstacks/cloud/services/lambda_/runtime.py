"""Lambda: the deployed zip, run by AWS's own runtime client against a Runtime API that is served here.

An execution environment is a process; it takes one invocation at a time, stays warm, and is ended when an
invocation
exceeds the function's timeout. It sees boto3 and the zip, and no other package of this machine. Layers and
container
images are not run.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib.metadata
import io
import json
import re
import shutil
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from modelstacks.adapters.sandbox import Policy, interpreter_paths
from modelstacks.cloud import api
from modelstacks.cloud.context import Context, Outcome, trace_root
from modelstacks.cloud.daemon.state import disk_fault
from modelstacks.cloud.host.replicas import REPLICA_LIMITS, Command, Replica, log_path
from modelstacks.cloud.host.wire import Listener, Request, Response, listen
from modelstacks.cloud.network import policies
from modelstacks.cloud.network.calls import ApiCall, Caller, may_call
from modelstacks.cloud.network.gateway import Gateway, to_control_plane
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.iam.snapshot import IamSnapshot
from modelstacks.cloud.services.lambda_.snapshot import Function, LambdaSnapshot
from modelstacks.core.errors import DeploymentFailed, EnvironmentFault, ModelstacksError

__all__ = ["Functions"]

# The account's concurrency. Each takes some 50 MB: these are about as many as a laptop can bear.
MOST_ENVIRONMENTS = 20
STOP_SECONDS = 2.0
# Lambda gives the init phase ten seconds beside the function's timeout; a busy laptop needs more.
INIT_SECONDS = 30.0
# Without the virtual environment, whose packages are this machine's own.
PYTHON = str(Path(sys.executable).resolve())
NEXT = "/2018-06-01/runtime/invocation/next"
RUNTIME_PACKAGES = ("awslambdaric", "boto3")
JSON = [("content-type", "application/json")]


class _InitFailedError(Exception):
    """An environment did not come up; `outcome` is what the invocation comes to."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.payload.decode("utf-8", "replace"))
        self.outcome = outcome


@dataclass(slots=True)
class _Invocation:
    payload: bytes
    trace: str
    deadline: float  # seconds since the epoch
    done: asyncio.Future[Outcome]
    id: str = field(default_factory=lambda: str(uuid4()))


class _Environment:
    """One execution environment: its process and its Runtime API."""

    def __init__(self, function: Function, replica: Replica) -> None:
        self.function, self.replica = function, replica
        self.current: _Invocation | None = None
        self._handed = asyncio.Event()
        self.initialised: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._listener: Listener | None = None
        self.uses = 0

    async def open(self) -> str:
        """Serve the Runtime API; its address as AWS_LAMBDA_RUNTIME_API."""
        self._listener = await listen(self._serve)
        return f"127.0.0.1:{self._listener.port}"

    async def close(self) -> None:
        """Stop serving."""
        self._handed.set()
        if self._listener is not None:
            await self._listener.close()

    def hand(self, invocation: _Invocation) -> None:
        """Give the process its next invocation."""
        self.current = invocation
        self.uses += 1
        self._handed.set()

    def died(self) -> None:
        """Answer for a process that ended in the middle."""
        code = self.replica.exit_code or 0
        how = f"signal: {-code}" if code < 0 else f"exit status {code}"
        request = f"RequestId: {self.current.id} " if self.current is not None else ""
        outcome = _error("Runtime.ExitError", f"{request}Error: Runtime exited with error: {how}")
        self._up(outcome)
        self._finish(outcome)

    def _up(self, failed: Outcome | None) -> None:
        """The init phase is over."""
        if not self.initialised.done():
            self.initialised.set_result(failed)

    def _finish(self, outcome: Outcome) -> None:
        if self.current is not None and not self.current.done.done():
            self.current.done.set_result(outcome)
        self.current = None

    async def _serve(self, request: Request) -> Response:
        if request.method == "GET" and request.path == NEXT:
            self._up(None)
            await self._handed.wait()
            self._handed.clear()
            invocation = self.current
            if invocation is None:  # the environment is closed: nobody reads this any more
                return Response(410, JSON)
            return Response(
                200,
                [
                    *JSON,
                    ("Lambda-Runtime-Aws-Request-Id", invocation.id),
                    ("Lambda-Runtime-Deadline-Ms", str(int(invocation.deadline * 1000))),
                    ("Lambda-Runtime-Invoked-Function-Arn", self.function.arn),
                    ("Lambda-Runtime-Trace-Id", f"Root={invocation.trace};Sampled=0"),
                ],
                invocation.payload,
            )
        if request.method == "POST" and request.path.endswith("/runtime/init/error"):
            self._up(Outcome(request.body, error=True))
            return Response(202, JSON, b'{"status":"OK"}')
        found = re.fullmatch(r"/2018-06-01/runtime/invocation/([^/]+)/(response|error)", request.path)
        if request.method == "POST" and found:
            if self.current is not None and self.current.id == found[1]:
                self._finish(Outcome(request.body, error=found[2] == "error"))
            return Response(202, JSON, b'{"status":"OK"}')
        return Response(404, JSON, b'{"errorMessage":"no such resource","errorType":"NotFound"}')


class _FunctionState:
    """A function's environments."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.blueprint: object = None
        self.code: Path | None = None
        self.gateway: Gateway | None = None
        self.reason: str | None = None
        self.environments: list[_Environment] = []
        self.idle: list[_Environment] = []
        self.waiting: list[asyncio.Future[None]] = []
        self.starting = 0
        self.running = 0


def _over_the_limit(state: _FunctionState) -> str:
    """Lambda's reason to throttle one more invocation; empty where it may run.

    In AWS no invocation waits for another. A queue here would hide an overload from the caller.
    """
    reserved = state.function.reserved_concurrency
    if reserved is not None and state.running >= reserved:
        return "ReservedFunctionConcurrentInvocationLimitExceeded"
    if state.running >= MOST_ENVIRONMENTS:
        return "ConcurrentInvocationLimitExceeded"
    return ""


class Functions:
    """Every Lambda function of the account."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._states: dict[str, _FunctionState] = {}
        self._runtime: Path | None = None
        self._making_runtime = asyncio.Lock()  # cold starts come in bursts

    async def reconcile(self) -> None:
        """Make ready the functions that are new or changed; end those that are gone."""
        functions = self._context.account[LambdaSnapshot].functions
        for name in [name for name in self._states if name not in functions]:
            await self._end(self._states.pop(name))
        finished = [
            function
            for function in functions.values()
            if not self._context.account[CloudFormationSnapshot].unfinished(function.name, function.arn)
        ]
        await asyncio.gather(*map(self._prepare, finished))

    async def make_ready(self, name: str) -> str | None:
        """Make one function ready, though its stack is still being made.

        Returns the address of its gateway, the only one that it can reach, or None where there is no such
        function.
        """
        function = self._context.account[LambdaSnapshot].functions.get(name)
        if function is None:
            return None
        await self._prepare(function)
        gateway = self._states[name].gateway
        return gateway.url if gateway is not None else ""

    async def _prepare(self, function: Function) -> None:
        blueprint = replace(function, code_location="", policy=None, reserved_concurrency=None)
        state = self._states.get(function.name)
        if state is not None and state.blueprint == blueprint and state.reason is None:
            state.function = function
            return
        fresh = _FunctionState(function)
        fresh.blueprint = blueprint
        try:
            self._check(function)
            fresh.code = await self._unpack(function)
            fresh.gateway = Gateway(
                self._context, Caller(f"lambda {function.name}", function.role_arn, function.network)
            )
            await fresh.gateway.open()
        except ModelstacksError as error:
            fresh.reason = str(error)
        self._states[function.name] = fresh
        if state is not None:
            await self._end(state)
        self._context.changed()

    def _check(self, function: Function) -> None:
        """What Lambda checks before it makes a function active."""
        if function.package_type != "Zip" or not function.runtime.startswith("python"):
            raise DeploymentFailed(
                f"lambda {function.name}: the embedded cloud runs Python functions from a zip",
                got=f"{function.package_type} {function.runtime}",
            )
        account = self._context.account
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

    async def _unpack(self, function: Function) -> Path:
        directory = self._context.state.work / "functions" / _digest(function)
        if not directory.exists():
            await self._context.blocking(_unpack, function, await self._code(function), directory)
        return directory

    async def _code(self, function: Function) -> bytes:
        """The deployed zip, from where GetFunction says that it lies."""
        where = urlsplit(function.code_location)
        answer = await to_control_plane(self._context, Request("GET", where.path, where.query))
        body = await answer.read()
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        if answer.status != 200 or digest != function.code_sha256:
            raise EnvironmentFault(
                f"lambda {function.name}: its code cannot be read back from {function.code_location}",
                got=f"status {answer.status}, sha256 {digest}",
                allowed=f"sha256 {function.code_sha256}",
            )
        return body

    async def close(self) -> None:
        """End every environment."""
        await asyncio.gather(*(self._end(state) for state in self._states.values()))
        self._states.clear()

    async def _end(self, state: _FunctionState) -> None:
        await asyncio.gather(*(self._discard(state, one) for one in list(state.environments)))
        if state.gateway is not None:
            await state.gateway.close()

    def describe(self) -> list[api.Workload]:
        """For `status`."""
        return [
            api.Workload(
                kind="lambda-function",
                name=name,
                stack=self._context.account[CloudFormationSnapshot].owner(name, state.function.arn),
                desired=0,
                state="failed" if state.reason else "stable",
                reason=state.reason,
                replicas=tuple(one.replica.describe() for one in state.environments),
            )
            for name, state in self._states.items()
        ]

    async def invoke(self, name: str, payload: bytes, trace: str | None = None) -> Outcome:
        """Invoke a function and wait for what it returns. Raises KeyError for an unknown one.

        `trace` is the X-Ray header of the request that it serves; the SDK in the function sends it on.
        """
        root = trace_root(trace) or f"1-{int(time.time()):08x}-{uuid4().hex[:24]}"
        state = self._states[name]
        with self._context.traffic.passing(f"lambda {name}") as counter:
            if state.reason:
                return _error("Runtime.Unavailable", state.reason)
            if why := _over_the_limit(state):
                counter.refusals += 1
                return Outcome(json.dumps({"Reason": why}).encode(), throttled=True)
            state.running += 1
            try:
                if delay := self._context.faults.latency(name):
                    await asyncio.sleep(delay)
                outcome = await self._run(state, payload, root)
            finally:
                state.running -= 1
            counter.errors += outcome.error
            return outcome

    async def _run(self, state: _FunctionState, payload: bytes, trace: str) -> Outcome:
        try:
            environment = await self._environment(state)
        except _InitFailedError as error:
            return error.outcome
        except ModelstacksError as error:
            return _error("Runtime.Unavailable", str(error))
        timeout = state.function.timeout
        invocation = _Invocation(
            payload, trace, time.time() + timeout, asyncio.get_running_loop().create_future()
        )
        started = time.perf_counter()
        _say(environment.replica, f"START RequestId: {invocation.id} Version: $LATEST")
        environment.hand(invocation)
        try:
            outcome = await asyncio.wait_for(asyncio.shield(invocation.done), timeout)
        except TimeoutError:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
            text = f"{now} {invocation.id} Task timed out after {timeout:.2f} seconds"
            _say(environment.replica, text)
            text = f"RequestId: {invocation.id} Error: Task timed out after {timeout:.2f} seconds"
            outcome = _error("Sandbox.Timedout", text)
            environment.current = None
            await self._discard(state, environment)
        except BaseException:
            await self._discard(state, environment)
            raise
        elapsed = (time.perf_counter() - started) * 1000
        _say(
            environment.replica,
            f"END RequestId: {invocation.id}\n"
            f"REPORT RequestId: {invocation.id}\tDuration: {elapsed:.2f} ms"
            f"\tMemory Size: {state.function.memory} MB",
        )
        if environment in state.environments:
            if environment.replica.alive:
                state.idle.append(environment)
            self._wake(state)
        return outcome

    async def _environment(self, state: _FunctionState) -> _Environment:
        """A warm environment, a new one, or the next that becomes free."""
        while True:
            while state.idle:
                environment = state.idle.pop()
                if environment.replica.alive:
                    environment.replica.state = "healthy"
                    return environment
            most = min(MOST_ENVIRONMENTS, state.function.reserved_concurrency or MOST_ENVIRONMENTS)
            if len(state.environments) + state.starting < most:
                state.starting += 1
                try:
                    return await self._cold_start(state)
                finally:
                    state.starting -= 1
            free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            state.waiting.append(free)
            await free

    def _wake(self, state: _FunctionState) -> None:
        while state.waiting:
            free = state.waiting.pop(0)
            if not free.done():
                free.set_result(None)
                return

    async def _cold_start(self, state: _FunctionState) -> _Environment:
        function = state.function
        assert state.gateway is not None
        assert state.code is not None
        stream = f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{uuid4().hex}"
        log = log_path(self._context.state.logs, function.log_group, stream)
        replica = Replica(
            kind="lambda-environment",
            workload=function.name,
            log_group=function.log_group,
            log_stream=stream,
            log=log,
        )
        environment = _Environment(function, replica)
        scratch = self._context.state.work / "replicas" / replica.id
        scratch.mkdir(parents=True, exist_ok=True)
        runtime = await self._runtime_directory()
        address = await environment.open()
        issued = state.gateway.credentials
        variables = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "TMPDIR": str(scratch),
            "HOME": str(scratch),
            "PYTHONPATH": str(runtime),
            "PYTHONUNBUFFERED": "1",
            **function.environment,
            **state.gateway.environment(),
            "_HANDLER": function.handler,
            "LAMBDA_TASK_ROOT": str(state.code),
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
        # -S keeps this machine's packages out: the zip must bring what Lambda would not have.
        argv: tuple[str, ...] = (PYTHON, "-S", "-m", "awslambdaric", function.handler)
        if self._context.faults.poisoned(function.name):
            argv = (PYTHON, "-c", "raise SystemExit('poisoned by an injected fault')")

        def ended(_: Replica) -> None:
            shutil.rmtree(scratch, ignore_errors=True)
            environment.died()
            self._forget(state, environment)

        state.environments.append(environment)
        replica.state = "healthy"
        try:
            policy = _policy(runtime, state.code, scratch, (address, state.gateway.url))
            command = Command(argv, variables, state.code, policy)
            await self._context.registry.start(replica, command, ended)
        except BaseException:
            self._forget(state, environment)
            await environment.close()
            raise
        try:
            failed = await asyncio.wait_for(asyncio.shield(environment.initialised), INIT_SECONDS)
        except TimeoutError:
            failed = _error("Sandbox.Timedout", f"the init phase took longer than {INIT_SECONDS:g} seconds")
        if failed is not None:
            await self._discard(state, environment)
            raise _InitFailedError(failed)
        return environment

    async def _runtime_directory(self) -> Path:
        """Lambda's own packages, laid out once."""
        async with self._making_runtime:
            if self._runtime is None:
                directory = self._context.state.work / "lambda-runtime"
                self._runtime = await self._context.blocking(_runtime_packages, directory)
            return self._runtime

    def _forget(self, state: _FunctionState, environment: _Environment) -> None:
        for held in (state.environments, state.idle):
            if environment in held:
                held.remove(environment)
        self._wake(state)

    async def _discard(self, state: _FunctionState, environment: _Environment) -> None:
        self._forget(state, environment)
        await environment.replica.stop(STOP_SECONDS)
        await environment.close()


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


def _error(kind: str, message: str) -> Outcome:
    return Outcome(json.dumps({"errorType": kind, "errorMessage": message}).encode(), error=True)


def _say(replica: Replica, text: str) -> None:
    """Write into an environment's log as Lambda itself does."""
    with replica.log.open("a") as log:
        log.write(text + "\n")


def _digest(function: Function) -> str:
    return hashlib.sha256(f"{function.arn} {function.code_sha256}".encode()).hexdigest()[:32]


def _unpack(function: Function, archive: bytes, directory: Path) -> None:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".unpacking-"))
        try:
            with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
                zipped.extractall(staging)
            staging.chmod(0o755)
            staging.rename(directory)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except zipfile.BadZipFile as error:
        raise DeploymentFailed(f"lambda {function.name}: its code is not a zip archive: {error}") from error
    except OSError as error:
        if not directory.exists():
            raise disk_fault(error, directory) from error


def _runtime_packages(directory: Path) -> Path:
    """A folder with what Lambda's Python runtime contains: its client and boto3, linked from our packages."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    seen: set[str] = set()
    wanted = list(RUNTIME_PACKAGES)
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an optional or platform requirement that is not installed here
        for file in package.files or ():
            top = file.parts[0]
            if top in ("..", "__pycache__") or (directory / top).exists():
                continue
            (directory / top).symlink_to(Path(str(package.locate_file(top))))
        wanted += [
            re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            for requirement in package.requires or ()
            if "extra ==" not in requirement
        ]
    return directory
