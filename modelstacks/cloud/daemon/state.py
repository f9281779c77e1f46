"""The daemon's files on disk: .modelstacks/state.json, the lock and the record of each process it started.

The state file is written atomically and contains a version. The error for a damaged file says how to fix it.
The kernel holds the lock while the daemon lives, so the lock cannot become stale. Only this user may read the
folder, because it contains the keys of the embedded account.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Literal

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from modelstacks.cloud.api import Credentials
from modelstacks.core.errors import EnvironmentFault

__all__ = ["MARKER", "Process", "State", "StateDirectory", "end_processes", "process_of"]

KILL_SECONDS = 5.0
# Bytes of a Unix socket's path on macOS; Linux allows 107.
LONGEST_SOCKET = 103
LONGEST_SOCKET_NAME = 24
# Set in the environment of each process that the daemon starts, so that a later run finds it after a crash.
MARKER = "MODELSTACKS_CLOUD_STATE"


class Process(BaseModel):
    """A process, identified by its pid and its creation time: the system reuses pids."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    pid: int
    # psutil's create_time, in seconds since the epoch.
    created: float
    what: str


class State(BaseModel):
    """The contents of state.json."""

    model_config = ConfigDict(extra="forbid")
    version: Literal[1] = 1
    daemon: Process
    admin_url: str | None = None
    token: str
    endpoint_url: str | None = None
    credentials: Credentials
    processes: tuple[Process, ...] = ()


class StateDirectory:
    """A project's `.modelstacks/`: paths, state file, lock."""

    def __init__(self, project: Path) -> None:
        self.project = project.resolve()
        self.root = self.project / ".modelstacks"
        self.state_file = self.root / "state.json"
        self.lock_file = self.root / "daemon.lock"
        self.daemon_log = self.root / "daemon.log"
        self.control_plane_log = self.root / "control-plane.log"
        self.logs = self.root / "logs"
        # Not "work": core/packaging.py unpacks there, possibly while a run starts or ends.
        self.work = self.root / "unpacked"
        self.sockets = _sockets(self.root)

    def prepare(self) -> None:
        """Create the directories. Raises EnvironmentFault if the disk is full or not writable."""
        try:
            for directory in (self.root, self.logs, self.work):
                directory.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o700)
            ignore = self.root / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
            self.sockets.mkdir(mode=0o700, exist_ok=True)
            found = self.sockets.lstat()
        except OSError as error:
            raise disk_fault(error, self.root) from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise EnvironmentFault(
                f"{self.sockets} is open to other users, or is not this user's folder",
                fix=f"remove {self.sockets}",
            )

    def read(self) -> State | None:
        """The state, or None if there is no state file. Raises EnvironmentFault for a damaged file."""
        try:
            text = self.state_file.read_text()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from error
        try:
            return State.model_validate(json.loads(text))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise self._damaged(f"{place}: {first['msg'].lower()}") from error
        except ValueError as error:
            raise self._damaged(str(error)) from error

    def write(self, state: State) -> None:
        """Replace the state file atomically. Raises EnvironmentFault if the disk is full."""
        temporary = ""
        try:
            with tempfile.NamedTemporaryFile("w", dir=self.root, prefix=".state-", delete=False) as file:
                temporary = file.name
                file.write(state.model_dump_json(indent=2))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.state_file)
        except OSError as error:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            raise disk_fault(error, self.state_file) from error

    def forget(self) -> None:
        """Remove the files of one run: its state, its sockets, its unpacked models and functions."""
        for directory in (self.work, self.sockets):
            shutil.rmtree(directory, ignore_errors=True)
        # unlink would fail on a read-only disk, even without a state file.
        if self.state_file.exists():
            self.state_file.unlink(missing_ok=True)

    def holds(self, lock: IO[str]) -> bool:
        """Whether `lock` is still this directory's: False after the directory was deleted or recreated."""
        try:
            return os.path.samestat(self.lock_file.stat(), os.fstat(lock.fileno()))
        except OSError:
            return False

    def lock(self) -> IO[str] | None:
        """Take the daemon's lock while the file stays open, or return None if another daemon holds it."""
        try:
            file = self.lock_file.open("a+")
        except OSError as error:
            raise disk_fault(error, self.lock_file) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        return file

    def daemon_running(self) -> bool:
        """Whether a live daemon holds the lock."""
        if not self.lock_file.exists():
            return False
        held = self.lock()
        if held is None:
            return True
        held.close()
        return False

    def clean(self) -> tuple[int, ...]:
        """End every recorded process, remove the files of a run, and return the pids that were ended."""
        state = self.read()
        recorded = (state.daemon, *state.processes) if state is not None else ()
        ended = end_processes((*recorded, *self._marked()))
        self.forget()
        return ended

    def _marked(self) -> list[Process]:
        """Processes with this directory's MARKER, including any started after the state was last written."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARKER) == str(self.root):
                    found.append(Process(pid=process.pid, created=process.create_time(), what="marked"))
            # Another user's process, or one that has ended.
            except (psutil.Error, OSError):
                continue
        return found

    def _damaged(self, why: str) -> EnvironmentFault:
        return EnvironmentFault(
            f"the state file {self.state_file} is damaged: {why}",
            fix=f"end leftover `model_server` processes if there are any, then `rm {self.state_file}`",
        )


def _sockets(root: Path) -> Path:
    """The folder for Unix sockets: in `root`, or in the temporary folder if that path would be too long."""
    inside = root / "run"
    if len(os.fsencode(inside)) + LONGEST_SOCKET_NAME <= LONGEST_SOCKET:
        return inside
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"modelstacks-{os.getuid()}-{digest}"


def process_of(pid: int, what: str) -> Process | None:
    """The record of a running process, or None if it has ended."""
    try:
        return Process(pid=pid, created=psutil.Process(pid).create_time(), what=what)
    except psutil.Error:
        return None


def end_processes(processes: Iterable[Process]) -> tuple[int, ...]:
    """Terminate, then kill, the processes and their descendants, unless another process has the pid now."""
    alive: dict[int, psutil.Process] = {}
    for record in processes:
        try:
            process = psutil.Process(record.pid)
            if abs(process.create_time() - record.created) > 0.01 or process.pid == os.getpid():
                continue
            for member in (process, *process.children(recursive=True)):
                alive[member.pid] = member
        except psutil.Error:
            continue
    for chosen in (signal.SIGTERM, signal.SIGKILL):
        for process in alive.values():
            try:
                # psutil checks again that the pid was not reused.
                process.send_signal(chosen)
            except psutil.Error:
                continue
        _, waiting = psutil.wait_procs(list(alive.values()), timeout=KILL_SECONDS)
        if not waiting:
            break
    return tuple(sorted(alive))


def disk_fault(error: OSError, path: Path) -> EnvironmentFault:
    """The error that a user sees for an OSError on one of our own paths."""
    if error.errno == errno.ENOSPC:
        return EnvironmentFault(
            f"the disk is full: cannot write {path}", fix="free some space, then run the command again"
        )
    return EnvironmentFault(f"cannot write {path}: {error.strerror or error}")
