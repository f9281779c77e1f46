"""Counters in memory that all workers share, rendered in Prometheus' text form.

Each worker adds to its own slot (a plain integer add in a memoryview, some tens of nanoseconds); whichever
worker is asked for /metrics sums the slots. A slot outlives its worker, so that a restart loses no count.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from model_server.routes import ROUTES

PATHS = (*dict.fromkeys(route.path for route in ROUTES), "other")  # the values of the label `route`
STATUSES = (200, 400, 404, 405, 406, 408, 413, 414, 415, 417, 422, 429, 431, 500, 501, 503, 504)
SECONDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
NANOSECONDS = 1e9

_STATUS = {status: index for index, status in enumerate(STATUSES)}
_FAILED = _STATUS[500]
# Offsets in a route's part of a slot: of the buckets, and from there of the sum.
_BUCKETS, _SUM = len(STATUSES), len(SECONDS) + 1
_PER_ROUTE = len(STATUSES) + len(SECONDS) + 2  # statuses, buckets with the last open, sum

# Offsets in a slot.
_ROUTES_END = len(PATHS) * _PER_ROUTE
_BATCH = _ROUTES_END  # buckets with the last open, sum of rows, batches
_BATCH_SUM = _BATCH + len(SIZES) + 1
QUEUE_DEPTH = _BATCH_SUM + 1
IN_FLIGHT = QUEUE_DEPTH + 1
CONNECTIONS = IN_FLIGHT + 1
DROPPED = CONNECTIONS + 1
REJECTED = DROPPED + 1
LOAD_NANOSECONDS = REJECTED + 1
ENGINE_NANOSECONDS = LOAD_NANOSECONDS + 1
READY = ENGINE_NANOSECONDS + 1
RESTARTS = READY + 1
PARALLEL = RESTARTS + 1  # 1: the engine is itself parallel; for the supervisor
DEBT = PARALLEL + 1  # nanoseconds of the engine that refused requests would have taken (admission.py)
CHUNKS = DEBT + 1  # of streamed answers
STREAM_COMPLETED = CHUNKS + 1
STREAM_GONE = STREAM_COMPLETED + 1
STREAM_CUT = STREAM_GONE + 1
STREAM_FAILED = STREAM_CUT + 1
_FIRST_CHUNK = STREAM_FAILED + 1  # buckets with the last open, sum
HANDED_OVER = _FIRST_CHUNK + len(SECONDS) + 2  # requests that went to a sibling (handover.py)
# Nanoseconds of the clock that all processes of a machine share (time.perf_counter):
FREE_AT = HANDED_OVER + 1  # when a new request would begin; 0: siblings may send none
BEAT = FREE_AT + 1  # when the event loop last showed that it runs
CALL_SINCE = BEAT + 1  # when the call that runs on the engine's thread began; 0: none does
_SLOT = CALL_SINCE + 1
# How a stream ended.
OUTCOMES = {
    STREAM_COMPLETED: "completed",
    STREAM_GONE: "gone",
    STREAM_CUT: "cut",
    STREAM_FAILED: "failed",
}
# Values that are valid only while the worker runs.
GAUGES = (READY, CONNECTIONS, IN_FLIGHT, QUEUE_DEPTH, DEBT, FREE_AT, BEAT, CALL_SINCE)


class SharedMetrics:
    """Memory for every worker's slot, made before the workers are forked."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.values = memoryview(mmap.mmap(-1, workers * _SLOT * 8)).cast("q")

    def worker(self, index: int) -> WorkerMetrics:
        return WorkerMetrics(self.values[index * _SLOT : (index + 1) * _SLOT], self)

    def sum(self, offset: int) -> int:
        return sum(self.values[worker * _SLOT + offset] for worker in range(self.workers))

    def each(self, offset: int) -> list[int]:
        return [self.values[worker * _SLOT + offset] for worker in range(self.workers)]


class WorkerMetrics:
    """One worker's slot. Gauges are written as they change, counters only grow."""

    def __init__(self, values: memoryview, shared: SharedMetrics) -> None:
        self.values = values
        self.shared = shared

    def owe(self, seconds: float) -> None:
        self.values[DEBT] = int(seconds * NANOSECONDS)

    def most_owed(self) -> float:
        shared = self.shared
        return (self.values[DEBT] if shared.workers == 1 else max(shared.each(DEBT))) / NANOSECONDS

    def request(self, route: int, status: int, seconds: float) -> None:
        at = route * _PER_ROUTE
        values = self.values
        values[at + _STATUS.get(status, _FAILED)] += 1
        at += _BUCKETS
        values[at + bisect_left(SECONDS, seconds)] += 1
        values[at + _SUM] += int(seconds * NANOSECONDS)

    def first_chunk(self, seconds: float) -> None:
        """A streamed answer has begun."""
        self.values[_FIRST_CHUNK + bisect_left(SECONDS, seconds)] += 1
        self.values[_FIRST_CHUNK + len(SECONDS) + 1] += int(seconds * NANOSECONDS)

    def stream(self, outcome: int) -> None:
        """A streamed answer has ended, in one of OUTCOMES."""
        self.values[outcome] += 1
        if outcome == STREAM_GONE:
            self.values[DROPPED] += 1

    def batch(self, rows: int, seconds: float) -> None:
        values = self.values
        values[_BATCH + bisect_left(SIZES, rows)] += 1
        values[_BATCH_SUM] += rows
        values[ENGINE_NANOSECONDS] += int(seconds * NANOSECONDS)


