"""Keeps an embedded cloud serving for the lifetime of a command: one at a time, stopped by Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelstacks.cli.running import root_causes
from modelstacks.core.errors import EnvironmentFault

if TYPE_CHECKING:
    from types import FrameType

    from modelstacks.cli.context import CommandContext
    from modelstacks.cli.interfaces import CloudSession

__all__ = ["close", "only_one", "terminates_like_an_interrupt", "watch"]

WATCH_SECONDS = 1.0


def watch(context: CommandContext, session: CloudSession) -> None:
    """Report each replica's death; return when another command stops the embedded cloud.

    Ctrl-C raises KeyboardInterrupt. Raises EnvironmentFault if the embedded cloud dies.
    """
    reported: set[str] = set()
    while True:
        try:
            status = session.status()
        except EnvironmentFault:
            if not (context.project / ".modelstacks" / "state.json").exists():
                context.terminal.say("another command has stopped the embedded cloud")
                return
            raise
        if status.problem is not None:
            raise EnvironmentFault(status.problem)
        for cause in root_causes(status.workloads):
            if cause not in reported:
                reported.add(cause)
                context.terminal.fault(cause)
        time.sleep(WATCH_SECONDS)


def close(context: CommandContext, session: CloudSession, *, detach: bool) -> None:
    """Stop the embedded cloud, or with `detach` only end the connection to it."""
    if detach:
        session.close()
        return
    # A second Ctrl-C during the stop must not leave half of it running.
    with _handlers(dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN)):
        context.terminal.say("stopping")
        try:
            session.shutdown()
        except EnvironmentFault:
            # The daemon died first: clean up what it left.
            context.cloud.clean(context.project)


@contextmanager
def only_one(project: Path) -> Iterator[None]:
    """Hold the project's `up` lock. Raises EnvironmentFault naming the process that holds it."""
    path = project / ".modelstacks" / "up.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise EnvironmentFault(
                f"another `modelstacks up` is running in this project (pid {holder or 'unknown'})",
                fix="end it with Ctrl-C or `modelstacks down`; several can share one started with --detach",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def terminates_like_an_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP (a closed terminal) end the command as Ctrl-C does, with the same clean-up."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handlers({signal.SIGTERM: interrupt, signal.SIGHUP: interrupt}):
        yield


@contextmanager
def _handlers(chosen: dict[signal.Signals, Any]) -> Iterator[None]:
    try:
        before = {number: signal.signal(number, handler) for number, handler in chosen.items()}
    except ValueError:
        # Not in the main thread, as in a test's own thread: signals cannot be handled there.
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
