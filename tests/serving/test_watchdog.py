"""Workers that hang: noticed and replaced; and those that only seem to, left alone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from model_server import metrics
from model_server.settings import Settings
from model_server.watchdog import LOOK_SECONDS, Thread, Watchdog
from support.model_server import ModelServer, wait_for

PID = 7


@dataclass
class Scene:
    """One worker and the watchdog, in a time of their own."""

    settings: Settings
    now: float = 100.0
    state: str = "S"
    cpu_seconds: float = 0.0
    values: memoryview = field(default_factory=lambda: metrics.SharedMetrics(1).worker(0).values)

    def __post_init__(self) -> None:
        self.watchdog = Watchdog(
            self.settings, clock=lambda: self.now, thread_of=lambda _: Thread(self.state, self.cpu_seconds)
        )
        self.values[metrics.READY] = 1
        self.beat()

    def beat(self) -> None:
        self.values[metrics.BEAT] = int(self.now * metrics.NANOSECONDS)

    def call(self) -> None:
        self.values[metrics.CALL_SINCE] = int(self.now * metrics.NANOSECONDS)

    def passes(self, seconds: float, *, beats: bool = False, used: float = 0.0) -> str:
        """Time passes; the reason of the first finding in it. `used`: the part of it on a processor."""
        for _ in range(round(seconds / LOOK_SECONDS)):
            self.now += LOOK_SECONDS
            self.cpu_seconds += used * LOOK_SECONDS
            if beats:
                self.beat()
            if found := self.watchdog.look({PID: self.values}):
                return found[PID]
        return ""


def scene(**settings: float) -> Scene:
    return Scene(Settings(model_name="m", stall_seconds=5, **settings))  # type: ignore[arg-type]


def test_an_event_loop_that_beats_is_left_alone() -> None:
    assert scene().passes(600, beats=True) == ""


@pytest.mark.parametrize(
    ("state", "used", "why"),
    [("T", 0.0, "it has been stopped for"), ("S", 0.0, "event loop has not run"), ("R", 1.0, "event loop")],
)
def test_a_worker_that_is_stopped_or_waits_or_spins_is_found(state: str, used: float, why: str) -> None:
    one = scene()
    one.state = state
    assert one.passes(5, used=used) == ""
    assert why in one.passes(1.5, used=used)


@pytest.mark.parametrize("state", ["R", "D"])
def test_a_worker_that_gets_no_processor_or_waits_for_the_disk_is_left_alone(state: str) -> None:
    one = scene()
    one.state = state
    assert one.passes(120, used=0.01) == ""


def test_a_machine_that_was_suspended_is_no_reason() -> None:
    one = scene()
    one.passes(1, beats=True)
    one.now += 3600
    assert one.passes(4) == ""
    assert one.passes(60, beats=True) == ""


def test_a_worker_that_loads_its_model_is_left_alone() -> None:
    one = scene()
    one.values[metrics.READY] = 0
    assert one.passes(600) == ""


def test_a_long_call_is_left_alone_while_the_event_loop_beats() -> None:
    one = scene()
    one.call()
    assert one.passes(600, beats=True) == ""


def test_a_call_that_keeps_the_interpreter_has_a_minute() -> None:
    one = scene()
    one.state = "R"
    one.call()
    assert one.passes(59, used=1.0) == ""
    assert "event loop has not run" in one.passes(5, used=1.0)


def test_a_stopped_worker_is_found_within_a_call_too() -> None:
    one = scene()
    one.state = "T"
    one.call()
    assert "stopped" in one.passes(6.5)


@pytest.mark.parametrize(
    ("settings", "limit"),
    [({"deadline_seconds": 27}, 108), ({"deadline_seconds": 1}, 60), ({"call_seconds": 10}, 10)],
)
def test_a_call_far_beyond_its_deadline_is_found(settings: dict[str, float], limit: float) -> None:
    one = scene(**settings)
    one.call()
    assert one.passes(limit, beats=True) == ""
    assert "a call of the engine has taken" in one.passes(2, beats=True)


def test_calls_one_after_another_are_not_one_long_call() -> None:
    one = scene(call_seconds=10)
    for _ in range(20):
        one.call()
        assert one.passes(8, beats=True) == ""


def test_zero_seconds_switch_it_off() -> None:
    one = Scene(Settings(model_name="m", stall_seconds=0))
    assert not one.watchdog.on
    one.state = "T"
    assert one.passes(600) == ""


# --------------------------------------------------------------------------------------- with real processes

SCRIPT = """
import ctypes, os, pathlib, threading, time
def model_fn(d): return pathlib.Path(d)
def hang():
    time.sleep(0.5)  # until the call is over
    ctypes.PyDLL(None).sleep(1000)  # and keeps the interpreter
