"""Answers that are sent while they are made: an asynchronous iterator of chunks, as fast as the client reads.

On HTTP/1.1 the body is chunked; on HTTP/1.0 it ends where the connection is closed. What goes wrong before
the first chunk is an ordinary problem document. After it the status is sent already: the stream ends without
its final chunk (HTTP/1.0: with a reset), so that no client takes it for complete, and a text/event-stream has
an `error` event with the problem before that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from math import inf
from time import perf_counter

import orjson

from model_server import metrics
from model_server.chunks import EVENT_STREAM, Chunk, ServerSentEvent, encode
from model_server.jobs import MODEL_FAILED, fail
from model_server.logs import event, log
from model_server.problems import ProblemError, answer_too_large
from model_server.request import Request


class Stream:
    """One answer under way. Everything here runs on the loop's thread."""

    def __init__(
        self, request: Request, content_type: bytes, chunks: AsyncIterator[Chunk], *, expires: float = inf
    ) -> None:
        """`expires`: when the caller gives up, on the clock of `perf_counter`."""
        self._request, self._content_type, self._chunks = request, content_type, chunks
        self._expires = expires
        self._connection = request.connection
        self._server = request.connection.server
        self._events = content_type.partition(b";")[0].strip().lower() == EVENT_STREAM.encode()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._running = self._begun = self._over = False
        self._sent = 0
        self._outcome = metrics.STREAM_COMPLETED
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to send. The iterator is closed at once where the client is gone."""
        self._server.streams.add(self)
        if not self._connection.attach(self._request, self):
            self._outcome = metrics.STREAM_GONE
        self._task = asyncio.get_running_loop().create_task(self._run())

    # From the connection

    def lost(self) -> None:
        """The client is gone: the work for it ends at its next chunk."""
        self._stop(metrics.STREAM_GONE)

    def pause(self) -> None:
        self._may_write.clear()

    def resume(self) -> None:
        self._may_write.set()

    # From the server

    def cut(self, problem: ProblemError) -> None:
        """Ends the stream before it is complete."""
        if self._over:
            return
        if self._begun:
            self._truncate(problem)
        else:
            self._request.refuse(problem)
        self._stop(metrics.STREAM_CUT)

    @property
    def task(self) -> asyncio.Task[None]:
        """It is done when the iterator is closed, too."""
        assert self._task is not None
        return self._task

    def _stop(self, outcome: int) -> None:
        self._outcome = outcome
        # A task that is cancelled before it runs for the first time never closes its iterator.
        if self._running and self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        self._running = True
        left = None if self._expires == inf else self._expires - perf_counter()
        try:
            if self._outcome == metrics.STREAM_COMPLETED:
                async with asyncio.timeout(left) as timer:
                    await self._send()
        except asyncio.CancelledError as error:
            # Cancelled by `_stop`, the client is gone, or was sent the reason. Otherwise what the iterator
            # waited for was cancelled.
            if not self.task.cancelling():
                self._fail(error)
        except BaseException as error:
            self._fail(_too_late() if isinstance(error, TimeoutError) and timer.expired() else error)
        finally:
            self._over = True
            self._connection.detach(self)
            self._server.counters.stream(self._outcome)
            await self._close()
            self._server.streams.discard(self)

    async def _send(self) -> None:
        async for chunk in self._chunks:
            data = encode(chunk)
            if not data:
                continue
            self._sent += len(data)
            if self._sent > self._server.max_answer:
                raise answer_too_large(self._sent, self._server.max_answer)
            if not self._begun:
                if perf_counter() > self._expires:
                    raise _too_late()
                self._server.counters.first_chunk(perf_counter() - self._request.started)
                self._begun = True
                self._connection.begin(self._request, self._content_type)
            self._server.values[metrics.CHUNKS] += 1
            if not self._connection.write_chunk(self._request, data):
                self._outcome = metrics.STREAM_GONE
                return
            await asyncio.sleep(0)  # an iterator that never waits must not keep the loop from others
            await self._may_write.wait()
        if self._begun:
            self._connection.finish(self._request)
        else:
            self._request.respond(200, self._content_type, b"")

    def _fail(self, error: BaseException) -> None:
        self._outcome = metrics.STREAM_FAILED
        if not self._begun:
            fail(self._request, error)
            return
        fields = {"request_id": self._request.identify().decode("latin-1")}
        if isinstance(error, ProblemError):
            event(logging.ERROR, "a stream was cut", error=error.detail, **fields)
        else:
            fields["error"] = f"{type(error).__name__}: {error}"
            log.error("the model failed in the middle of a stream", exc_info=error, extra={"fields": fields})
        self._truncate(error if isinstance(error, ProblemError) else ProblemError(500, MODEL_FAILED))

    def _truncate(self, problem: ProblemError) -> None:
        if self._events:
            body = orjson.dumps(problem.to_json(self._request.identify().decode("latin-1")))
            self._connection.write_chunk(self._request, bytes(ServerSentEvent(body.decode(), "error")))
        self._connection.truncate(self._request)

    async def _close(self) -> None:
        """Ends the iterator, and with it the engine's work."""
        close = getattr(self._chunks, "aclose", None)
        try:
            if close is not None:
                await close()
        except asyncio.CancelledError:
            pass  # the worker has no more time for it
        except BaseException as error:
            log.error("a stream's iterator could not be closed", exc_info=error)


def _too_late() -> ProblemError:
    return ProblemError(504, "the model did not answer in the time for which callers wait")
