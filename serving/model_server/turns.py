"""Synchronous iterators of chunks: each step is a turn on the engine's thread, between other requests' calls.

So the engine is called by one thread at a time, several streams and calls take turns, and a client that reads
slowly holds up nobody: a step is made only when its chunk can be sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from model_server.batching import Batcher
from model_server.chunks import Chunk, Chunks
from model_server.engines import Tensors
from model_server.jobs import RequestJob
from model_server.request import Request
from model_server.streams import Stream

END: Final = object()  # what a step gives once the iterator has ended
NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class Begun:
    """What a call gave in place of a body: an iterator of chunks, and the first of them where it is made."""

    chunks: Chunks
    first: Any = NOTHING


def begin(chunks: Chunks) -> Begun:
    """Makes a synchronous iterator's first chunk, on the engine's thread: what is wrong shows here."""
    return Begun(chunks, next(chunks, END)) if isinstance(chunks, Iterator) else Begun(chunks)


class StreamedJob(RequestJob):
    """A request whose call may give `Begun` in place of a body."""

    __slots__ = ("batcher",)

    def __init__(self, batcher: Batcher, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.batcher = batcher

    def finish(self, outputs: Any, start: int, end: int) -> None:
        content, media = outputs
        if not isinstance(content, Begun):
            super().finish(outputs, start, end)
            return
        patience = self.request.connection.server.settings.deadline_seconds or inf
        chunks = content.chunks
        Stream(
            self.request,
            media.encode("latin-1"),
            Turns(self.batcher, chunks, content.first) if isinstance(chunks, Iterator) else chunks,
            expires=self.expires(patience),
        ).start()


class Turn:
    """One step in the engine's queue. It was admitted with its request, and is never refused or dropped."""

    gone = False

    def __init__(self, call: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.call: Callable[[], Any] | None = call
        self.future = future
        self.inputs: Tensors = {}
        self.parameters: Mapping[str, object] = {}
        self.rows = 0  # so its time is learned apart from that of calls
        self.arrived = inf  # and it has never waited for too long
        self.alone = True

    def expires(self, patience: float) -> float:
        return inf

    def move(self, take: Callable[[Request], bool]) -> bool:
        """Its stream has begun here."""
        return False

    def finish(self, outputs: Any, start: int, end: int) -> None:
        if not self.future.done():
            self.future.set_result(outputs)

    def fail(self, error: BaseException) -> None:
        if self.future.done():
            return
        if not isinstance(error, Exception):  # sys.exit() in a script: it would end the loop
            failure = RuntimeError(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            error = failure
        self.future.set_exception(error)


class Turns(AsyncIterator[Chunk]):
    """A synchronous iterator as an asynchronous one."""

    def __init__(self, batcher: Batcher, iterator: Iterator[Any], first: Any = NOTHING) -> None:
        self._batcher, self._iterator, self._first = batcher, iterator, first
        self._ended = False

    async def __anext__(self) -> Chunk:
        chunk, self._first = self._first, NOTHING
        if chunk is NOTHING and not self._ended:
            chunk = await self._turn(self._step)
        if chunk is END or self._ended:
            self._ended = True
            raise StopAsyncIteration
        return chunk  # type: ignore[no-any-return]  # Stream checks it

    def _step(self) -> Any:
        return next(self._iterator, END)

    def _turn(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._batcher.go_on(Turn(call, future))
        return future

    async def aclose(self) -> None:
        """Closes the iterator on the engine's thread, after the step that may be running there."""
        close = getattr(self._iterator, "close", None)
        if close is not None and not self._ended:
            self._ended = True
            await self._turn(close)
