"""A model server as a process of its own, for tests: started on a free port, watched, and always stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "model_artifacts"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def predictions(artifact: str) -> list[Any]:
    """The trainer's own answers for an artifact's held-out rows."""
    body = json.loads((ARTIFACTS / artifact / "predictions.json").read_text(encoding="utf-8"))
    return list(body["predictions"])


@dataclass
class ModelServer:
    """`with ModelServer.start(directory) as server:`; leaving stops it with SIGTERM."""

    process: subprocess.Popen[bytes]
    port: int
    log_path: Path

    @classmethod
    def start(
        cls,
        directory: Path,
        logs: Path,
        *,
        wait: bool = True,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
        **settings: object,
    ) -> ModelServer:
        """`settings` are MODEL_SERVER_*, in lower case."""
        port = free_port()
        variables = {
            "model_name": "model",
            "model_dir": directory,
            "host": "127.0.0.1",
            "port": port,
            "workers": 1,
            "trust_code": any(Path(directory).rglob("inference.py")),  # a test's own script
        }
        environ = {key: value for key, value in os.environ.items() if not key.startswith("MODEL_SERVER_")}
        environ["PYTHONPATH"] = str(ROOT / "serving")
        environ |= {
            f"MODEL_SERVER_{name.upper()}": str(value) for name, value in (variables | settings).items()
        }
        environ |= environment or {}
        logs.mkdir(parents=True, exist_ok=True)
        log_path = logs / f"{port}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [python, "-m", "model_server", "serve"], stdout=log, stderr=subprocess.STDOUT, env=environ
            )
        server = cls(process, port, log_path)
        if wait:
            try:
                server.wait_until_ready()
            except BaseException:
                server.kill()
                raise
        return server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def workers(self) -> list[psutil.Process]:
        return [
            child
            for child in psutil.Process(self.process.pid).children()
            if child.status() != psutil.STATUS_ZOMBIE
        ]

    def log(self) -> list[dict[str, Any]]:
        lines = self.log_path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def metric(self, name: str) -> float:
        """The sum of a metric's samples, whatever their labels."""
        text = httpx.get(f"{self.url}/metrics").text
        values = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return sum(float(value) for key, value in values if key.partition("{")[0] == name)

    def wait_until_ready(self, seconds: float = 180) -> None:
        wait_for(self._is_ready, seconds, lambda: self.log_path.read_text(encoding="utf-8"))

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log_path.read_text(encoding="utf-8")
        try:
            return httpx.get(f"{self.url}/ping", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def terminate(self, seconds: float = 40) -> int:
        """SIGTERM, as every orchestrator does it; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        for process in (
            [*self.workers, psutil.Process(self.process.pid)] if self.process.poll() is None else []
        ):
            process.kill()
        self.process.wait(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill()


def wait_for(condition: Any, seconds: float, what: Any = lambda: "") -> None:
    """Polls until the condition holds; a failure after `seconds` says `what()`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what()}")
        time.sleep(0.01)
