"""The servers that are compared: this project's model server and those described by peers/*/peer.toml.

Each peer runs in a virtual environment of its own, .cache/benchmarks/<peer>/, made from its requirements.txt.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "benchmarks" / "peers"
CACHE = ROOT / ".cache" / "benchmarks"
READY_SECONDS = 90.0


class DidNotStartError(Exception):
    """A contestant that could not be installed or did not answer; the message is what its row says."""


@dataclass(frozen=True)
class Contestant:
    """One server: its command takes a port and a model's directory."""

    name: str
    about: str
    path: str
    protocol: str  # "instances": {"instances": [...]}; "open-inference": the Open Inference Protocol
    command: Callable[[int, Path], list[str]]
    environment: Path | None = None  # of the peer; None: the interpreter that runs the benchmark
    variables: dict[str, str] = field(default_factory=dict)
    optional: bool = False
    pausable: bool = True  # False: it does not survive being stopped for a while
    needs: str = ""  # a program that has to be on the PATH
    python: str = sys.executable  # what its environment is made from
    headers: dict[str, str] = field(default_factory=dict)  # sent with every request, beside the usual


def sink() -> Contestant:
    """A server that reads a body to its end and does nothing with it."""
    return Contestant(
        name="byte sink",
        about="uvloop reads the body to its end and answers with two bytes",
        path="/",
        protocol="none",
        command=lambda port, _model: [sys.executable, str(PEERS / "baseline" / "byte_sink.py"), str(port)],
    )


def ours(
    workers: int,
    name: str,
    headers: dict[str, str] | None = None,
    engine: str = "",
    folder: Path = ROOT / "serving",
) -> Contestant:
    """The model server as a container runs it, with `workers` processes (0: it chooses).

    `engine` is named by what modelstacks deploys; without it the server finds out. `folder` is the serving/
    of a checkout.
    """
    return Contestant(
        name=name,
        about="validation, limits, metrics, request ids on; "
        + (f"{workers} worker" if workers else "MODEL_SERVER_WORKERS left to its default")
        + (f"; every request carries {', '.join(headers)}" if headers else ""),
        path="/invocations",
        protocol="instances",
        command=lambda port, model: [
            *("env", f"MODEL_SERVER_PORT={port}", f"MODEL_SERVER_MODEL_DIR={model}"),
            *(sys.executable, "-m", "model_server", "serve"),
        ],
        variables={
            "PYTHONPATH": str(folder),
            "MODEL_SERVER_MODEL_NAME": "model",
            "MODEL_SERVER_HOST": "127.0.0.1",
            "MODEL_SERVER_WORKERS": str(workers),
            "MODEL_SERVER_ENGINE": engine,
            "MODEL_SERVER_LOG_LEVEL": "warning",
        },
        headers=headers or {},
    )


