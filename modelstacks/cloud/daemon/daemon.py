"""The daemon is the process of a project that owns the control plane, the data plane and all that they start.

It prints one line to stdout, {"ready": URL} or {"error": TEXT}. Then it serves the admin API on a loopback
port. Requests need the token in the state file.

    GET    /status       everything that `modelstacks status` shows
    GET    /changes      waits for a change, `seconds` at most, and returns the status's version
    POST   /reconcile    reads the account back; returns when the work has started
    GET    /logs         the last lines of the logs, or with follow=1 every new line
    POST   /faults       injects a fault
    DELETE /faults       removes all faults
    PUT    /settings     selects the behaviour where AWS's own is unknown
    POST   /shutdown     stops everything
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import json
import logging
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs

from pydantic import TypeAdapter, ValidationError

from modelstacks.cloud import api
from modelstacks.cloud.account import process as control_plane
from modelstacks.cloud.clients import Clients
from modelstacks.cloud.daemon.plane import assemble
from modelstacks.cloud.daemon.state import MARKER, State, StateDirectory, process_of
from modelstacks.cloud.host.docker import resolve
from modelstacks.cloud.host.listener import listen
from modelstacks.cloud.host.replicas import Registry, Replica
from modelstacks.cloud.host.wire import Request, Response
from modelstacks.core.errors import EnvironmentFault, ModelstacksError, UsageError

__all__ = ["Daemon", "main"]

REGION = "us-east-1"
WATCH_SECONDS = 0.5
FOLLOW_SECONDS = 0.2
MOST_LINES = 10_000
# Failed replicas of each workload that a status shows.
MOST_DEAD = 10
JSON = [("content-type", "application/json")]
log = logging.getLogger("modelstacks.cloud")
_fault: TypeAdapter[api.Fault] = TypeAdapter(api.Fault)


class Daemon:
    """The running embedded cloud."""

    def __init__(
        self, state: StateDirectory, lock: IO[str], plane: control_plane.ControlPlane, port: int
    ) -> None:
        self._state, self._lock, self._plane = state, lock, plane
        self._credentials = api.Credentials(
            access_key_id="AKIA" + secrets.token_hex(8).upper(), secret_access_key=secrets.token_urlsafe(30)
        )
        self._token = secrets.token_urlsafe(32)
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._clients = Clients(plane.connection, self._credentials, REGION)
        self._version = 0
        self._news = asyncio.Event()
        self._stop = asyncio.Event()
        # A permanent problem, and one that ends when the state file can be written again.
        self._problem: str | None = None
        self._unwritten: str | None = None
        self._endpoint_url = ""
        self._admin_url: str | None = None
        self._port = port
        self.registry = Registry(state.logs, self._processes_changed)
        images = state.root / "images"
        self.data_plane = assemble(
            state=state,
            clients=self._clients,
            control_plane=plane.socket,
            images=lambda uri: resolve(uri, images),
            registry=self.registry,
            changed=self.changed,
            first_api_port=port + 1 if port else 0,
        )
        self.context = self.data_plane.context

    async def run(self, ready: IO[str]) -> None:
        """Serve until a signal or a shutdown request stops the daemon."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        front = await listen(self.data_plane.front_door.handle, port=self._port, localhost=True)
        admin = await listen(self._admin)
        self._endpoint_url = f"http://localhost:{front.port}"
        self._admin_url = f"http://127.0.0.1:{admin.port}"
        # Before the first deployment, because it creates the boto3 clients, which takes a second.
        await self.data_plane.follow()
        self._write_state()
        ready.write(json.dumps({"ready": self._endpoint_url}) + "\n")
        ready.flush()
        watches = [
            asyncio.create_task(watch()) for watch in (self._watch_control_plane, self._watch_directory)
        ]
        try:
            await self._stop.wait()
        finally:
            for watch in watches:
                watch.cancel()
            await self.data_plane.close()
            await front.close()
            await admin.close()
            self._clients.close()

    # --- what changes -------------------------------------------------------------------------------

    def changed(self) -> None:
        """Wake the requests that wait for a change."""
        self._version += 1
        self._news.set()
        self._news = asyncio.Event()

    def _processes_changed(self) -> None:
        self._write_state()
        self.changed()

    def _write_state(self) -> None:
        # Without the lock, the state file may belong to another daemon.
        if not self._state.holds(self._lock):
            return
        found = [process_of(self._plane.pid, "control plane")]
        found += [process_of(one.pid, one.id) for one in self.registry if one.pid]
        daemon = process_of(os.getpid(), "daemon")
        assert daemon is not None
        try:
            self._state.write(
                State(
                    daemon=daemon,
                    admin_url=self._admin_url,
                    token=self._token,
                    endpoint_url=self._endpoint_url,
                    credentials=self._credentials,
                    processes=tuple(one for one in found if one is not None),
                )
            )
            self._unwritten = None
        except EnvironmentFault as error:
            self._unwritten = str(error)

    async def _watch_control_plane(self) -> None:
        # subprocess has no asyncio event for the end of a process.
        while self._plane.alive():  # noqa: ASYNC110
            await asyncio.sleep(WATCH_SECONDS)
        self._problem = (
            f"the control plane (pid {self._plane.pid}) was killed: what was deployed is lost; "
            "fix: `modelstacks down`, then `modelstacks up` again"
        )
        self.changed()

    async def _watch_directory(self) -> None:
        """Stop when the state directory is deleted: `modelstacks down` could no longer find the daemon."""
        # A deletion sends no event.
        while self._state.holds(self._lock):  # noqa: ASYNC110
            await asyncio.sleep(WATCH_SECONDS)
        log.warning("%s was deleted: stopping", self._state.root)
        self._stop.set()

    # --- the admin API ------------------------------------------------------------------------------

    async def _admin(self, request: Request) -> Response:
        if not hmac.compare_digest(request.header("authorization") or "", f"Bearer {self._token}"):
            return _answer(401, {"error": "the token in the state file is needed"})
        query = {key: values[0] for key, values in parse_qs(request.query).items()}
        try:
            return await self._dispatch(f"{request.method} {request.path}", query, request.body)
        except UsageError as error:
            return _answer(400, {"error": str(error)})
        except ModelstacksError as error:
            return _answer(500, {"error": str(error)})
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            return _answer(500, {"error": f"internal error: {error!r}"})

    async def _dispatch(self, route: str, query: dict[str, str], body: bytes) -> Response:
        match route:
            case "GET /status":
                return Response(200, list(JSON), self.status().model_dump_json().encode())
            case "GET /changes":
                news = self._news
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), min(float(query.get("seconds", "1")), 30))
                return _answer(200, {"version": self._version})
            case "POST /reconcile":
                if self._problem is not None:
                    raise EnvironmentFault(self._problem)
                await self.data_plane.reconcile()
                return _answer(200, {})
            case "GET /logs":
                return self._logs(query)
            case "POST /faults":
                try:
                    fault = _fault.validate_json(body)
                except ValidationError as error:
                    raise UsageError(f"this is no fault: {error.errors()[0]['msg']}") from error
                self.data_plane.inject(fault)
                self.changed()
                return _answer(200, {})
            case "DELETE /faults":
                self.context.faults.clear()
                self.changed()
                return _answer(200, {})
            case "PUT /settings":
                try:
                    self.context.settings = api.Settings.model_validate_json(body)
                except ValidationError as error:
                    raise UsageError(f"not a setting: {error.errors()[0]['msg']}") from error
                self.changed()
                return _answer(200, {})
            case "POST /shutdown":
                self._stop.set()
                return _answer(202, {})
            case _:
                return _answer(404, {"error": f"the daemon has no {route}"})

    def status(self) -> api.Status:
        """Describe the whole embedded cloud as it is now."""
        workloads = tuple(map(self._with_its_dead, self.data_plane.workloads()))
        return api.Status(
            project=str(self._state.project),
            pid=os.getpid(),
            started_at=self._started,
            endpoint_url=self._endpoint_url,
            region=REGION,
            account=self.context.account.id,
            credentials=self._credentials,
            settled=all(one.state != "starting" for one in workloads),
            problem=self._problem or self.data_plane.problem or self._unwritten,
            stacks=self.data_plane.stacks(),
            apis=self.data_plane.apis(),
            workloads=workloads,
            faults=self.context.faults.active,
            settings=self.context.settings,
            refusals=self.context.traffic.refusals,
            traffic=self.context.traffic.describe(),
        )

    def _with_its_dead(self, workload: api.Workload) -> api.Workload:
        shown = {one.id for one in workload.replicas}
        died = [
            one.describe()
            for one in self.registry.history
            if one.workload == workload.name and one.state == "failed" and one.id not in shown
        ]
        return workload.model_copy(update={"died": tuple(died[-MOST_DEAD:])})

    def _logs(self, query: dict[str, str]) -> Response:
        def chosen() -> list[Replica]:
            return [
                one
                for one in self.registry.history
                if query.get("workload") in (None, one.workload) and query.get("replica") in (None, one.id)
            ]

        if query.get("follow"):
            return Response(200, [("content-type", "application/jsonlines")], self._follow_logs(chosen))
        tail = min(int(query.get("tail", "100")), MOST_LINES)
        lines = [
            api.LogLine(group=one.log_group, stream=one.log_stream, text=text)
            for one in chosen()
            for text in _tail(one.log, tail)
        ]
        return Response(200, list(JSON), TypeAdapter(list[api.LogLine]).dump_json(lines))

    async def _follow_logs(self, chosen: object) -> AsyncIterator[bytes]:
        assert callable(chosen)
        read = {one.log: one.log.stat().st_size for one in chosen() if one.log.exists()}
        while not self._stop.is_set():
            for one in chosen():
                try:
                    with one.log.open("rb") as file:
                        file.seek(read.get(one.log, 0))
                        text = file.read()
                except OSError:
                    continue
                whole, _, _ = text.rpartition(b"\n")
                if not whole:
                    continue
                read[one.log] = read.get(one.log, 0) + len(whole) + 1
                for line in whole.decode("utf-8", "replace").split("\n"):
                    entry = api.LogLine(group=one.log_group, stream=one.log_stream, text=line)
                    yield entry.model_dump_json().encode() + b"\n"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), FOLLOW_SECONDS)


