"""Bodies that may take long to read are read on a thread, so that the loop answers /ping meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from model_server import metrics
from model_server.batching import Batcher, overloaded
from model_server.http import Request
from model_server.jobs import RequestJob, fail

# From here on, the slowest kind of body (CSV with quotes) takes a twentieth of a second to read. The
# quickest take a few milliseconds, beside which the way to the thread and back is nothing.
LARGE_BODY = 524_288
MAX_WAITING = 32


class LargeBodies:
    """Everything here runs on the loop's thread, but for `_read`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, batcher: Batcher, counters: metrics.WorkerMetrics
    ) -> None:
        self._loop, self._batcher, self._counters = loop, batcher, counters
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="bodies")
        self._waiting = 0

    def submit(self, request: Request, read: Callable[[], RequestJob]) -> None:
        """The request joins the engine's queue once `read`, on the thread, has made a job of it."""
        if self._waiting >= MAX_WAITING:
            raise overloaded(self._waiting, self._counters)
        self._waiting += 1
        future = self._loop.run_in_executor(self._executor, self._read, request, read)
        future.add_done_callback(partial(self._done, request))

    @staticmethod
    def _read(request: Request, read: Callable[[], RequestJob]) -> RequestJob | None:
        return None if request.gone else read()

    def _done(self, request: Request, future: asyncio.Future[RequestJob | None]) -> None:
        self._waiting -= 1
        try:
            job = future.result()
            if job is None:
                self._counters.values[metrics.DROPPED] += 1
            else:
                self._batcher.submit(job)
        except Exception as error:  # every request gets an answer
            fail(request, error)
