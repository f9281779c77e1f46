"""The embedded cloud seen from a command: start the daemon, ask it, stop it, clean up behind it.

Synchronous, typed, and light: imports neither moto nor aws_cdk. Every failure is a ModelstacksError.

    session = start(Path.cwd())            # starts the daemon, or attaches to the one that runs
    ... cdk deploy with session.status().endpoint_url ...
    status = session.reconcile()           # waits until every workload is stable or failed
    session.shutdown()
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from pydantic import TypeAdapter

from modelstacks.cloud.api import Fault, LogLine, Settings, Status
from modelstacks.cloud.daemon.state import StateDirectory, end_processes, process_of
from modelstacks.core.errors import EnvironmentFault, UsageError

__all__ = ["Session", "attach", "clean", "running", "start"]

CANCEL_SECONDS = 0.1  # how often a start looks whether it was cancelled
START_SECONDS = 180.0  # some seconds on an idle machine; a busy one should not fail for being slow
_fault: TypeAdapter[Fault] = TypeAdapter(Fault)


class Session:
    """A connection to a project's running daemon.

    `started` is True where this call started the daemon, False where it attached to a running one.
    """

    def __init__(self, state: StateDirectory, url: str, token: str, *, started: bool) -> None:
        self.started = started
        self._state = state
        self._http = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=30, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection; the daemon keeps running."""
        self._http.close()

    @property
    def alive(self) -> bool:
        """Whether the daemon still runs; another `modelstacks down` may have stopped it."""
        return self._state.daemon_running()

    def status(self) -> Status:
        """What runs now. Answers within milliseconds; reads nothing back."""
        return Status.model_validate_json(self._call("GET", "/status"))

    def reconcile(self, *, timeout: float = 300) -> Iterator[Status]:
        """Read the account back, start and stop what changed, and yield the status as it develops.

        The last status yielded has `settled` True: each workload is stable, or failed with its root cause in
        `reason` (raising DeploymentFailed is the caller's choice). Raises EnvironmentFault when the account
        cannot be read or nothing settles within `timeout` seconds.
        """
        self._call("POST", "/reconcile", timeout=timeout)
        deadline = time.monotonic() + timeout
        while True:
            status = self.status()
            yield status
            if status.problem is not None:
                raise EnvironmentFault(status.problem)
            if status.settled:
                return
            if time.monotonic() > deadline:
                starting = ", ".join(w.name for w in status.workloads if w.state == "starting")
                raise EnvironmentFault(
                    f"the embedded cloud did not settle within {timeout:g} s: {starting} still starting",
                    fix="read `modelstacks logs`, then `modelstacks down` and `up` again",
                )
            self._call("GET", "/changes", params={"seconds": "0.5"})

    def logs(
        self, *, workload: str | None = None, replica: str | None = None, tail: int = 100
    ) -> list[LogLine]:
        """The last lines, oldest first, of every log stream that matches."""
        body = self._call("GET", "/logs", params=_given(workload=workload, replica=replica, tail=tail))
        return TypeAdapter(list[LogLine]).validate_json(body)

    def follow_logs(self, *, workload: str | None = None, replica: str | None = None) -> Iterator[LogLine]:
        """Every new line as it is written, until the daemon stops or the caller does."""
        params = _given(workload=workload, replica=replica, follow="1")
        try:
            with self._http.stream("GET", "/logs", params=params, timeout=None) as answer:
                for line in answer.iter_lines():
                    if line:
                        yield LogLine.model_validate_json(line)
        except httpx.TransportError:
            return  # the daemon stopped: nothing more will be written

    def inject(self, fault: Fault) -> None:
        """Inject a fault until `clear_faults`. Raises UsageError for an unknown replica or workload."""
        self._call("POST", "/faults", content=_fault.dump_json(fault))

    def clear_faults(self) -> None:
        """Remove every fault."""
        self._call("DELETE", "/faults")

    def configure(self, settings: Settings) -> None:
        """Choose how the embedded cloud behaves where it is not known how AWS does."""
        self._call("PUT", "/settings", content=settings.model_dump_json().encode())

    def shutdown(self, *, timeout: float = 30) -> None:
        """Stop every replica, the control plane and the daemon, and wait until they are gone."""
        self._call("POST", "/shutdown")
        self.close()
        deadline = time.monotonic() + timeout
        while self._state.daemon_running():
            if time.monotonic() > deadline:
                clean(self._state.project)
                return
            time.sleep(0.05)

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        content: bytes | None = None,
        timeout: float = 30,
    ) -> bytes:
        try:
            answer = self._http.request(method, path, params=params, content=content, timeout=timeout)
        except httpx.TimeoutException as error:
            raise EnvironmentFault(
                f"the embedded cloud did not answer {method} {path} within {timeout:g} s",
                fix=f"read {self._state.daemon_log}, then `modelstacks down`",
            ) from error
        except httpx.TransportError as error:
            raise EnvironmentFault(
                "the embedded cloud stopped answering: its daemon was killed or crashed",
                fix=f"read {self._state.daemon_log}, then `modelstacks up` again (it cleans up first)",
            ) from error
        if answer.is_success:
            return answer.content
        detail = _detail(answer)
        if 400 <= answer.status_code < 500:
            raise UsageError(detail)
        raise EnvironmentFault(detail, fix=f"read {self._state.daemon_log}")


