"""Runs one program in the sandbox to its end, with a time limit and bounded output."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from modelstacks.adapters.sandbox.mechanism import Prepared, Sandbox
from modelstacks.adapters.sandbox.policy import Policy
from modelstacks.core.errors import EnvironmentFault

__all__ = ["Ended", "run", "signal_of"]

MOST_OUTPUT = 4 << 20  # bytes of each stream that are read back
_SIGNALLED = 128  # bwrap and shells report a signal as an exit code above this


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    `signal` is the signal that ended it, if one did; `timed_out` is set where it was killed for taking too
    long.
    """

    code: int
    signal: signal.Signals | None
    timed_out: bool
    output: str
    errors: str

    @property
    def last_line(self) -> str:
        """The last line on stderr, without what a terminal would obey."""
        lines = [line for line in self.errors.splitlines() if line.strip()]
        return "".join(c if c.isprintable() else "?" for c in lines[-1].strip())[:1000] if lines else ""


def run(
    sandbox: Sandbox,
    policy: Policy,
    argv: Sequence[str],
    environment: Mapping[str, str],
    directory: Path,
    *,
    timeout: float,
) -> Ended:
    """Run a program under a policy; whatever it started is gone when this returns.

    Its output goes through files, so that a program that never stops writing meets `limits.file_bytes` and
    not this process's memory. Raises EnvironmentFault where the sandbox or the program cannot be started.
    """
    reader, writer = os.pipe()
    with (
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
        os.fdopen(reader, "rb") as up,
    ):
        try:
            with sandbox.prepared(policy, argv, environment, directory, started=writer) as ready:
                process = _start(ready, directory, output, errors)
        finally:
            os.close(writer)
        code, timed_out = _wait(process, timeout)
        os.set_blocking(reader, False)
        ended = Ended(code, signal_of(code), timed_out, _read(output), _read(errors))
        _check_started(up.read() or b"", ended)
    return ended


def signal_of(code: int) -> signal.Signals | None:
    """The signal behind an exit code, as subprocess or as bwrap reports it."""
    with contextlib.suppress(ValueError):
        if code < 0:
            return signal.Signals(-code)
        if code > _SIGNALLED:
            return signal.Signals(code - _SIGNALLED)
    return None


def _start(ready: Prepared, directory: Path, output: IO[bytes], errors: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            ready.argv,
            env=dict(ready.environment),
            pass_fds=ready.descriptors,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    except OSError as error:
        raise EnvironmentFault(f"{ready.argv[0]} cannot be run: {error.strerror}") from None


def _wait(process: subprocess.Popen[bytes], timeout: float) -> tuple[int, bool]:
    """Its exit code, and whether it had to be killed. Its process group does not outlive it."""
    try:
        return process.wait(timeout), False
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL, True
    finally:  # also where Ctrl-C ends the wait
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read(file: IO[bytes]) -> str:
    """The end of what was written."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - MOST_OUTPUT))
    return file.read(MOST_OUTPUT).decode("utf-8", "replace")


def _check_started(said: bytes, ended: Ended) -> None:
    """The launcher writes a line when the sandbox is up, and a second one where the program cannot be run."""
    if ended.timed_out:
        return
    if not said:
        raise EnvironmentFault(f"the sandbox could not be set up: {ended.last_line or f'exit {ended.code}'}")
    if problem := said.decode("utf-8", "replace").strip():
        raise EnvironmentFault(problem)
