"""Replicas are the processes of tasks, instances and Lambda execution environments.

Each has its own process group and log file, and ends with the daemon. It runs in a sandbox that shows it its
image, its own folder and its model, and lets it connect to its own AWS endpoint. It does not inherit the
daemon's environment: its variables come from the image and the template.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from modelstacks.adapters.sandbox import Limits, Policy, Sandbox, choose, machine_memory, signal_of, wish
from modelstacks.cloud import api
from modelstacks.cloud.daemon.state import MARKER, disk_fault
from modelstacks.cloud.host.namespace import Namespace

__all__ = [
    "MARKER",
    "ImageEnvironment",
    "Registry",
    "Replica",
    "State",
    "log_path",
    "reserved_port",
    "root_cause",
]

State = Literal["starting", "healthy", "unhealthy", "draining", "stopped", "failed"]

# Enough for any server, and few enough that a fork bomb leaves the machine usable. The embedded cloud does
# not enforce the template's CPU and memory limits.
REPLICA_LIMITS = Limits(memory=machine_memory(), open_files=65_536, processes=16_384)
# Replicas that the registry's history keeps.
KEPT = 500
# Bytes at the end of a log that are searched for the root cause.
TAIL = 16_384


class ImageEnvironment(Protocol):
    """A container image, installed as a folder on this machine (see docker.py)."""

    @property
    def root(self) -> Path:
        """The folder of the image."""

    @property
    def python(self) -> Path:
        """The image's interpreter, in the folder that is searched for programs."""

    @property
    def entrypoint(self) -> Sequence[str]:
        """ENTRYPOINT."""

    @property
    def cmd(self) -> Sequence[str]:
        """CMD."""

    @property
    def env(self) -> Mapping[str, str]:
        """ENV."""

    @property
    def exposed_port(self) -> int | None:
        """EXPOSE."""


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments, environment, folder and sandbox policy."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    policy: Policy


