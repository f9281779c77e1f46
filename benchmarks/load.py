"""The load generator: one process, uvloop, keep-alive connections that each have one request under way.

It reads of an answer only what HTTP/1.1 needs to find its end, so it costs about as much as the cheapest
server here. `Result.client_cpu` says how busy it was: near 1.0 means that the server could have been faster.
"""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass
from typing import cast

import uvloop

WARM_UP_SECONDS = 0.15
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


@dataclass(frozen=True, slots=True)
class Result:
    """What one slice saw. Latencies are seconds; errors are answers other than 200 and lost connections."""

    requests_per_second: float
    p50: float
    p99: float
    errors: int
    requests: int
    client_cpu: float


def post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of one POST request."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + _HEAD_END + body


def run(port: int, request: bytes, connections: int, seconds: float) -> Result:
    """Sends `request` over and over through so many connections for `seconds`, after a short warm-up."""
    return uvloop.run(_run(port, request, connections, seconds))


class _Connection(asyncio.Protocol):
    """Sends the request, waits for the whole answer, notes its latency and sends again."""

    def __init__(self, slice_: _Slice) -> None:
        self.slice = slice_
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.sent = time.perf_counter()
        self.transport.write(self.slice.request)

    def data_received(self, data: bytes) -> None:
        if self.buffer:
            data = self.buffer + data
        if not _is_whole(data):
            self.buffer = data
            return
        self.buffer = b""
        now = time.perf_counter()
        self.slice.latencies.append(now - self.sent)
        if data[9:12] != b"200":
            self.slice.errors += 1
        self.sent = now
        self.transport.write(self.slice.request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.slice.lost(self)


def _is_whole(data: bytes) -> bool:
    end = data.find(_HEAD_END)
    if end < 0:
        return False
    head = data[:end].lower()
    at = head.find(_LENGTH)
    if at >= 0:
        stop = head.find(b"\r", at)
        length = int(head[at + len(_LENGTH) : stop if stop >= 0 else None])
        return len(data) >= end + len(_HEAD_END) + length
    return data.endswith(b"0\r\n\r\n")  # chunked


class _Slice:
    """The state that all connections of one slice share."""

    def __init__(self, port: int, request: bytes) -> None:
        self.port = port
        self.request = request
        self.latencies: list[float] = []
        self.errors = 0
        self.connections: set[_Connection] = set()
        self.reconnections: set[asyncio.Task[None]] = set()
        self.open = True

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.port)
            self.connections.add(connection)
        except OSError:
            self.errors += 1

    def lost(self, connection: _Connection) -> None:
        """The server hung up: an error, and a new connection in its place."""
        self.connections.discard(connection)
        if self.open:
            self.errors += 1
            task = asyncio.ensure_future(self.connect())
            self.reconnections.add(task)
            task.add_done_callback(self.reconnections.discard)

    def close(self) -> None:
        self.open = False
        for connection in self.connections:
            connection.transport.abort()


async def _run(port: int, request: bytes, connections: int, seconds: float) -> Result:
    slice_ = _Slice(port, request)
    await asyncio.gather(*(slice_.connect() for _ in range(connections)))
    await asyncio.sleep(WARM_UP_SECONDS)
    gc.collect()
    gc.disable()
    slice_.latencies.clear()
    slice_.errors = 0
    cpu, start = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    latencies = sorted(slice_.latencies)
    gc.enable()
    slice_.close()
    await asyncio.sleep(0)
    return Result(
        requests_per_second=len(latencies) / elapsed,
        p50=percentile(latencies, 0.50),
        p99=percentile(latencies, 0.99),
        errors=slice_.errors,
        requests=len(latencies),
        client_cpu=cpu / elapsed,
    )


def percentile(ordered: list[float], fraction: float) -> float:
    """The value below which `fraction` of the ascending values lie; infinite where there are none."""
    if not ordered:
        return float("inf")
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]
