"""Bodies that may take long to read are read on a thread, so that the loop answers /ping meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter

from model_server import metrics
from model_server.batching import Batcher, overloaded
from model_server.jobs import RequestJob, fail
from model_server.problems import ProblemError
from model_server.request import Request

# From here on, the slowest kind of body (CSV with quotes) takes a twentieth of a second to read. The
# quickest take a few milliseconds, beside which the way to the thread and back is nothing.
LARGE_BODY = 524_288


class LargeBodies:
    """Everything here runs on the loop's thread, but for `_read`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        batcher: Batcher,
        counters: metrics.WorkerMetrics,
        *,
        max_queue: int,
    ) -> None:
        self._loop, self._batcher, self._counters = loop, batcher, counters
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="bodies")
        self._waiting, self._max_queue = 0, max_queue

    def submit(self, request: Request, read: Callable[[], RequestJob]) -> None:
        """The request joins the engine's queue once `read`, on the thread, has made a job of it.

        A sibling that is free may take it before.
        """
        if self._batcher.pass_on(request):
            return
        if self._waiting >= self._max_queue:
            raise overloaded(self._waiting, self._counters)
        self._batcher.require_room()
        self._waiting += 1
        future = self._loop.run_in_executor(self._executor, self._read, request, read)
        future.add_done_callback(partial(self._done, request))

    @staticmethod
    def _read(request: Request, read: Callable[[], RequestJob]) -> RequestJob | None:
        return None if request.gone else read()

    def _done(self, request: Request, future: asyncio.Future[RequestJob | None]) -> None:
        self._waiting -= 1
        error = future.exception()
        # Not raised here: its traceback, which holds all that was read, would hold the future that holds it.
        if error is not None:
            fail(request, error)
        elif (job := future.result()) is None:
            self._counters.values[metrics.DROPPED] += 1
        else:
            job.arrived = perf_counter()  # it joins the queue only now: to be read was not the engine's delay
            try:
                self._batcher.submit(job)
            except ProblemError as problem:
                fail(request, problem)
