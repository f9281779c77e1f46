"""Adaptive batching: what has arrived when the engine becomes free goes to it in one call.

Nothing waits for company (unless max_latency_ms asks for it). Calls that are known to be short run on the
event loop itself, where requests that arrive in the same turn of the loop meet; longer ones run on a thread,
and what arrives meanwhile is the next batch, if admission.py lets it wait. The file is longer than others
because all of it works on one queue.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import numpy as np

from model_server import metrics
from model_server.admission import SHORTEST_TARGET, Admission, ServiceTimes
from model_server.engines import Engine, Tensors
from model_server.handover import Siblings
from model_server.logs import log
from model_server.problems import ProblemError
from model_server.request import Request

# A call that is expected to last longer than this goes to the thread: the loop must stay free for others.
INLINE_SECONDS = 0.001
INLINE_PLACES = int(SHORTEST_TARGET / INLINE_SECONDS)


class Job(Protocol):
    """A request that waits for the engine. `call` replaces the engine's predict where it is set."""

    inputs: Tensors
    rows: int
    parameters: Mapping[str, object]
    arrived: float  # when it could have joined the queue
    call: Callable[[], Any] | None
    alone: bool  # may not share a call of the engine: has its own `call` or parameters, or failed in company

    @property
    def gone(self) -> bool: ...

    def expires(self, patience: float) -> float:
        """When nobody waits for the answer any more, for callers that wait for so many seconds at most."""
        ...

    def move(self, take: Callable[[Request], bool]) -> bool:
        """Whether `take`, asked for its request, has taken it: then the job is over here."""
        ...

    def finish(self, outputs: Any, start: int, end: int) -> None: ...

    def fail(self, error: BaseException) -> None: ...


class Forecast(NamedTuple):
    """What becomes of a request that joins the queue now, in seconds."""

    delay: float  # what the load adds to its own call's time
    total: float  # until its answer
    cost: float  # of the engine's time, for this request alone
    call: float  # a call for one request: its own, or the longest of those that run


