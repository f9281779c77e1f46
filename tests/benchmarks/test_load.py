"""The load generator against a server of this process: what it counts, and what it calls an error."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks import load

REQUEST = load.post("/", b"{}", {"content-type": "application/json"})


class Replies(asyncio.Protocol):
    """Answers each request with the next of `answers`; hangs up where it is empty."""

    def __init__(self, answer: list[bytes]) -> None:
        self.answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for part in self.answer:
            self.transport.write(part)
        if not self.answer:
            self.transport.close()


@contextmanager
def server(*answer: bytes) -> Iterator[int]:
    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(loop.create_server(lambda: Replies(list(answer)), "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        listening.close()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def test_answers_are_counted_whatever_way_they_are_framed() -> None:
    length = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    for answer in (length, chunked):
        with server(answer[:30], answer[30:]) as port:
            result = load.run(port, REQUEST, connections=2, seconds=0.05)
        assert result.requests > 0
        assert result.errors == 0
        assert 0 < result.p50 <= result.p99


def test_an_answer_other_than_200_is_an_error() -> None:
    with server(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n") as port:
        result = load.run(port, REQUEST, connections=1, seconds=0.05)
    assert result.errors == result.requests > 0


def test_a_connection_that_the_server_closes_is_an_error() -> None:
    with server() as port:
        result = load.run(port, REQUEST, connections=1, seconds=0.05)
    assert result.requests == 0
    assert result.errors > 0


@pytest.mark.parametrize(("fraction", "value"), [(0.0, 1.0), (0.5, 3.0), (0.99, 4.0)])
def test_percentiles_are_values_that_were_seen(fraction: float, value: float) -> None:
    assert load.percentile([1.0, 2.0, 3.0, 4.0], fraction) == value


def test_no_answer_at_all_is_an_infinite_latency() -> None:
    assert load.percentile([], 0.5) == float("inf")