def _answer(status: int, body: dict[str, object]) -> Response:
    return Response(status, list(JSON), json.dumps(body).encode())


def _tail(path: Path, count: int) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def main(arguments: Sequence[str]) -> int:
    """Run the daemon and return its exit code, 4 if it could not start."""
    parser = argparse.ArgumentParser(prog="python -m modelstacks.cloud")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    state = StateDirectory(options.project)
    ready = _take_stdout()
    try:
        state.prepare()
        lock = state.lock()
        if lock is None:
            raise EnvironmentFault(f"another embedded cloud is running in {state.project}")
        with lock:
            os.environ[MARKER] = str(state.root)
            if options.port:
                # A port in use is reported before the control plane takes seconds to start.
                asyncio.run(_try_port(options.port))
            with control_plane.start(state.sockets, log=state.control_plane_log) as plane:
                asyncio.run(_run(state, lock, plane, options.port, ready))
            if state.holds(lock):
                state.forget()
    except ModelstacksError as error:
        _say(ready, {"error": str(error)})
        return error.exit_code
    except Exception as error:
        log.exception("the daemon failed")
        text = f"the embedded cloud's daemon failed: {type(error).__name__}: {error}"
        _say(ready, {"error": text, "fix": f"read {state.daemon_log}"})
        return 1
    return 0


def _say(ready: IO[str], line: dict[str, str]) -> None:
    # The reader may have closed the pipe.
    with contextlib.suppress(OSError):
        ready.write(json.dumps(line) + "\n")
        ready.flush()


async def _run(
    state: StateDirectory, lock: IO[str], plane: control_plane.ControlPlane, port: int, ready: IO[str]
) -> None:
    await Daemon(state, lock, plane, port).run(ready)


async def _try_port(port: int) -> None:
    async def nobody(request: Request) -> Response:
        return Response(503, body=request.body)

    await (await listen(nobody, port=port)).close()


def _take_stdout() -> IO[str]:
    """Reserve stdout for the one line, and redirect all other output to stderr, which is the log."""
    ready = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return ready