class Replica:
    """One process, from its start to its end. It is never restarted: its replacement is another replica."""

    def __init__(
        self,
        *,
        kind: str,
        workload: str,
        log_group: str,
        log_stream: str,
        log: Path,
        port: int | None = None,
        container_port: int | None = None,
    ) -> None:
        self.id = f"{workload}-{secrets.token_hex(4)}"
        self.kind, self.workload = kind, workload
        self.log_group, self.log_stream, self.log = log_group, log_stream.replace("{id}", self.id), log
        self.port, self.container_port = port, container_port
        self.state: State = "starting"
        self.reason: str | None = None
        # Set by the service that places it into a subnet.
        self.zone: str | None = None
        self.exit_code: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._program_is_inner = False
        self.ended = asyncio.Event()
        # Its own network, if it has one.
        self.namespace: Namespace | None = None

    @property
    def pid(self) -> int | None:
        """The process id while the process runs."""
        return self._process.pid if self._process is not None and not self.ended.is_set() else None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.pid is not None

    async def start(self, command: Command, sandbox: Sandbox, on_end: Callable[[Replica], None]) -> None:
        """Start the process in the sandbox. `on_end` is called once, when the process ends for any reason.

        Raises EnvironmentFault if the log cannot be written.
        """
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            output = self.log.open("ab")
        except OSError as error:
            raise disk_fault(error, self.log) from error
        # A later run finds the process by this mark in the environment of bwrap, or of the program itself.
        mark = {MARKER: os.environ.get(MARKER, "")}
        inside = command.environment if sandbox.kind == "bubblewrap" else {**command.environment, **mark}
        self._program_is_inner = sandbox.kind == "bubblewrap"
        private = command.policy.network == "private" and sandbox.private_network
        ours, theirs = socket.socketpair(type=socket.SOCK_STREAM) if private else (None, None)
        with (
            output,
            theirs or contextlib.nullcontext(),
            sandbox.prepared(
                command.policy,
                command.argv,
                inside,
                command.directory,
                sockets=theirs.fileno() if theirs else None,
            ) as ready,
        ):
            self._process = await asyncio.create_subprocess_exec(
                *ready.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**ready.environment, **mark},
                cwd=command.directory,
                pass_fds=ready.descriptors,
                start_new_session=True,
            )
        if ours is not None:
            self.namespace = Namespace(ours, command.policy.connect)
        self._watch = asyncio.create_task(self._wait(on_end), name=f"watch {self.id}")

    async def _wait(self, on_end: Callable[[Replica], None]) -> None:
        assert self._process is not None
        code = await self._process.wait()
        # bwrap reports a signal as 128 + its number.
        ended_by = signal_of(code) if self._program_is_inner else None
        self.exit_code = -ended_by if ended_by else code
        # Ends workers that outlived their parent.
        self._signal(signal.SIGKILL)
        if self.namespace is not None:
            self.namespace.close()
        self.ended.set()
        if self.state != "draining":
            self.state = "failed"
            self.reason = self._last_words()
        else:
            self.state = "stopped"
        on_end(self)

    def _last_words(self) -> str:
        code = self.exit_code or 0
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        cause = root_cause(self.log)
        return f"{how}: {cause}" if cause else how

    def observed(self, reason: str | None) -> None:
        """Record a health check's result, unless the replica has ended: its log has the better reason."""
        if self.alive:
            self.reason = reason

    async def stop(self, grace: float) -> None:
        """Send SIGTERM to the whole process group, then SIGKILL after `grace` seconds."""
        if self._process is None or self.ended.is_set():
            return
        self.state = "draining"
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.ended.wait(), grace)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self.ended.wait()

    def kill(self) -> None:
        """Send SIGKILL, as the out-of-memory killer would."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def describe(self) -> api.Replica:
        """Describe the replica for `status`."""
        return api.Replica(
            id=self.id,
            pid=self.pid,
            state=self.state,
            zone=self.zone,
            port=self.port,
            container_port=self.container_port,
            log_group=self.log_group,
            log_stream=self.log_stream,
            log_path=str(self.log),
            reason=self.reason,
        )


class Registry:
    """All replicas, so that faults find their targets and a shutdown ends every process."""

    def __init__(self, logs: Path, changed: Callable[[], None], sandbox: Sandbox | None = None) -> None:
        self.logs = logs
        self.sandbox = sandbox or choose(wish())
        self._changed = changed
        self._replicas: dict[str, Replica] = {}
        # Includes ended replicas, whose logs can still be requested.
        self.history: deque[Replica] = deque(maxlen=KEPT)

    def __iter__(self) -> Iterator[Replica]:
        return iter(list(self._replicas.values()))

    def find(self, name: str) -> Replica | None:
        """The live replica with this id, if any."""
        return self._replicas.get(name)

    async def start(self, replica: Replica, command: Command, on_end: Callable[[Replica], None]) -> None:
        """Start a replica and track it until it ends."""

        def ended(one: Replica) -> None:
            self._replicas.pop(one.id, None)
            on_end(one)
            self._changed()

        self._replicas[replica.id] = replica
        self.history.append(replica)
        try:
            await replica.start(command, self.sandbox, ended)
        except BaseException:
            self._replicas.pop(replica.id, None)
            raise
        self._changed()

    async def stop_all(self, grace: float) -> None:
        """Stop all replicas concurrently."""
        await asyncio.gather(*(replica.stop(grace) for replica in self))


def command_of(
    image: ImageEnvironment,
    *,
    entrypoint: Sequence[str],
    arguments: Sequence[str],
    environment: Mapping[str, str],
    directory: Path,
    policy: Policy,
) -> Command:
    """The process that a container runtime would start from an image.

    Programs are searched in the image first. The caller's own environment is not passed on.
    """
    programs = str(Path(image.python).parent)
    base = {
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }
    argv = [*entrypoint, *arguments]
    program = shutil.which(argv[0], path=base["PATH"]) or argv[0]
    path = base["PATH"]
    variables = {**base, **image.env, **environment}
    # An image's PATH names folders inside the image, which do not exist here.
    variables["PATH"] = path
    return Command((program, *argv[1:]), variables, directory, policy)


def reserved_port() -> socket.socket:
    """Reserve a port of 127.0.0.1: no other program gets it while the socket is open. It does not listen."""
    reserved = socket.socket()
    reserved.bind(("127.0.0.1", 0))
    return reserved


def log_path(logs: Path, group: str, stream: str) -> Path:
    """The path of a log stream's file, in the folder of its log group."""
    parts = [part for part in f"{group}/{stream}".split("/") if part not in ("", ".", "..")]
    return logs.joinpath(*parts[:-1], parts[-1] + ".log")


def root_cause(log: Path) -> str:
    """The reason in a log why a process ended: its last error, or its last line if that is not a log entry.

    Empty if the log has neither, for example because the process was killed from outside.
    """
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    except OSError:
        return ""
    lines = [line for line in lines if line]
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and str(entry.get("level", "")).lower() in (
                "error",
                "critical",
                "fatal",
            ):
                return str(entry.get("message", line))
    if not lines:
        return ""
    with contextlib.suppress(ValueError):
        if isinstance(json.loads(lines[-1]), dict):
            return ""
    return lines[-1]