def serving_at(revision: str) -> Path:
    """The serving/ folder of another commit."""
    resolved = subprocess.run(
        ["git", "rev-parse", "--verify", f"{revision}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    folder = CACHE / "revisions" / resolved
    if not folder.exists():
        archive = subprocess.run(
            ["git", "archive", resolved, "serving"], cwd=ROOT, capture_output=True, check=True
        )
        unpacked = folder.with_name(f"{resolved}.new")
        unpacked.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-x", "-C", str(unpacked)], input=archive.stdout, check=True)
        unpacked.rename(folder)
    return folder / "serving"


def peers() -> list[Contestant]:
    """Every contestant that a peer.toml describes, the baselines first."""
    files = sorted(PEERS.glob("*/peer.toml"), key=lambda file: (file.parent.name != "baseline", file))
    return [
        _peer(file.parent, entry) for file in files for entry in tomllib.loads(file.read_text())["contestant"]
    ]


def _peer(folder: Path, entry: dict) -> Contestant:
    environment = CACHE / folder.name if (folder / "requirements.txt").exists() else None
    python = str(environment / "bin" / "python") if environment else sys.executable
    script = str(folder / entry.get("script", "serve.py"))
    return Contestant(
        name=entry["name"],
        about=entry["about"],
        path=entry["path"],
        protocol=entry["protocol"],
        command=lambda port, model: [python, script, str(port), str(model), *entry.get("arguments", [])],
        environment=environment,
        variables={"PYTHONPATH": str(PEERS / "common")},
        optional=entry.get("optional", False),
        pausable=entry.get("pausable", True),
        needs=entry.get("needs", ""),
        python=entry.get("python", sys.executable),
    )


def install(contestant: Contestant) -> None:
    """Makes the peer's environment where it is missing or stale. DidNotStartError if that fails."""
    environment = contestant.environment
    if environment is None:
        return
    wanted = (PEERS / environment.name / "requirements.txt").read_text()
    stamp = environment / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    uv = str(Path(sys.executable).parent / "uv")
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", contestant.python, str(environment)],
        [uv, "pip", "install", "--quiet", "--python", str(environment), "-r", "-"],
    ):
        done = subprocess.run(command, input=wanted, text=True, capture_output=True, check=False)
        if done.returncode != 0:
            raise DidNotStartError(f"not installed: {_last_line(done.stderr)}")
    stamp.write_text(wanted)


class Running:
    """A started contestant: measured, put to sleep and woken as one tree of processes."""

    def __init__(self, contestant: Contestant, port: int, process: subprocess.Popen[bytes], log: Path):
        self.contestant = contestant
        self.port = port
        self.log = log
        self._process = process

    def exited(self) -> bool:
        return self._process.poll() is not None

    def cpu_seconds(self) -> float:
        """Processor time of all its processes so far."""
        total = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def pause(self) -> None:
        """Stops all its processes: an idle server's housekeeping would disturb the one under test."""
        if self.contestant.pausable:
            self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def prefer(self) -> None:
        """Asks the scheduler to put its processes before others."""
        prefer(self._process.pid)

    def stop(self) -> None:
        """Ends all its processes: SIGTERM, and SIGKILL after some seconds."""
        tree = self._tree()
        self._signal(signal.SIGCONT)
        with contextlib.suppress(psutil.Error):
            psutil.Process(self._process.pid).terminate()
        _, alive = psutil.wait_procs(tree, timeout=5)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.wait(timeout=10)

    def _signal(self, number: int) -> None:
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    def _tree(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        return []


def prefer(pid: int) -> None:
    """Puts a session of processes before the machine's other work; PermissionError without the right.

    Linux schedules sessions against each other (autogroups), and only then their processes.
    """
    Path(f"/proc/{pid}/autogroup").write_text("-15")


def start(contestant: Contestant, model: Path) -> Running:
    """Starts its processes on a free loopback port; does not wait until it is ready."""
    if contestant.needs and shutil.which(contestant.needs) is None:
        raise DidNotStartError(f"not started: no {contestant.needs} on the PATH")
    port = _free_port()
    CACHE.mkdir(parents=True, exist_ok=True)
    log = CACHE / f"{contestant.name.replace(' ', '-').replace(',', '')}.log"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MODEL_SERVER_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            contestant.command(port, model),
            env=inherited | contestant.variables | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=CACHE,
            start_new_session=True,
        )
    return Running(contestant, port, process, log)


@contextlib.contextmanager
def serving(contestant: Contestant, model: Path, is_ready: Callable[[int], bool]) -> Iterator[Running]:
    """A contestant that has answered `is_ready(port)`; stopped at the end. DidNotStartError says why not."""
    install(contestant)
    running = start(contestant, model)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not is_ready(running.port):
            if running.exited() or time.monotonic() > deadline:
                reason = "ended" if running.exited() else f"not ready after {READY_SECONDS:.0f} s"
                raise DidNotStartError(f"{reason}: {_last_line(running.log.read_text(errors='replace'))}")
            time.sleep(0.1)
        yield running
    finally:
        running.stop()


def _free_port() -> int:
    """A free loopback port below 32768, the highest that multi-model-server takes."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:160] if lines else "no output"
