"""The control plane as a child process: start it, wait until it answers, stop it.

The child inherits the Unix socket from its parent; the permissions of its folder keep other users out.
The child has its own process group and ends with its parent (PR_SET_PDEATHSIG on Linux). For PR_SET_PDEATHSIG
the parent is the *thread* that started the child: start it from a thread that lives as long as the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from modelstacks.cloud.account.client import Connection
from modelstacks.core.errors import EnvironmentFault

__all__ = ["ControlPlane", "start"]

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.05
_STOP_SECONDS = 5.0
_NAME = "control-plane.sock"


@dataclass(slots=True)
class ControlPlane:
    """A running control plane. As a context manager it stops on leaving."""

    socket: Path
    process: subprocess.Popen[bytes]
    connection: Connection = field(init=False)
    made: os.stat_result = field(init=False)

    def __post_init__(self) -> None:
        self.connection = Connection(self.socket)
        self.made = self.socket.stat()

    @property
    def pid(self) -> int:
        """The child's process id, which is its process group's id too."""
        return self.process.pid

    def alive(self) -> bool:
        """Whether the child still runs."""
        return self.process.poll() is None

    def stop(self) -> None:
        """Send SIGTERM, then SIGKILL to the whole group, and wait until the child has ended."""
        self.connection.close()
        if self.alive():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        with suppress(OSError):  # deleted with its folder, or another server's by now
            if os.path.samestat(self.socket.stat(), self.made):
                self.socket.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(folder: Path, *, log: Path, timeout: float = 150.0) -> ControlPlane:
    """Start a control plane on a Unix socket in `folder` and wait until it answers.

    Only this user may have access to `folder`. The server writes to `log`, whose last line is in
    the error if it does not start. Raises EnvironmentFault when the socket cannot be made or the server
    does not answer within `timeout` seconds.
    """
    path = folder / _NAME
    log.parent.mkdir(parents=True, exist_ok=True)
    with _listening(path) as listening, log.open("ab") as output:
        descriptor = listening.fileno()
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",  # as the daemon: nothing is imported from the working folder
                "-m",
                "modelstacks.cloud.account",
                "--listening",
                str(descriptor),
                "--log",
                str(log),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(),
            pass_fds=(descriptor,),
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    plane = ControlPlane(path, process)
    deadline = time.monotonic() + timeout
    while plane.alive() and time.monotonic() < deadline:
        if _answers(plane):
            return plane
        time.sleep(_POLL_SECONDS)
    died = not plane.alive()
    plane.stop()
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["(nothing was logged)"]
    what = (
        "the control plane stopped while starting"
        if died
        else f"the control plane did not answer within {timeout:g} s"
    )
    raise EnvironmentFault(what, got=last[0], fix=f"see {log}")


def _listening(path: Path) -> socket.socket:
    """A socket that listens at `path`, for this user alone."""
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)  # of a control plane that was killed
        opened.bind(str(path))
        path.chmod(0o600)
        opened.listen(128)
    except OSError as error:
        opened.close()
        raise EnvironmentFault(
            "the control plane's socket cannot be made", got=f"{path}: {error.strerror or error}"
        ) from error
    return opened


def _environment() -> dict[str, str]:
    """The caller's environment without the variables that configure AWS clients or moto."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOTO_"))}
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _answers(plane: ControlPlane) -> bool:
    """Whether the child answers within a second. A slow one is asked again."""
    asking = Connection(plane.socket, connections=1, timeout=1.0)
    try:
        return bool(asking.ask("/_modelstacks/health")["pid"] == plane.pid)
    except EnvironmentFault:
        return False
    finally:
        asking.close()
