"""The pieces of an answer that is sent while it is made."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

EVENT_STREAM = "text/event-stream"
_LINE_END = re.compile("\r\n|\r|\n")  # and none of the others that Unicode knows


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of a text/event-stream."""

    data: str
    event: str = ""  # the event's type; empty for a message
    id: str = ""

    def __bytes__(self) -> bytes:
        lines = [f"{name}: {value}" for name, value in (("event", self.event), ("id", self.id)) if value]
        lines += [f"data: {line}" for line in _LINE_END.split(self.data)]
        return ("\n".join(lines) + "\n\n").encode()


Chunk = bytes | bytearray | memoryview | str | ServerSentEvent
Chunks = Iterator[Any] | AsyncIterator[Any]


def encode(chunk: Chunk) -> bytes:
    """The bytes of a chunk; TypeError for anything else."""
    if isinstance(chunk, str):
        return chunk.encode()
    if isinstance(chunk, bytes | bytearray | memoryview | ServerSentEvent):
        return bytes(chunk)
    raise TypeError(f"a chunk is {type(chunk).__name__}; allowed: bytes, str, ServerSentEvent")


def each(
    convert: Callable[[Any], Chunk],
    items: Chunks,
    guard: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Chunks:
    """Every item converted, of a synchronous iterator or an asynchronous one. Closing it closes `items`.

    Args:
        guard: entered around all that the iterator does.
    """

    def pull(items: Iterator[Any]) -> Iterator[Chunk]:
        try:
            with guard():
                for item in items:
                    yield convert(item)
        finally:
            if isinstance(items, Generator):
                items.close()

    async def wait_for(items: AsyncIterator[Any]) -> AsyncIterator[Chunk]:
        try:
            with guard():
                async for item in items:
                    yield convert(item)
        finally:
            if isinstance(items, AsyncGenerator):
                await items.aclose()

    return pull(items) if isinstance(items, Iterator) else wait_for(items)
