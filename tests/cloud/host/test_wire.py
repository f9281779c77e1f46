"""The pool and the listener, against each other and against servers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from modelstacks.cloud.host.listener import UNLIMITED, Limits, listen
from modelstacks.cloud.host.pool import Pool
from modelstacks.cloud.host.wire import ConnectionLost, Request, Response
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


def test_a_body_over_the_limit_is_not_read_and_the_handler_answers() -> None:
    async def handle(request: Request) -> Response:
        return Response(413 if request.oversize else 200, [], request.body)

    assert exchange(handle, Request("POST", "/", body=b"12345"), limits=Limits(body=4)) == [(413, b"")]
    assert exchange(handle, Request("POST", "/", body=b"1234"), limits=Limits(body=4)) == [(200, b"1234")]


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


def test_a_request_without_a_host_is_given_its_targets() -> None:
    """Servers refuse HTTP/1.1 without one, the model server among them."""

    async def run() -> tuple[int, bytes]:
        listener, pool = await listen(echo), Pool()
        try:
            answer = await pool.send(Request("POST", "/", body=b"1"), listener.port)
            return answer.status, await answer.read()
        finally:
            pool.close()
            await listener.close()

    assert asyncio.run(run()) == (200, b"1")


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


def raw(*parts: bytes, limits: Limits = UNLIMITED, **options: bool) -> bytes:
    """What a listener answers to these bytes, until it closes; PORT in them is its own."""

    async def run() -> bytes:
        listener = await listen(echo, limits=limits, **options)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            for part in parts:
                writer.write(part.replace(b"PORT", str(listener.port).encode()))
                await writer.drain()
            answer = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            return answer
        finally:
            await listener.close()

    return asyncio.run(run())


CLOSE = b"Connection: close\r\n\r\n"
OURS = b"GET /x HTTP/1.1\r\nHost: localhost:PORT\r\n"


class TestHosts:
    @pytest.mark.parametrize("host", [b"localhost:PORT", b"127.0.0.1:PORT", b"LOCALHOST:PORT", b"[::1]:PORT"])
    def test_names_of_this_machine_lead_in(self, host: bytes) -> None:
        assert raw(b"GET /x HTTP/1.1\r\nHost: " + host + b"\r\n" + CLOSE).startswith(b"HTTP/1.1 200")

    @pytest.mark.parametrize(
        "host",
        [b"evil.example:PORT", b"evil.example", b"localhost", b"localhost:1", b"", b"localhost:PORT:PORT",
         b"bucket.localhost:PORT", b"localhost.evil.example:PORT"],
    )  # fmt: skip
    def test_other_names_do_not(self, host: bytes) -> None:
        assert raw(b"GET /x HTTP/1.1\r\nHost: " + host + b"\r\n" + CLOSE).startswith(b"HTTP/1.1 403")

    def test_buckets_have_names_under_localhost_where_it_is_allowed(self) -> None:
        named = b"GET /x HTTP/1.1\r\nHost: bucket.localhost:PORT\r\n" + CLOSE
        assert raw(named, localhost=True).startswith(b"HTTP/1.1 200")
        assert raw(named.replace(b"bucket.", b"bucket-"), localhost=True).startswith(b"HTTP/1.1 403")

    def test_none_or_two_are_a_bad_request(self) -> None:
        assert raw(b"GET /x HTTP/1.1\r\n" + CLOSE).startswith(b"HTTP/1.1 400")
        twice = OURS + b"Host: localhost:PORT\r\n" + CLOSE
        assert raw(twice).startswith(b"HTTP/1.1 400")


class TestPages:
    SENT = OURS + b"Origin: http://127.0.0.1:1\r\nSec-Fetch-Site: same-site\r\n" + CLOSE

    def test_are_refused_with_no_word_of_cors(self) -> None:
        answer = raw(self.SENT)
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"access-control" not in answer.lower()

    def test_are_the_handlers_business_where_it_serves_browsers(self) -> None:
        assert raw(self.SENT, browsers=True).startswith(b"HTTP/1.1 200")

    def test_are_refused_before_their_bodies_are_read(self) -> None:
        unfinished = b"POST /x HTTP/1.1\r\nHost: localhost:PORT\r\nOrigin: null\r\nContent-Length: 9\r\n\r\n1"
        assert raw(unfinished).startswith(b"HTTP/1.1 403")


class TestLimits:
    def test_a_head_over_its_limit_is_refused(self) -> None:
        limits = Limits(head=10_240)
        headers = b"".join(b"x-%d: %s\r\n" % (n, b"v" * 1_000) for n in range(10))
        assert raw(OURS + headers + CLOSE, limits=limits).startswith(b"HTTP/1.1 200")
        too_many = raw(OURS + headers + b"x-more: " + b"v" * 300 + b"\r\n" + CLOSE, limits=limits)
        assert too_many.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        assert too_many.endswith(b'{"message":"Request Header Fields Too Large"}')

    def test_a_head_without_an_end_is_refused_when_it_passes_the_limit(self) -> None:
        endless = [b"GET /x HTTP/1.1\r\n", *(b"x-%d: %s\r\n" % (n, b"v" * 1_000) for n in range(12))]
        assert raw(*endless, limits=Limits(head=10_240)).startswith(b"HTTP/1.1 431")

    @pytest.mark.parametrize(
        "sent",
        [b"GET /x HT", OURS, b"POST /x HTTP/1.1\r\nHost: localhost:PORT\r\nContent-Length: 9\r\n\r\n1"],
        ids=["in the request line", "in the headers", "in the body"],
    )
    def test_a_request_that_does_not_end_in_time_is_refused(self, sent: bytes) -> None:
        answer = raw(sent, limits=Limits(seconds=0.1))
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")

    def test_a_connection_that_never_asks_is_closed(self) -> None:
        assert raw(limits=Limits(seconds=0.1)) == b""

    def test_an_answer_may_take_longer_than_its_request(self) -> None:
        async def slow(request: Request) -> Response:
            await asyncio.sleep(0.3)
            return await echo(request)

        requests = [Request("POST", "/", body=b"1"), Request("POST", "/", body=b"2")]
        assert exchange(slow, *requests, limits=Limits(seconds=0.1)) == [(200, b"1"), (200, b"2")]