def start(
    project: Path,
    *,
    port: int | None = None,
    timeout: float = START_SECONDS,
    cancelled: threading.Event | None = None,
) -> Session:
    """Start the project's daemon, or attach to the one that runs already.

    `port` is where the embedded account listens (AWS_ENDPOINT_URL); REST APIs take the ports that follow it.
    None takes free ones. What a crashed daemon left behind is cleaned first. Setting `cancelled` from another
    thread ends a start that is under way.
    Raises EnvironmentFault for a port in use, a full disk, a damaged state file, a daemon that does not
    start.
    """
    state = StateDirectory(project)
    if session := attach(project):
        return session
    if not state.daemon_running():  # one that has only just begun is left to win the race for the lock
        clean(project)
    state.prepare()
    # -P: the working folder may hold a stranger's model, with files named like modules.
    command = [sys.executable, "-P", "-m", "modelstacks.cloud", "--project", str(state.project)]
    command += ["--port", str(port)] if port is not None else []
    with state.daemon_log.open("ab") as log:
        daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env=_daemon_environment(),
        )
    answer = _first_line(daemon, timeout, cancelled or threading.Event())
    if answer is None:
        end_processes(filter(None, [process_of(daemon.pid, "daemon")]))
        daemon.wait()
        clean(project)
        if cancelled is not None and cancelled.is_set():
            raise EnvironmentFault("the start of the embedded cloud was cancelled")
        raise EnvironmentFault(
            f"the embedded cloud did not start within {timeout:g} s", fix=f"read {state.daemon_log}"
        )
    if "error" in answer:
        daemon.wait()
        if session := attach(project):  # another `up` won the race for the lock
            return session
        raise EnvironmentFault(answer["error"], fix=answer.get("fix", ""))
    session = attach(project)
    if session is None:
        raise EnvironmentFault("the embedded cloud stopped as it started", fix=f"read {state.daemon_log}")
    session.started = True
    return session


def _daemon_environment() -> dict[str, str]:
    """This process's environment, less what an AWS SDK would read of the user's own accounts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    root = str(Path(__file__).resolve().parents[2])  # the toolkit itself, where it is not installed
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return kept


def attach(project: Path) -> Session | None:
    """A session with the project's daemon, or None where none runs.

    Raises EnvironmentFault for a damaged state file.
    """
    state = StateDirectory(project)
    if not state.daemon_running():
        return None
    record = state.read()
    if record is None or record.admin_url is None:
        return None
    return Session(state, record.admin_url, record.token, started=False)


def running(project: Path) -> bool:
    """Whether the project's daemon runs."""
    return StateDirectory(project).daemon_running()


def clean(project: Path) -> tuple[int, ...]:
    """End every process that the project's daemon recorded and forget its state; the pids that were ended.

    A pid is only ever signalled when the process behind it was created at the recorded moment: a number that
    the system gave to somebody else since is left alone. Logs and images are kept.
    Raises EnvironmentFault for a damaged state file, naming the file to delete.
    """
    return StateDirectory(project).clean()


def _given(**parameters: object) -> dict[str, str]:
    return {name: str(value) for name, value in parameters.items() if value is not None}


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"the embedded cloud answered {answer.status_code}"


def _first_line(
    daemon: subprocess.Popen[bytes], timeout: float, cancelled: threading.Event
) -> dict[str, str] | None:
    """The daemon's one line on stdout: {"ready": url} or {"error": text}; None when late or cancelled."""
    pipe = daemon.stdout
    assert pipe is not None
    deadline = time.monotonic() + timeout
    try:
        while not select.select([pipe], [], [], CANCEL_SECONDS)[0]:
            if cancelled.is_set() or time.monotonic() > deadline:
                return None
        line = pipe.readline()
    finally:
        os.set_blocking(pipe.fileno(), False)
        pipe.close()
    if not line:
        return {
            "error": f"the embedded cloud's daemon ended with exit code {daemon.wait()} before it was ready",
            "fix": "read .modelstacks/daemon.log",
        }
    answer: dict[str, str] = json.loads(line)
    return answer
