"""Adaptive batching: whatever has arrived when the engine becomes free goes to it in one call.

Nothing waits for company (unless max_latency_ms asks for it). Calls that are known to be short run on the
event loop itself, where requests that arrive in the same turn of the loop meet; longer ones run on a thread,
and what arrives meanwhile is the next batch.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from model_server import metrics
from model_server.engines import Engine, Tensors
from model_server.logs import log
from model_server.problems import ProblemError

# A call that is expected to last longer than this goes to the thread: the loop must stay free for others.
INLINE_SECONDS = 0.001
UNKNOWN = 1.0  # seconds of a call that was never made


class Job(Protocol):
    """A request that waits for the engine. `call` replaces the engine's predict where it is set."""

    inputs: Tensors
    rows: int
    parameters: Mapping[str, object]
    arrived: float
    call: Callable[[], Any] | None
    alone: bool  # may not share a call of the engine: has its own `call` or parameters, or failed in company

    @property
    def gone(self) -> bool: ...

    def finish(self, outputs: Any, start: int, end: int) -> None: ...

    def fail(self, error: BaseException) -> None: ...


class Batcher:
    """One engine's queue. Everything here runs on the loop's thread, but for `_work`."""

    def __init__(
        self,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        counters: metrics.WorkerMetrics,
        *,
        max_rows: int,
        max_queue: int,
        max_latency: float = 0.0,
    ) -> None:
        self._engine, self._loop, self._counters = engine, loop, counters
        self._predict = engine.predict
        self._max_rows = max_rows if engine.batches else 1
        self._max_queue, self._max_latency = max_queue, max_latency
        self._queue: deque[Job] = deque()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None  # a batch waits for company
        self._busy = False
        # Seconds of a call by the power of two of its rows; unknown ones are tried on the thread.
        self._seconds = [UNKNOWN] * 64
        self._work_queue: queue.SimpleQueue[tuple[list[Job], int] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._fixed = all(size > 0 for tensor in engine.signature.inputs for size in tensor.shape[1:])

    def submit(self, job: Job, *, lone: bool = False) -> None:
        """Queues a job, or runs it at once where it is `lone`: no other connection could send it company."""
        waiting = self._queue
        if len(waiting) >= self._max_queue:
            raise overloaded(len(waiting), self._counters)
        if lone and not (waiting or self._busy or self._scheduled or self._max_latency):
            self._process([job], job.rows)
            return
        waiting.append(job)
        if self._timer is not None and sum([waiting.rows for waiting in self._queue]) >= self._max_rows:
            self._timer.cancel()
            self._timer, self._scheduled = None, False
        if not self._busy:
            self._again()

    @property
    def depth(self) -> int:
        """Requests that wait for the engine."""
        return len(self._queue)

    def learn(self, rows: int, seconds: float) -> None:
        """How long a call took (a warm-up's, to begin with)."""
        size = rows.bit_length()
        known = self._seconds[size]
        # One slow call among quick ones (the machine was busy) says little, several in a row say much.
        self._seconds[size] = seconds if known == UNKNOWN else known + 0.2 * (min(seconds, 4 * known) - known)

    def close(self) -> None:
        if self._thread is not None:
            self._work_queue.put(None)

    def _run(self) -> None:
        self._scheduled, self._timer = False, None
        if self._busy:
            return
        if self._max_latency and self._wait_for_company():
            return
        jobs = self._take()
        if jobs:
            self._process(jobs, sum([job.rows for job in jobs]))

    def _process(self, jobs: list[Job], rows: int) -> None:
        """One call of the engine: here, or on its thread."""
        if self._seconds[rows.bit_length()] <= INLINE_SECONDS and jobs[0].call is None:
            self._answer(jobs, rows, *self._predict_jobs(jobs))
            if self._queue:
                self._again()
        else:
            self._busy = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
                self._thread.start()
            self._work_queue.put((jobs, rows))

    def _again(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _wait_for_company(self) -> bool:
        rows = sum(job.rows for job in self._queue)
        if not self._queue or rows >= self._max_rows:
            return False
        left = self._queue[0].arrived + self._max_latency - perf_counter()
        if left <= 0:
            return False
        self._scheduled = True
        self._timer = self._loop.call_later(left, self._run)
        return True

    def _take(self) -> list[Job]:
        """The head of the queue, as much as may go in one call; jobs of clients that left are dropped."""
        waiting, max_rows, fixed = self._queue, self._max_rows, self._fixed
        jobs: list[Job] = []
        rows = 0
        while waiting:
            job = waiting[0]
            if job.gone:
                waiting.popleft()
                self._counters.values[metrics.DROPPED] += 1
                continue
            if jobs and (
                rows + job.rows > max_rows or job.alone or not (fixed or _same_shapes(jobs[0], job))
            ):
                break
            jobs.append(waiting.popleft())
            rows += job.rows
            if job.alone:
                break
        return jobs

    def _predict_jobs(self, jobs: list[Job]) -> tuple[Any, BaseException | None, float]:
        """The outputs of all jobs, or what went wrong; and the seconds it took."""
        started = perf_counter()
        try:
            first = jobs[0]
            if first.call is not None:
                return first.call(), None, perf_counter() - started
            if len(jobs) == 1:
                inputs = first.inputs
            else:
                inputs = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in first.inputs}
            outputs = self._predict(inputs, first.parameters)
            return outputs, None, perf_counter() - started
        except BaseException as error:  # sys.exit() in a script, a panic in Rust: the thread has to go on
            return None, error, perf_counter() - started

    def _answer(
        self, jobs: list[Job], rows: int, outputs: Any, error: BaseException | None, seconds: float
    ) -> None:
        if error is None and len(jobs) > 1:
            error = _wrong_length(outputs, rows)
        if error is None:
            start = 0
            for job in jobs:
                end = start + job.rows
                try:
                    job.finish(outputs, start, end)
                except Exception as failure:  # of this one alone: the others have their answers
                    log.error("an answer could not be sent", exc_info=failure)
                start = end
            self.learn(rows, seconds)
        elif len(jobs) == 1:
            jobs[0].fail(error)
        else:  # one bad item spoils a batch only for itself: the others are asked again, each alone
            for job in reversed(jobs):
                job.alone = True
                self._queue.appendleft(job)
        self._counters.batch(rows, seconds)

    # The engine's thread

    def _work(self) -> None:
        while (work := self._work_queue.get()) is not None:
            jobs, rows = work
            result = self._predict_jobs(jobs)
            try:
                self._loop.call_soon_threadsafe(self._done, jobs, rows, *result)
            except RuntimeError:  # the loop is closed: the worker is on its way out
                return

    def _done(
        self, jobs: list[Job], rows: int, outputs: Any, error: BaseException | None, seconds: float
    ) -> None:
        self._busy = False
        self._answer(jobs, rows, outputs, error, seconds)
        if self._queue and not self._scheduled:
            self._run()


def _same_shapes(first: Job, job: Job) -> bool:
    return all(array.shape[1:] == job.inputs[name].shape[1:] for name, array in first.inputs.items())


def overloaded(waiting: int, counters: metrics.WorkerMetrics) -> ProblemError:
    counters.values[metrics.REJECTED] += 1
    return ProblemError(
        429, f"{waiting} requests are waiting for the model; try again", headers={"retry-after": "1"}
    )


def _wrong_length(outputs: Tensors, rows: int) -> Exception | None:
    lengths = {name: len(array) for name, array in outputs.items() if len(array) != rows}
    return ValueError(f"the engine answered {lengths} entries for {rows} rows") if lengths else None
