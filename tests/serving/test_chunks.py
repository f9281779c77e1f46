"""Pieces of streamed answers: their bytes, and iterators that are closed to their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from model_server.chunks import ServerSentEvent, each, encode


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (b"ab", b"ab"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abc")[:2], b"ab"),
        ("\u00e9", b"\xc3\xa9"),
        (ServerSentEvent("a"), b"data: a\n\n"),
        (ServerSentEvent("", "done", "7"), b"event: done\nid: 7\ndata: \n\n"),
        (ServerSentEvent("a\nb\r\nc\rd"), b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (ServerSentEvent("a\u2028b\x85c"), "data: a\u2028b\x85c\n\n".encode()),
    ],
)
def test_a_chunk_has_these_bytes(chunk: bytes | str | ServerSentEvent, expected: bytes) -> None:
    assert encode(chunk) == expected


def test_anything_else_is_no_chunk() -> None:
    with pytest.raises(TypeError, match="a chunk is int; allowed: bytes, str, ServerSentEvent"):
        encode(7)  # type: ignore[arg-type]


def test_closing_the_converted_items_closes_their_source() -> None:
    closed = []

    def numbers() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append("numbers")

    converted = each(str, numbers())
    assert isinstance(converted, Iterator)
    assert next(converted) == "1"
    converted.close()  # type: ignore[attr-defined]
    assert closed == ["numbers"]


def test_asynchronous_items_are_converted_and_closed_too() -> None:
    closed = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append("numbers")

    async def take_one() -> object:
        converted = each(str, numbers())
        assert isinstance(converted, AsyncIterator)
        first = await anext(converted)
        await converted.aclose()  # type: ignore[attr-defined]
        return first

    assert asyncio.run(take_one()) == "1"
    assert closed == ["numbers"]
