"""A model deployed as both architectures in an embedded cloud of its own, and a client that asks it.

The project is a copy in a temporary folder, of the working tree or of a git revision, so that figures can be
compared with those of another commit. Only loopback addresses are used; leaving stops what was started.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURES = ("self-hosted", "managed")
FOLDERS = ("deployments", "lambda", "model_artifacts", "modelstacks", "serving", "stacks")
FILES = ("app.py", "cdk.json", "package.json", "pyproject.toml")
SECONDS_TO_START = 600
PATIENCE = 35.0  # seconds for an answer: API Gateway gives up after 29

# A script whose answer can be foreseen to the last bit, and whose call takes as long as it says.
SCRIPT = """
import hashlib, time
def model_fn(directory):
    return {seconds}
def input_fn(body, kind):
    return body
def predict_fn(data, seconds):
    time.sleep(seconds)
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()
def output_fn(prediction, accept):
    return prediction.encode()
"""


@dataclass(frozen=True)
class Address:
    """Where an architecture's API is, and what its callers send."""

    host: str
    port: int
    path: str
    key: str


class Deployment:
    """A project in which `modelstacks` is run, and what its daemon says."""

    def __init__(self, project: Path, name: str) -> None:
        self.project, self.name = project, name

    def run(self, *words: str) -> str:
        """`modelstacks WORDS` in the project; its stdout. SystemExit where it fails."""
        return self._python("-m", "modelstacks", *words)

    def session(self, code: str) -> str:
        """Runs lines that have a `session` with the cloud, in the project's own toolkit; their stdout."""
        lines = (
            "from pathlib import Path",
            "from modelstacks.cloud import api, client",
            "session = client.attach(Path.cwd())",
            "assert session is not None, 'no embedded cloud runs'",
        )
        return self._python("-c", "\n".join((*lines, textwrap.dedent(code))))

    def _python(self, *arguments: str) -> str:
        binaries = Path(sys.executable).parent
        environment = {
            **os.environ,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "NO_COLOR": "1",
            "PYTHONPATH": str(self.project),
        }
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_START,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)[:200]} failed:\n{done.stderr[-3000:]}")
        return done.stdout

    def status(self) -> dict[str, Any]:
        """`modelstacks status --json`."""
        found: dict[str, Any] = json.loads(self.run("status", "--json"))
        return found

    def address(self, architecture: str) -> Address:
        """The API of one architecture."""
        stack = f"{self.name}-{architecture}"
        (api,) = (one for one in self.status()["apis"] if one["stack"] == stack)
        parts = urlsplit(api["url"])
        assert parts.port is not None
        return Address(parts.hostname or "127.0.0.1", parts.port, parts.path, api["api_keys"][0]["value"])

    def workload(self, architecture: str, kind: str = "") -> dict[str, Any]:
        """The service or endpoint of an architecture, or its Lambda function."""
        kind = kind or {"self-hosted": "ecs-service", "managed": "sagemaker-endpoint"}[architecture]
        stack = f"{self.name}-{architecture}"
        (found,) = (
            one for one in self.status()["workloads"] if one["stack"] == stack and one["kind"] == kind
        )
        return dict(found)

    def until(self, holds: Callable[[], bool], seconds: float, what: str) -> float:
        """Looks until it holds; the seconds that took. SystemExit after `seconds`."""
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > seconds:
                raise SystemExit(f"not within {seconds:g} s: {what}")
            time.sleep(0.2)
        return time.monotonic() - began


