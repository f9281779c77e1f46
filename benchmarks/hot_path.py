"""What a one-row request costs the model server's own code, without sockets, beside another commit's server.

    python -m benchmarks.hot_path [--model digits-onnx] [--rounds 9] [--against REVISION]

Bytes go into a connection, an answer comes out of it: parser, dispatch, validation, the engine, the answer,
the counters. Each round is a process of its own for each server, one after the other. The least processor
time of many short slices excludes most of what other work on the machine does to a process. So the figure can
be had on a busy machine, where `benchmarks.serve load` cannot be trusted. The interpreter's instructions and
calls for one request are counted, too: these two are exact.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, NamedTuple

HEADER = ["server", "us/request, least", "median of the rounds' least", "instructions", "calls"]
SLICES, REQUESTS = 1500, 20


def main(arguments: Sequence[str] | None = None) -> int:
    from benchmarks.contestants import ROOT, serving_at
    from benchmarks.serve import MODELS, machine, markdown

    parser = argparse.ArgumentParser("python -m benchmarks.hot_path", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="digits-onnx", help="a folder of model_artifacts/")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--against", metavar="REVISION", help="another commit's server, side by side")
    options = parser.parse_args(arguments)
    servers = {"this": ROOT / "serving"}
    if options.against:
        servers[options.against] = serving_at(options.against)
    measured: dict[str, list[Cost]] = {name: [] for name in servers}
    for _ in range(options.rounds):
        for name, folder in servers.items():
            measured[name].append(_measure(folder, MODELS / options.model))
    costs = {name: [cost.seconds for cost in taken] for name, taken in measured.items()}
    rows = [
        [
            name,
            f"{min(costs[name]) * 1e6:.2f}",
            f"{median(costs[name]) * 1e6:.2f}",
            f"{min(cost.instructions for cost in taken):,}",
            f"{min(cost.calls for cost in taken)}",
        ]
        for name, taken in measured.items()
    ]
    words = " ".join(sys.argv[1:] if arguments is None else arguments)
    sys.stdout.write(f"`python -m benchmarks.hot_path {words}` on {machine()}\n\n")
    sys.stdout.write(markdown(HEADER, rows))
    if options.against:
        pairs = zip(costs[options.against], costs["this"], strict=True)
        ratios = sorted(then / now for then, now in pairs)
        sys.stdout.write(
            f"\nRequests for the same processor time, this server to {options.against}: "
            f"{min(costs[options.against]) / min(costs['this']):.3f} by the least, "
            f"{median(ratios):.3f} by the rounds' ratios ({ratios[0]:.3f} to {ratios[-1]:.3f}).\n"
        )
    return 0


class Cost(NamedTuple):
    """What one request costs."""

    seconds: float  # of processor time, the least of many slices
    instructions: int  # of Python's interpreter
    calls: int  # of Python functions


def _measure(folder: Path, model: Path) -> Cost:
    """A request's cost, from a process that imports the server in `folder`."""
    done = subprocess.run(
        [sys.executable, __file__, "child", str(model)],
        env=os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return Cost(*json.loads(done.stdout))


class _Transport:
    """Takes what is written, and counts the answers."""

    def __init__(self) -> None:
        self.answers = 0
        self.wrong = b""
        self._came = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.answers += 1
        if not data.startswith(b"HTTP/1.1 200 OK"):
            self.wrong = data
        self._came.set()

    async def answered(self, count: int) -> None:
        """Waits until there are so many answers."""
        while self.answers < count:
            self._came.clear()
            await self._came.wait()

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def _run(model: Path) -> Cost:
    from model_server import metrics
    from model_server.app import Application
    from model_server.http import Server
    from model_server.settings import Settings
    from model_server.worker import load_engine, settle

    settings = Settings(model_name="model", model_dir=model, threads=1)
    counters = metrics.SharedMetrics(1).worker(0)
    application = Application(settings, counters)
    server = Server(application, settings, counters)
    application.server = server
    engine, seconds = load_engine(model, settings)
    application.install(engine, asyncio.get_running_loop(), seconds)
    connection: Any = server()
    transport = _Transport()
    connection.connection_made(transport)
    request = _request(model)
    settle()

    least = float("inf")
    for _ in range(SLICES):
        transport.answers, disturbed = 0, False
        started = time.process_time()
        for sent in range(1, REQUESTS + 1):
            connection.data_received(request)
            if transport.answers != sent:  # a call that took long for once sends the next one to the thread
                disturbed = True
                await transport.answered(sent)
        if not disturbed:
            least = min(least, (time.process_time() - started) / REQUESTS)
        await asyncio.sleep(0)
    counted = [_count(connection, request) for _ in range(5)]
    assert not transport.wrong, transport.wrong
    return Cost(least, *min(counted))


def _count(connection: Any, request: bytes) -> tuple[int, int]:
    """The interpreter's instructions and calls for one request."""
    instructions = calls = 0

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        nonlocal instructions, calls
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        instructions += event == "opcode"
        calls += event == "call"
        return trace

    sys.settrace(trace)
    connection.data_received(request)
    sys.settrace(None)
    return instructions, calls


def _request(model: Path) -> bytes:
    """One held-out row, as a load balancer would send it."""
    import numpy as np

    body = json.dumps({"instances": [np.load(model / "holdout.npy")[0].tolist()]}).encode()
    lines = [
        "POST /invocations HTTP/1.1",
        "host: 127.0.0.1",
        "content-type: application/json",
        "x-amzn-trace-id: Root=1-67891233-abcdef012345678912345678",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        sys.stdout.write(f"{json.dumps(asyncio.run(_run(Path(sys.argv[2]))))}\n")
        raise SystemExit(0)
    raise SystemExit(main())