def transform_fn(d, body, kind, accept):
    body = body if isinstance(body, str) else body.decode()
    if body == "hang": threading.Thread(target=hang, daemon=True).start()
    while body == "hold" and (d / "hold").exists(): time.sleep(0.01)
    while body == "forever": time.sleep(0.01)
    if body == "long": time.sleep(3)
    return str(os.getpid())
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "inference.py").write_text(SCRIPT, encoding="utf-8")
    return tmp_path


def ask(server: ModelServer, body: str) -> httpx.Response:
    return httpx.post(
        f"{server.url}/invocations", content=body, headers={"content-type": "text/plain"}, timeout=60
    )


def two_workers(start: Callable[..., ModelServer], model: Path, **settings: object) -> ModelServer:
    server = start(model, workers=2, **settings)
    wait_for(lambda: server.metric("model_server_workers_ready") == 2, 60)
    return server


def test_a_stopped_worker_is_replaced_while_the_other_answers(
    start: Callable[..., ModelServer], model: Path
) -> None:
    server = two_workers(start, model, stall_seconds=1)
    victim = server.workers[0]
    victim.send_signal(signal.SIGSTOP)
    wait_for(lambda: len(server.workers) == 2 and victim.pid not in [one.pid for one in server.workers], 60)
    wait_for(lambda: server.metric("model_server_workers_ready") == 2, 60)
    assert ask(server, "x").status_code == 200
    assert server.metric("model_server_worker_restarts_total") == 1
    messages = [line["message"] for line in server.log()]
    assert any(f"worker {victim.pid} is stuck: it has been stopped for" in one for one in messages)
    assert f"worker {victim.pid} was ended for being stuck" in messages


def test_a_worker_whose_event_loop_hangs_is_replaced_and_writes_where_it_was(
    start: Callable[..., ModelServer], model: Path
) -> None:
    server = two_workers(start, model, stall_seconds=1)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, server, "hang")
        wait_for(lambda: any("event loop has not run" in line["message"] for line in server.log()), 60)
        wait_for(lambda: server.metric("model_server_worker_restarts_total") == 1, 60)
        assert asked.result().status_code == 200
    assert "in hang" in server.log_path.read_text(encoding="utf-8")
    assert ask(server, "x").status_code == 200


def test_a_call_that_never_ends_is_ended_and_what_it_was_asked_is_lost(
    start: Callable[..., ModelServer], model: Path
) -> None:
    server = start(model, workers=1, call_seconds=1)
    with pytest.raises(httpx.TransportError):
        ask(server, "forever")
    wait_for(lambda: server.metric("model_server_worker_restarts_total") == 1, 60)
    server.wait_until_ready()
    assert ask(server, "x").status_code == 200
    assert any("a call of the engine has taken" in line["message"] for line in server.log())


def test_a_call_longer_than_the_stall_is_answered(start: Callable[..., ModelServer], model: Path) -> None:
    server = start(model, workers=1, stall_seconds=1)
    assert ask(server, "long").status_code == 200
    assert server.metric("model_server_worker_restarts_total") == 0


def test_a_server_that_was_paused_as_a_whole_goes_on(start: Callable[..., ModelServer], model: Path) -> None:
    (model / "hold").touch()
    server = two_workers(start, model, stall_seconds=1)
    everything = [psutil.Process(server.process.pid), *server.workers]
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, server, "hold")
        wait_for(lambda: server.metric("model_server_requests_in_flight") == 2, 30)  # with this question
        for process in everything:
            process.send_signal(signal.SIGSTOP)
        # As long as would be noticed if the workers alone were stopped.
        paused = psutil.Process(server.process.pid)
        wait_for(lambda: paused.status() == psutil.STATUS_STOPPED, 30)
        with pytest.raises(AssertionError):
            wait_for(lambda: False, 4)
        for process in everything:
            process.send_signal(signal.SIGCONT)
        (model / "hold").unlink()
        assert asked.result().status_code == 200
    assert server.metric("model_server_worker_restarts_total") == 0