class Batcher:
    """One engine's queue. Everything here runs on the loop's thread, but for `_work`."""

    # Python 3.11 looks attributes up quickly in slots, or where an object has fewer than thirty.
    __slots__ = (
        "_admission",
        "_busy",
        "_by_rows",
        "_call",
        "_clock",
        "_counted",
        "_counters",
        "_engine",
        "_fixed",
        "_free_at",
        "_inline_places",
        "_loop",
        "_max_latency",
        "_max_queue",
        "_max_rows",
        "_patience",
        "_places",
        "_predict",
        "_queue",
        "_scheduled",
        "_seconds",
        "_shared",
        "_siblings",
        "_thread",
        "_timer",
        "_times",
        "_waiting_alone",
        "_waiting_rows",
        "_waiting_size",
        "_work_queue",
    )

    def __init__(
        self,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        counters: metrics.WorkerMetrics,
        *,
        max_rows: int,
        max_queue: int,
        max_latency: float = 0.0,
        target_wait: float = 0.0,
        patience: float = math.inf,
        siblings: Siblings | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """`target_wait`: admission.Admission's target. `patience`: seconds for which callers wait."""
        self._engine, self._loop, self._counters = engine, loop, counters
        self._predict = engine.predict
        self._max_rows = max_rows if engine.batches else 1
        self._max_queue, self._max_latency = max_queue, max_latency
        self._queue: deque[Job] = deque()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None  # a batch waits for company
        self._busy = False
        self._times = ServiceTimes()
        self._seconds = self._times.seconds  # unknown calls are tried on the thread
        self._admission = Admission(
            counters, target=target_wait, company=max_latency, shared=self._max_rows > 1
        )
        self._patience, self._clock = patience, clock
        self._siblings, self._shared = siblings, False
        # So many may wait without a closer look: calls on the loop end before their number makes a delay.
        self._inline_places = max_queue if engine.batches else min(max_queue, INLINE_PLACES)
        self._places = self._inline_places
        # The call that runs on the thread: when it should end, and what its longest request takes alone.
        self._free_at = self._call = 0.0
        # What waits for the engine: how many were counted, their rows and size, the seconds of those alone.
        self._counted = self._waiting_rows = self._waiting_size = 0
        self._waiting_alone = 0.0
        self._work_queue: queue.SimpleQueue[tuple[list[Job], int, int] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        inputs = engine.signature.inputs
        self._fixed = all(size > 0 for tensor in inputs for size in tensor.shape[1:])
        # Rows say how long a call takes, unless they differ in length themselves, as texts do.
        self._by_rows = self._fixed and all(tensor.datatype != "BYTES" for tensor in inputs)

    def submit(self, job: Job, *, lone: bool = False) -> None:
        """Queues a job, or runs it at once where it is `lone`: no other connection could send it company."""
        waiting = self._queue
        if self._busy or len(waiting) >= self._places:
            if self._siblings is not None and job.move(self.pass_on):
                return
            self._admit(job)
        elif lone and not (waiting or self._scheduled or self._max_latency):
            self._process([job], job.rows)
            return
        waiting.append(job)
        if self._places == 1:
            self._announce()
        if self._timer is not None and sum([waiting.rows for waiting in self._queue]) >= self._max_rows:
            self._timer.cancel()
            self._timer, self._scheduled = None, False
        if not self._busy:
            self._again()

    def go_on(self, job: Job) -> None:
        """Queues one more step of a request that was admitted before."""
        self._queue.append(job)
        self._counted = -1
        if not self._busy:
            self._again()

    def pass_on(self, request: Request) -> bool:
        """Whether a sibling has taken a request that would have to wait here."""
        if self._siblings is None or not (self._busy or self._queue):
            return False
        now = self._clock()
        wait = self._wait(now)
        return self._siblings.take(request, wait, self._call or self._times.estimate(1), now)

    def relieve(self) -> None:
        """Gives away what waits here longer than was foreseen, or while a sibling has become free.

        A call that is late is announced as such, so that siblings do not take this worker for a free one.
        """
        if self._shared and self._busy:
            self._announce()
        if not (self._queue and self._shared and self._siblings is not None):
            return
        now, take = self._clock(), self._siblings.take
        wait = abs(self._free_at - now) if self._busy and self._call else 0.0
        kept: deque[Job] = deque()
        for job in self._queue:
            cost = self._times.estimate(self.size_of(job.inputs, job.rows))
            if job.move(partial(take, wait=wait, cost=cost, now=now)):
                continue
            kept.append(job)
            if job.alone or self._max_rows == 1:
                wait += cost
        if len(kept) < len(self._queue):
            self._queue, self._counted = kept, -1
            self._announce()

    def share(self, *, on: bool) -> None:
        """Whether siblings may send requests from now on."""
        self._shared = on and self._siblings is not None
        if self._shared:
            self._announce()
        else:
            self._counters.values[metrics.FREE_AT] = 0

    def publish(self) -> None:
        """Gauges that would cost every request something: written now and then."""
        self._counters.values[metrics.QUEUE_DEPTH] = len(self._queue)
        self._admission.settle(self._clock(), busy=self._busy)

    def learn(self, size: int, seconds: float) -> None:
        """How long a call of this size took (a warm-up's, to begin with)."""
        self._times.learn(size, seconds)
        if seconds > INLINE_SECONDS:
            self._places = 1

    def size_of(self, inputs: Tensors, rows: int) -> int:
        """What a call's time is known by: its rows, or the length of what is in them where that differs."""
        if self._by_rows or not inputs:
            return rows
        return sum(_length(array) for array in inputs.values())

    def require_room(self) -> None:
        """Raises the 429 that the smallest request would get now: nothing of a larger one need be read."""
        if not (self._busy and self._admission.overloaded):
            return
        now = self._clock()
        self._admission.settle(now, busy=True)
        wait = abs(self._free_at - now)
        if wait > self._admission.limit(self._call):
            raise self._refuse(Forecast(wait, wait, 0.0, self._call))

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
        size = rows if self._by_rows else sum([self.size_of(job.inputs, job.rows) for job in jobs])
        self._counted = -1
        if self._seconds[size.bit_length()] <= INLINE_SECONDS and jobs[0].call is None:
            self._places = self._inline_places
            self._answer(jobs, rows, size, *self._predict_jobs(jobs))
            if self._queue:
                self._again()
        else:
            now = self._clock()
            self._admission.settle(now, busy=False)
            self._busy, self._places = True, 1
            self._free_at = now + self._times.estimate(size)
            self._call = self._times.estimate(max([self.size_of(job.inputs, job.rows) for job in jobs]))
            self._counters.values[metrics.CALL_SINCE] = int(now * metrics.NANOSECONDS)
            self._announce()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
                self._thread.start()
            self._work_queue.put((jobs, rows, size))

    def _again(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _wait_for_company(self) -> bool:
        rows = sum(job.rows for job in self._queue)
        if not self._queue or rows >= self._max_rows or self._queue[0].alone:
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
        started = self._clock()
        try:
            first = jobs[0]
            if first.call is not None:
                return first.call(), None, self._clock() - started
            if len(jobs) == 1:
                inputs = first.inputs
            else:
                inputs = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in first.inputs}
            outputs = self._predict(inputs, first.parameters)
            return outputs, None, self._clock() - started
        except BaseException as error:  # sys.exit() in a script, a panic in Rust: the thread has to go on
            return None, error, self._clock() - started

    def _answer(
        self,
        jobs: list[Job],
        rows: int,
        size: int,
        outputs: Any,
        error: BaseException | None,
        seconds: float,
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
            self.learn(size, seconds)
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
            jobs, rows, size = work
            result = self._predict_jobs(jobs)
            try:
                self._loop.call_soon_threadsafe(self._done, jobs, rows, size, *result)
            except RuntimeError:  # the loop is closed: the worker is on its way out
                return

    def _done(
        self,
        jobs: list[Job],
        rows: int,
        size: int,
        outputs: Any,
        error: BaseException | None,
        seconds: float,
    ) -> None:
        now = self._clock()
        self._admission.settle(now, busy=True)
        self._busy = False
        self._counters.values[metrics.CALL_SINCE] = 0
        self._answer(jobs, rows, size, outputs, error, seconds)
        self._shed(now)
        self._admission.waited(self._wait_of_next(now), now, self._call)
        self.relieve()
        if self._queue and not self._scheduled:
            self._run()
        elif not self._queue:
            self._announce()

    # Admission

    def _admit(self, job: Job) -> None:
        """Counts a job in, or refuses it with 429: it would wait for longer than its answer is of use."""
        now = self._clock()
        self._admission.settle(now, busy=self._busy)
        if self._counted != len(self._queue):
            self._recount()
        forecast = self._forecast(job, now)
        if (
            len(self._queue) >= self._max_queue
            or forecast.delay > self._admission.limit(forecast.call)
            or now + forecast.total > job.expires(self._patience)
        ):
            raise self._refuse(forecast)
        self._count(job)

    def _forecast(self, job: Job, now: float) -> Forecast:
        times, rows = self._times, self._waiting_rows
        wait = self._wait_for_those_alone(now)
        size = self.size_of(job.inputs, job.rows)
        alone = times.estimate(size)
        call = max(alone, self._call if self._busy else 0.0)
        if job.alone or self._max_rows == 1:
            wait += times.estimate(self._waiting_size) if rows else 0.0
            return Forecast(wait, wait + alone, alone, call)
        cost = times.of_one_more(self._waiting_size, size)
        rows, size = rows + job.rows, self._waiting_size + size
        full = (rows - 1) // self._max_rows  # calls of the most rows that go before its own
        if full:
            a_call = size * self._max_rows // rows
            wait += full * times.estimate(a_call)
            cost = times.estimate(a_call) * job.rows / self._max_rows
            rows, size = rows - full * self._max_rows, max(1, size - full * a_call)
        own = times.estimate(size)
        return Forecast(wait + max(0.0, own - alone), wait + own, cost, call)

    def _wait_for_those_alone(self, now: float) -> float:
        """Seconds until the call that runs is over, and those that are for one request.

        A call that runs late is expected to be late by as much again.
        """
        return (abs(self._free_at - now) if self._busy and self._call else 0.0) + self._waiting_alone

    def _wait(self, now: float) -> float:
        """Seconds until the engine would begin with a small request that arrives now."""
        if self._counted != len(self._queue):
            self._recount()
        wait = self._wait_for_those_alone(now)
        full = self._waiting_rows // self._max_rows
        if full:
            wait += full * self._times.estimate(self._waiting_size * self._max_rows // self._waiting_rows)
        return wait

    def _announce(self) -> None:
        """Tells the siblings when a request would begin here."""
        if self._shared:
            now = self._clock()
            self._counters.values[metrics.FREE_AT] = int((now + self._wait(now)) * metrics.NANOSECONDS)

    def _count(self, job: Job) -> None:
        size = self.size_of(job.inputs, job.rows)
        if job.alone or self._max_rows == 1:
            self._waiting_alone += self._times.estimate(size)
        else:
            self._waiting_rows += job.rows
            self._waiting_size += size
        self._counted += 1

    def _recount(self) -> None:
        self._counted = self._waiting_rows = self._waiting_size = 0
        self._waiting_alone = 0.0
        for job in self._queue:
            self._count(job)

    def _shed(self, now: float) -> None:
        """Refuses late jobs before the engine works for them.

        These are jobs whose caller has given up and, where a burst has turned out to be an overload, those
        that have waited for too long already.
        """
        waiting, admission = self._queue, self._admission
        while waiting and not (job := waiting[0]).gone:
            alone = self._times.estimate(self.size_of(job.inputs, job.rows))
            late = admission.too_late(now - job.arrived, max(alone, self._call))
            if not late and job.expires(self._patience) > now:
                return
            waiting.popleft()
            job.fail(self._refuse(Forecast(now - job.arrived, 0.0, alone, max(alone, self._call))))

    def _wait_of_next(self, now: float) -> float:
        """How long the head of the queue has waited; 0 where all that waits fits in the next shared call."""
        waiting = self._queue
        if not waiting or (self._max_rows > 1 and sum([job.rows for job in waiting]) <= self._max_rows):
            return 0.0
        # Steps of streams were admitted before: they have arrived at no time.
        return next((now - job.arrived for job in waiting if job.arrived != math.inf), 0.0)

    def _refuse(self, forecast: Forecast) -> ProblemError:
        admission = self._admission
        admission.refused(forecast.cost, forecast.call)
        seconds = admission.retry_after(forecast.delay, forecast.call)
        return overloaded(len(self._queue), self._counters, seconds)


def _same_shapes(first: Job, job: Job) -> bool:
    return all(array.shape[1:] == job.inputs[name].shape[1:] for name, array in first.inputs.items())


def overloaded(waiting: int, counters: metrics.WorkerMetrics, seconds: int = 1) -> ProblemError:
    """429, with the seconds after which another try is worth it."""
    counters.values[metrics.REJECTED] += 1
    detail = f"the model is busy, and {waiting} requests wait for it; try again in {seconds} s"
    return ProblemError(429, detail, headers={"retry-after": str(seconds)})


def _length(array: np.ndarray[Any, Any]) -> int:
    """How much there is in a tensor: characters of its texts, or numbers."""
    return sum([len(text or "") for text in array.flat]) if array.dtype == object else array.size


def _wrong_length(outputs: Tensors, rows: int) -> Exception | None:
    lengths = {name: len(array) for name, array in outputs.items() if len(array) != rows}
    return ValueError(f"the engine answered {lengths} entries for {rows} rows") if lengths else None