def render(shared: SharedMetrics) -> bytes:
    """Every metric in Prometheus' text form."""
    families = [*_of_requests(shared), *_of_batches(shared), *_of_streams(shared), *_single(shared)]
    lines: list[str] = []
    for name, kind, text, samples in families:
        lines.extend((f"# HELP {name} {text}", f"# TYPE {name} {kind}", *samples))
    return ("\n".join(lines) + "\n").encode()


Family = tuple[str, str, str, Sequence[str]]  # name, kind, help, samples


def _of_requests(shared: SharedMetrics) -> Iterator[Family]:
    name, latency = "model_server_requests_total", "model_server_request_seconds"
    requests, latencies = [], []
    for index, route in enumerate(PATHS):
        at = index * _PER_ROUTE
        for offset, status in enumerate(STATUSES):
            count = shared.sum(at + offset)
            if count:
                requests.append(f'{name}{{route="{route}",status="{status}"}} {count}')
        at += len(STATUSES)
        counts = [shared.sum(at + i) for i in range(len(SECONDS) + 1)]
        if sum(counts):
            total = shared.sum(at + len(SECONDS) + 1) / NANOSECONDS
            latencies += _histogram(latency, f'route="{route}"', SECONDS, counts, total)
    yield name, "counter", "Requests answered, by route and status.", requests
    yield latency, "histogram", "From the whole request read to its answer.", latencies


def _of_batches(shared: SharedMetrics) -> Iterator[Family]:
    name = "model_server_batch_rows"
    counts = [shared.sum(_BATCH + i) for i in range(len(SIZES) + 1)]
    samples = _histogram(name, "", SIZES, counts, shared.sum(_BATCH_SUM))
    yield name, "histogram", "Rows in one call of the engine.", samples


def _of_streams(shared: SharedMetrics) -> Iterator[Family]:
    name, first = "model_server_streams_total", "model_server_first_chunk_seconds"
    streams = [
        f'{name}{{outcome="{outcome}"}} {count}'
        for offset, outcome in OUTCOMES.items()
        if (count := shared.sum(offset))
    ]
    yield name, "counter", "Streamed answers, by how they ended.", streams
    counts = [shared.sum(_FIRST_CHUNK + i) for i in range(len(SECONDS) + 1)]
    total = shared.sum(_FIRST_CHUNK + len(SECONDS) + 1) / NANOSECONDS
    text = "From the whole request read to the first chunk of a streamed answer."
    yield first, "histogram", text, _histogram(first, "", SECONDS, counts, total)


# Name, kind and help of the metrics that are one number, and how the workers' numbers become one.
_SINGLE: tuple[tuple[str, str, str, Callable[[SharedMetrics], float]], ...] = (
    ("stream_chunks_total", "counter", "Chunks of streamed answers.", lambda s: s.sum(CHUNKS)),
    ("queue_depth", "gauge", "Requests that wait for the engine.", lambda s: s.sum(QUEUE_DEPTH)),
    ("requests_in_flight", "gauge", "Requests read and not yet answered.", lambda s: s.sum(IN_FLIGHT)),
    ("connections", "gauge", "Open connections.", lambda s: s.sum(CONNECTIONS)),
    ("requests_dropped_total", "counter", "Requests whose client was gone.", lambda s: s.sum(DROPPED)),
    ("requests_rejected_total", "counter", "Requests refused for a full queue.", lambda s: s.sum(REJECTED)),
    (
        "requests_handed_over_total",
        "counter",
        "Requests that a busy worker gave to a free one.",
        lambda s: s.sum(HANDED_OVER),
    ),
    (
        "overload_debt_seconds",
        "gauge",
        "Engine time of refused requests beyond what bursts leave and idle moments make up for.",
        lambda s: max(s.each(DEBT)) / NANOSECONDS,
    ),
    (
        "engine_seconds_total",
        "counter",
        "Time in the engine.",
        lambda s: s.sum(ENGINE_NANOSECONDS) / NANOSECONDS,
    ),
    (
        "model_load_seconds",
        "gauge",
        "The slowest load of the model.",
        lambda s: max(s.each(LOAD_NANOSECONDS)) / NANOSECONDS,
    ),
    ("workers_ready", "gauge", "Workers with a loaded model.", lambda s: s.sum(READY)),
    ("worker_restarts_total", "counter", "Workers started again after a death.", lambda s: s.sum(RESTARTS)),
)


def _single(shared: SharedMetrics) -> Iterator[Family]:
    for short, kind, text, value in _SINGLE:
        name = f"model_server_{short}"
        yield name, kind, text, [f"{name} {value(shared)}"]


def _histogram(
    name: str, label: str, bounds: Sequence[float], counts: Sequence[int], total: float
) -> list[str]:
    lines, running = [], 0
    for bound, count in zip((*bounds, "+Inf"), counts, strict=True):
        running += count
        lines.append(f'{name}_bucket{{{label + "," if label else ""}le="{bound}"}} {running}')
    braces = f"{{{label}}}" if label else ""
    return [*lines, f"{name}_sum{braces} {total}", f"{name}_count{braces} {running}"]
