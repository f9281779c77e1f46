"""What a replica sees and reaches in each sandbox of this machine, how it is stopped, what its end says."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.sandboxes import MECHANISMS, environment, sandbox

from modelstacks.cloud.daemon.state import MARKER, StateDirectory
from modelstacks.cloud.host.containers import run_container
from modelstacks.cloud.host.pool import Pool
from modelstacks.cloud.host.replicas import Registry, Replica
from modelstacks.cloud.workloads.faults import Faults

#: Tries what a hostile model would, and writes what came of it to its log.
PROBE = """
import json, os, socket, sys
home, other, gateway, elsewhere = sys.argv[1:]
def attempt(work):
    try:
        work()
    except OSError as error:
        return type(error).__name__
    return "done"
def listen(port):
    socket.create_server(("127.0.0.1", port)).close()
def connect(port):
    socket.create_connection(("127.0.0.1", int(port)), 5).close()
mine = int(os.environ["MODEL_SERVER_PORT"])
model = os.environ["MODEL_SERVER_MODEL_DIR"]
print(json.dumps({
    "state": attempt(lambda: open(home + "/.modelstacks/state.json")),
    "home": attempt(lambda: os.listdir(home)) if os.path.isdir(home) else "FileNotFoundError",
    "other replica": attempt(lambda: open(other)),
    "image": attempt(lambda: open(os.path.dirname(__file__) + "/canary", "w")),
    "model": attempt(lambda: open(model + "/canary", "w")),
    "read model": attempt(lambda: open(model + "/weights")),
    "own folder": attempt(lambda: open("mine", "w")),
    "own port": attempt(lambda: listen(mine)),
    "other port": attempt(lambda: listen(0)),
    "gateway": attempt(lambda: connect(gateway)),
    "elsewhere": attempt(lambda: connect(elsewhere)),
    "datagrams": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "environment": sorted(os.environ),
    "values": list(os.environ.values()),
}), flush=True)
"""
#: Ends with code 7 when it is told to, after a moment in which it answers what is under way.
GRACEFUL = """
import signal, sys, time
def leave(*_):
    print("draining", flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
while True:
    time.sleep(3600)
"""


@dataclass(frozen=True)
class Image:
    """An interpreter, and one program beside it."""

    root: Path
    python: Path
    program: Path
    cmd: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    exposed_port: int | None = 8080

    @property
    def entrypoint(self) -> tuple[str, ...]:
        return ("python", "-u", str(self.program))


@dataclass
class Computer:
    """A machine with a registry and nothing else of a cloud."""

    state: StateDirectory
    registry: Registry
    pool: Pool = field(default_factory=Pool)
    faults: Faults = field(default_factory=Faults)


@dataclass
class Bench:
    """A project's state folder with a registry in one kind of sandbox, and nothing else of a cloud."""

    folder: Path
    machine: Computer

    def image(self, source: str) -> Image:
        root = self.folder / "image"
        python = environment(root / "venv")
        (root / "program.py").write_text(source)
        return Image(root, python, root / "program.py")

    async def start(
        self, image: Image, *arguments: str, model: Path | None = None, gateway: int = 49_151
    ) -> tuple[Replica, asyncio.Event]:
        """A replica, and an event that is set when it has ended."""
        ended = asyncio.Event()
        replica = await run_container(
            self.machine,
            kind="ecs-task",
            workload="churn",
            image=image,
            entrypoint=image.entrypoint,
            arguments=arguments,
            environment={"GREETING": "hello", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{gateway}"},
            log_group="/ecs/churn",
            log_stream="churn/{id}",
            on_end=lambda _: ended.set(),
            model_directory=model,
        )
        return replica, ended


@pytest.fixture(params=MECHANISMS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bench(kind: str, tmp_path: Path) -> Bench:
    state = StateDirectory(tmp_path / "home")
    state.project.mkdir()
    state.prepare()
    state.state_file.write_text('{"token": "secret"}')
    registry = Registry(state.logs, lambda: None, sandbox(kind))
    machine = Computer(state, registry)
    return Bench(tmp_path, machine)


def wait(work: Callable[[], Awaitable[Any]]) -> Any:
    async def within() -> Any:
        return await asyncio.wait_for(work(), 60)

    return asyncio.run(within())


async def said(replica: Replica, text: str) -> None:
    while not replica.log.exists() or text not in replica.log.read_text():
        await asyncio.sleep(0.01)


def test_a_replica_sees_and_reaches_its_own_only(
    bench: Bench, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = bench.machine.state.project
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv(MARKER, str(home / ".modelstacks"))
    (other := bench.machine.state.work / "replicas/other").mkdir(parents=True)
    (other / "model.bin").write_text("another model")
    (model := bench.machine.state.work / "models/mine").mkdir(parents=True)
    (model / "weights").write_text("weights")
    image = bench.image(PROBE)

    async def probe() -> Replica:
        with (
            socket.create_server(("127.0.0.1", 0)) as gateway,
            socket.create_server(("127.0.0.1", 0)) as elsewhere,
        ):
            ports = [one.getsockname()[1] for one in (gateway, elsewhere)]
            replica, ended = await bench.start(
                image, str(home), str(other / "model.bin"), *map(str, ports), model=model, gateway=ports[0]
            )
            await ended.wait()
            return replica

    replica = wait(probe)
    assert replica.exit_code == 0, replica.log.read_text()
    found = json.loads(replica.log.read_text())
    denied = {"PermissionError", "FileNotFoundError", "OSError", "ConnectionRefusedError"}
    # bwrap shows the folders on the way to its own, empty of everything else.
    seen = {"read model", "own folder", "own port", "gateway"} | ({"home"} if kind == "bubblewrap" else set())
    for what in seen:
        assert found[what] == "done", what
    for what in ("state", "other replica", "image", "model", "other port", "elsewhere", "datagrams"):
        assert found[what] in denied, what
    assert "hush" not in found["values"]
    assert "GREETING" in found["environment"]
    assert (MARKER in found["environment"]) == (kind != "bubblewrap")
    assert [path.name for path in model.iterdir()] == ["weights"]
    assert not (image.root / "canary").exists()


def test_a_replica_is_told_to_stop_and_may_finish(bench: Bench) -> None:
    async def stop() -> Replica:
        replica, _ = await bench.start(bench.image(GRACEFUL))
        await said(replica, "ready\n")
        await replica.stop(30)
        return replica

    replica = wait(stop)
    assert replica.log.read_text() == "ready\ndraining\n"
    assert (replica.state, replica.exit_code) == ("stopped", 7)


def test_a_replica_that_is_told_to_stop_before_it_began_ends_at_once(bench: Bench) -> None:
    async def stop() -> Replica:
        replica, _ = await bench.start(bench.image("import time; time.sleep(3600)"))
        await replica.stop(50)
        return replica

    assert wait(stop).state == "stopped"  # by SIGTERM, and not by SIGKILL after 50 s: the test waits for less


def test_a_replica_that_is_killed_leaves_nothing(bench: Bench) -> None:
    source = "import os, time\nos.fork()\nprint('ready', flush=True)\ntime.sleep(3600)"

    async def kill() -> tuple[Replica, list[psutil.Process]]:
        replica, ended = await bench.start(bench.image(source))
        await said(replica, "ready\nready")
        assert replica.pid
        process = psutil.Process(replica.pid)
        family = [process, *process.children(recursive=True)]
        replica.kill()
        await ended.wait()
        return replica, family

    replica, family = wait(kill)
    assert (replica.exit_code, replica.reason) == (-signal.SIGKILL, "killed by SIGKILL: ready")
    assert psutil.wait_procs(family, timeout=30)[1] == []


@pytest.mark.parametrize(
    ("source", "code", "reason"),
    [
        ("raise SystemExit('no model here')", 1, "exited with code 1: no model here"),
        ("import os, sys; print('hm', flush=True); os._exit(200)", 200, "exited with code 200: hm"),
        ("import os; os.kill(os.getpid(), 11)", -signal.SIGSEGV, "killed by SIGSEGV"),
    ],
    ids=["an error", "a high exit code", "a signal"],
)
def test_the_end_of_a_replica_says_why(bench: Bench, source: str, code: int, reason: str) -> None:
    async def die() -> Replica:
        replica, ended = await bench.start(bench.image(source))
        await ended.wait()
        return replica

    replica = wait(die)
    assert (replica.state, replica.exit_code, replica.reason) == ("failed", code, reason)


def test_a_program_that_is_not_in_the_image_is_named(bench: Bench) -> None:
    image = bench.image("")

    async def die() -> Replica:
        image.python.unlink()
        replica, ended = await bench.start(image)
        await ended.wait()
        return replica

    reason = wait(die).reason
    assert reason is not None
    assert "No such file or directory" in reason


def test_a_crashed_daemon_leaves_a_mark_on_what_it_started(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that `down` finds the processes that state.json does not name yet."""
    state = bench.machine.state
    monkeypatch.setenv(MARKER, str(state.root))
    state.forget()

    async def begin() -> Replica:
        replica, ended = await bench.start(bench.image(GRACEFUL))
        await said(replica, "ready")
        assert replica.pid in await asyncio.to_thread(state.clean)
        await ended.wait()
        return replica

    assert wait(begin).exit_code is not None