@contextmanager
def deployed(seconds: float, *, workers: int, revision: str = "") -> Iterator[Deployment]:
    """The script whose call takes `seconds`, on two replicas of each architecture; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="modelstacks-bench-") as folder:
        project = Path(folder) / "project"
        _copy(project, revision)
        _write(project, seconds, workers)
        deployment = Deployment(project, "slow")
        deployment.run("lock", "slow")
        try:
            deployment.run("up", "slow", "--architecture", "both", "--detach", "--json")
            yield deployment
        finally:
            deployment.run("down")


def _copy(project: Path, revision: str) -> None:
    project.mkdir(parents=True)
    if revision:
        archive = subprocess.run(
            ["git", "archive", revision, *FOLDERS, *FILES], cwd=ROOT, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", str(project)], input=archive.stdout, check=True)
    else:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        for name in FOLDERS:
            shutil.copytree(ROOT / name, project / name, ignore=ignored)
        for name in FILES:
            shutil.copy2(ROOT / name, project / name)
    (project / "node_modules").symlink_to(ROOT / "node_modules")
    images = ROOT / ".modelstacks" / "images"
    images.mkdir(parents=True, exist_ok=True)
    (project / ".modelstacks").mkdir()
    (project / ".modelstacks" / "images").symlink_to(images)
    for spec in (project / "deployments").iterdir():
        spec.unlink()


def _write(project: Path, seconds: float, workers: int) -> None:
    model = project / "model_artifacts" / "slow"
    model.mkdir()
    (model / "inference.py").write_text(SCRIPT.format(seconds=seconds), encoding="utf-8")
    # A revision before trust_code existed refuses the key.
    core = (project / "modelstacks" / "core").rglob("*.py")
    trusts = any("trust_code" in file.read_text(encoding="utf-8") for file in core)
    (project / "deployments" / "slow.yaml").write_text(
        "name: slow\n"
        "model: {source: artifact, path: model_artifacts/slow, license: Apache-2.0"
        f"{', trust_code: true' if trusts else ''}}}\n"
        "architecture: managed\n"
        "api: {throttle: {rate: 5000, burst: 5000}}\n"
        "scaling: {min_replicas: 2, max_replicas: 2}\n"
        f"server: {{workers: {workers}}}\n",
        encoding="utf-8",
    )


# ------------------------------------------------------------------------------------------------ the client


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request. `status` 0: the connection broke, or nothing came in time."""

    status: int
    seconds: float  # since the moment at which it should have been sent
    right: bool  # 200 with the very bytes that were to come
    retry_after: str = ""
    detail: str = ""


class Caller:
    """Keep-alive connections to one API, one request at a time on each; nothing is sent twice."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, body: bytes, expected: bytes, due: float) -> Answer:
        """One request. `due` is when it should have been sent, by the loop's clock."""
        loop = asyncio.get_running_loop()
        writer = None
        try:
            async with asyncio.timeout_at(due + PATIENCE):
                reader, writer = await self._connection()
                writer.write(self._request(body))
                status, headers, answer = await _read(reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            if writer is not None:
                writer.transport.abort()
            return Answer(0, loop.time() - due, right=False, detail=type(error).__name__)
        if headers.get("connection") == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        right = status == 200 and answer == expected
        detail = "" if right else answer[:200].decode("utf-8", "replace")
        return Answer(status, loop.time() - due, right, headers.get("retry-after", ""), detail)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
        return await asyncio.open_connection(self._address.host, self._address.port)

    def _request(self, body: bytes) -> bytes:
        at = self._address
        head = (
            f"POST {at.path}/invocations HTTP/1.1\r\nhost: {at.host}:{at.port}\r\nx-api-key: {at.key}\r\n"
            f"content-type: text/plain\r\naccept: text/plain\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def close(self) -> None:
        """Drops the connections."""
        for _, writer in self._idle:
            writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")
    fields = (line.partition(":") for line in lines[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(lines[0].split()[1]), headers, body


def expected_of(body: bytes) -> bytes:
    """The one right answer."""
    return hashlib.sha256(body).hexdigest().encode()


async def offer(
    address: Address, rate: float, seconds: float, seed: int = 1, over: asyncio.Event | None = None
) -> list[Answer]:
    """An open loop: requests are sent when a Poisson process says so, whatever became of the others.

    It ends after `seconds`, or when `over` is set.
    """
    loop, chance = asyncio.get_running_loop(), random.Random(seed)
    caller, tasks = Caller(address), []
    start = due = loop.time()
    while (due := due + chance.expovariate(rate)) < start + seconds and not (over and over.is_set()):
        await asyncio.sleep(max(0.0, due - loop.time()))
        body = f"{seed}-{len(tasks)}-{chance.random()}".encode()
        tasks.append(asyncio.create_task(caller.ask(body, expected_of(body), due)))
    answers = await asyncio.gather(*tasks)
    caller.close()
    return answers


async def one_by_one(address: Address, number: int) -> list[Answer]:
    """A closed loop of one caller: what a request takes when there is no other."""
    loop, caller = asyncio.get_running_loop(), Caller(address)
    answers = []
    for index in range(number):
        body = f"alone-{index}".encode()
        answers.append(await caller.ask(body, expected_of(body), loop.time()))
    caller.close()
    return answers
