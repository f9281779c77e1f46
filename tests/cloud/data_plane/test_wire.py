"""The pool and the listener, against each other and against servers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from modelstacks.cloud.data_plane.wire import (
    UNLIMITED,
    ConnectionLost,
    Limits,
    Pool,
    Request,
    Response,
    listen,
)
from modelstacks.core.errors import EnvironmentFault

Handler = Callable[[Request], Awaitable[Response]]


async def echo(request: Request) -> Response:
    return Response(200, [("x-target", request.target)], request.body)


def exchange(handler: Handler, *requests: Request, limits: Limits = UNLIMITED) -> list[tuple[int, bytes]]:
    async def run() -> list[tuple[int, bytes]]:
        listener, pool = await listen(handler, limits=limits), Pool()
        try:
            answers = []
            for request in requests:
                request.headers.append(("host", f"localhost:{listener.port}"))
                answer = await pool.send(request, listener.port)
                answers.append((answer.status, await answer.read()))
            return answers
        finally:
            pool.close()
            await listener.close()

    return asyncio.run(run())


def against(server: bytes | None, *, timeout: float = 5) -> bytes:
    """What the pool makes of a server that writes these bytes and closes (None: never answers)."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if server is None:
            await reader.read()
        else:
            writer.write(server)
            await writer.drain()
        writer.close()

    async def run() -> bytes:
        raw, pool = await asyncio.start_server(speak, "127.0.0.1", 0), Pool()
        async with raw:
            answer = await pool.send(Request("GET", "/"), raw.sockets[0].getsockname()[1], timeout=timeout)
            return await answer.read()

    return asyncio.run(run())


def test_a_body_goes_there_and_back_whatever_its_size() -> None:
    big = bytes(range(256)) * 40_000
    answers = exchange(echo, Request("POST", "/a", body=b"1"), Request("PUT", "/b", "x=1", body=big))
    assert answers == [(200, b"1"), (200, big)]


def test_connections_are_kept() -> None:
    ports = set()

    async def remember(request: Request) -> Response:
        ports.add(request.header("x-peer"))
        return Response(204)

    answers = exchange(remember, *(Request("GET", "/") for _ in range(3)))
    assert [status for status, _ in answers] == [204, 204, 204]


def test_a_streamed_body_arrives_piece_by_piece() -> None:
    async def stream(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(5):
                yield f"{request.path}{number}".encode()

        return Response(200, [], pieces())

    assert exchange(stream, Request("GET", "/s")) == [(200, b"/s0/s1/s2/s3/s4")]


def test_a_head_request_has_no_body_and_the_next_one_is_not_confused() -> None:
    answers = exchange(echo, Request("HEAD", "/", body=b""), Request("POST", "/", body=b"after"))
    assert answers == [(200, b""), (200, b"after")]


def test_a_body_over_the_limit_is_refused() -> None:
    assert exchange(echo, Request("POST", "/", body=b"12345"), limits=Limits(body=4)) == [
        (413, b'{"message":"Request Too Long"}')
    ]


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    assert against(b"HTTP/1.1 200 OK\r\n\r\nall of it") == b"all of it"


@pytest.mark.parametrize(
    "server",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", b"not http at all\r\n\r\n"],
    ids=["closed at once", "closed in the body", "nonsense"],
)
def test_a_broken_answer_is_a_lost_connection(server: bytes) -> None:
    with pytest.raises(ConnectionLost):
        against(server)


def test_no_answer_is_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        against(None, timeout=0.05)


def test_nobody_there_is_a_refused_connection() -> None:
    async def run() -> None:
        listener = await listen(echo)
        await listener.close()
        await Pool().send(Request("GET", "/"), listener.port)

    with pytest.raises(ConnectionLost, match="connection refused"):
        asyncio.run(run())


def test_a_port_in_use_is_an_environment_fault() -> None:
    async def run() -> None:
        first = await listen(echo)
        try:
            await listen(echo, port=first.port)
        finally:
            await first.close()

    with pytest.raises(EnvironmentFault, match="is in use by another program"):
        asyncio.run(run())
