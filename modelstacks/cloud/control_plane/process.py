"""The control plane as a child process: start it, wait until it answers, stop it.

The child leads a process group of its own and dies with its parent (PR_SET_PDEATHSIG on Linux). The parent
that PR_SET_PDEATHSIG means is the *thread* that started the child: start it from a thread that lives as
long as the process.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from modelstacks.core.errors import EnvironmentFault

__all__ = ["ControlPlane", "free_port", "start"]

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.05
_STOP_SECONDS = 5.0


def free_port() -> int:
    """A port of localhost that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class ControlPlane:
    """A running control plane. As a context manager it stops on leaving."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def endpoint(self) -> str:
        """What AWS_ENDPOINT_URL is to be. `localhost` and not 127.0.0.1: S3 URLs of templates are told by
        it.
        """
        return f"http://localhost:{self.port}"

    @property
    def pid(self) -> int:
        """The child's process id, which is its process group's id too."""
        return self.process.pid

    def alive(self) -> bool:
        """Whether the child still runs."""
        return self.process.poll() is None

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for the whole group; waits until it is gone."""
        if self.alive():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(port: int | None = None, *, log: Path, timeout: float = 150.0) -> ControlPlane:
    """Start a control plane on localhost:`port` (default: a free one) and wait until it answers.

    `log` receives what the server has to say; what it printed last is in the error when it does not start.
    Raises EnvironmentFault when the port is taken or the server does not answer within `timeout` seconds.
    """
    chosen = port or free_port()
    if port and _taken(port):
        raise EnvironmentFault(
            "the control plane cannot start: its port is in use",
            got=f"port {port}",
            fix="stop the program that listens there, or choose another port",
        )
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "modelstacks.cloud.control_plane",
                "--port",
                str(chosen),
                "--log",
                str(log),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(),
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    plane = ControlPlane(chosen, process)
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


def _environment() -> dict[str, str]:
    """The caller's environment less what would point the server's own AWS clients, or moto, somewhere
    else.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOTO_"))}
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("localhost", port))
        except OSError:
            return True
    return False


def _answers(plane: ControlPlane) -> bool:
    """Whether it is our child that answers, and not some other program on the same port."""
    try:
        with urllib.request.urlopen(f"{plane.endpoint}/_modelstacks/health", timeout=1.0) as answer:  # noqa: S310  our own URL
            return bool(json.load(answer)["pid"] == plane.pid)
    except (OSError, ValueError, KeyError, urllib.error.URLError):
        return False
