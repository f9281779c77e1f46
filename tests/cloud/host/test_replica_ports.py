"""Only the daemon reaches a replica's port: no other program of this machine, and no web page."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.browser import CHROMIUM, Site, browser
from support.sandboxes import environment, sandbox

from modelstacks.cloud.daemon.state import StateDirectory
from modelstacks.cloud.host.containers import run_container
from modelstacks.cloud.host.listener import listen
from modelstacks.cloud.host.pool import Pool
from modelstacks.cloud.host.replicas import Registry, Replica
from modelstacks.cloud.host.wire import ConnectionLost, Request, Response
from modelstacks.cloud.workloads.faults import Faults

SERVER = """
import os, sys, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        print("asked", self.path, flush=True)
        body = b"pong"
        if self.path == "/far":
            body = urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/near").read()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *_): pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["MODEL_SERVER_PORT"])), Handler).serve_forever()
"""
SCRIPT = """
(async () => {
  const results = {};
  for (const [name, options] of Object.entries({
    "no-cors": {method: "POST", mode: "no-cors", body: "{}"}, "cors": {}, "navigation": {mode: "no-cors"}})) {
    try { results[name] = (await fetch(TARGET, options)).type; } catch (error) { results[name] = "failed"; }
  }
  await fetch("/results", {method: "POST", body: JSON.stringify(results)});
})();
"""


@dataclass(frozen=True)
class Image:
    """An interpreter, and one program beside it."""

    root: Path
    python: Path
    cmd: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    exposed_port: int | None = 8080
    entrypoint: tuple[str, ...] = ()


@dataclass
class Computer:
    """A machine with a registry and nothing else of a cloud."""

    state: StateDirectory
    registry: Registry
    pool: Pool = field(default_factory=Pool)
    faults: Faults = field(default_factory=Faults)


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    state = StateDirectory(tmp_path / "home")
    state.project.mkdir()
    state.prepare()
    return Computer(state, Registry(state.logs, lambda: None, sandbox("bubblewrap")))


async def serving(computer: Computer, folder: Path, gateway: int) -> Replica:
    """A replica that answers."""
    root = folder / "image"
    python = environment(root / "venv")
    (root / "program.py").write_text(SERVER)
    replica = await run_container(
        computer,
        kind="ecs-task",
        workload="churn",
        image=Image(root, python),
        entrypoint=("python", "-u", str(root / "program.py")),
        arguments=(),
        environment={"AWS_ENDPOINT_URL": f"http://127.0.0.1:{gateway}"},
        log_group="/ecs/churn",
        log_stream="churn/{id}",
        on_end=lambda _: None,
    )
    while True:
        try:
            assert await ask(computer, replica, "/ping") == b"pong"
        except ConnectionLost:
            assert replica.alive, replica.log.read_text()
            await asyncio.sleep(0.05)
        else:
            return replica


async def ask(computer: Computer, replica: Replica, path: str) -> bytes:
    assert replica.port is not None
    return await (await computer.pool.send(Request("GET", path), replica.port)).read()


def run(work: Callable[[int], Awaitable[Any]]) -> Any:
    """Run with a gateway that answers, on its own port."""

    async def whole() -> Any:
        async def gateway(request: Request) -> Response:
            return Response(200, body=f"the way to AWS: {request.path}".encode())

        listener = await listen(gateway)
        try:
            return await work(listener.port)
        finally:
            await listener.close()

    return asyncio.run(whole())


def test_the_daemon_reaches_it_and_another_program_does_not(computer: Computer, tmp_path: Path) -> None:
    async def work(gateway: int) -> None:
        replica = await serving(computer, tmp_path, gateway)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", replica.port or 0), 5)
        answers = await asyncio.gather(*(ask(computer, replica, f"/{number}") for number in range(3)))
        await replica.stop(0)
        assert answers == [b"pong"] * 3

    run(work)


def test_it_reaches_its_way_to_aws(computer: Computer, tmp_path: Path) -> None:
    async def work(gateway: int) -> bytes:
        replica = await serving(computer, tmp_path, gateway)
        found = await ask(computer, replica, "/far")
        await replica.stop(0)
        return found

    assert run(work) == b"the way to AWS: /near"


def test_once_it_has_ended_its_connections_are_refused(computer: Computer, tmp_path: Path) -> None:
    async def work(gateway: int) -> None:
        replica = await serving(computer, tmp_path, gateway)
        await replica.stop(0)
        with pytest.raises(ConnectionLost):
            await ask(computer, replica, "/ping")

    run(work)


@contextmanager
def visiting(target: str) -> Iterator[Site]:
    """A browser that shows a page which asks the target."""
    site = Site(SCRIPT.replace("TARGET", json.dumps(target)))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [*browser(profile), "--remote-debugging-port=0", site.url]
        shown = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield site
        finally:
            shown.terminate()
            shown.wait(20)
            site.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium")
def test_a_page_in_chromium_does_not_reach_it(computer: Computer, tmp_path: Path) -> None:
    async def work(gateway: int) -> tuple[dict[str, str], str]:
        replica = await serving(computer, tmp_path, gateway)
        before = replica.log.read_text()
        with visiting(f"http://127.0.0.1:{replica.port}/invocations") as site:
            results = await asyncio.to_thread(site.results.get, timeout=90)
        after = replica.log.read_text()
        await replica.stop(0)
        return results, after.removeprefix(before)

    results, seen = run(work)
    assert results == {"no-cors": "failed", "cors": "failed", "navigation": "failed"}
    assert seen == ""
