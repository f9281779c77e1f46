"""The client of the benchmarks that deploy: what it counts as an answer, and that it sends nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from benchmarks import deployed, faults
from benchmarks.deployed import Address, Answer, Caller, expected_of

RIGHT = b"HTTP/1.1 200 OK\r\ncontent-length: 64\r\n\r\n"


def ask(answer: Callable[[bytes], bytes], *bodies: bytes) -> tuple[list[Answer], list[bytes]]:
    """The answers to these bodies from a server that hangs up where `answer` is empty; what it was sent."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            body = await reader.readexactly(
                int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
            )
            seen.append(body)
            said = answer(body)
            writer.write(said)
            if not said:
                writer.close()
                return

    async def main() -> list[Answer]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        caller = Caller(Address("127.0.0.1", port, "/live", "key"))
        loop = asyncio.get_running_loop()
        answers = [await caller.ask(body, expected_of(body), loop.time()) for body in bodies]
        caller.close()
        server.close()
        return answers

    return asyncio.run(main()), seen


def test_an_answer_is_right_only_to_the_last_bit() -> None:
    (first, second), _ = ask(lambda _: RIGHT + expected_of(b"one"), b"one", b"two")
    assert (first.status, first.right) == (200, True)
    assert (second.status, second.right) == (200, False)


def test_a_refusal_keeps_its_retry_after() -> None:
    refusal = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\ncontent-length: 2\r\n\r\n{}"
    (answer,), _ = ask(lambda _: refusal, b"one")
    assert (answer.status, answer.right, answer.retry_after, answer.detail) == (429, False, "3", "{}")


def test_a_connection_that_breaks_is_no_answer_and_nothing_is_sent_again() -> None:
    answers, seen = ask(
        lambda body: b"" if body == b"two" else RIGHT + expected_of(body), b"one", b"two", b"three"
    )
    assert [one.status for one in answers] == [200, 0, 200]
    assert seen == [b"one", b"two", b"three"]


@pytest.mark.parametrize(
    ("answer", "column"),
    [
        (Answer(200, 0.1, right=True), "right"),
        (Answer(200, 0.1, right=False), "wrong"),
        (Answer(429, 0.1, right=False, retry_after="1"), "refused"),
        (Answer(503, 0.1, right=False, retry_after="1"), "refused"),
        (Answer(503, 0.1, right=False), "lost"),  # a load balancer's, which says nothing of when to come back
        (Answer(502, 0.1, right=False), "lost"),
        (Answer(0, 35.0, right=False), "lost"),
    ],
)
def test_each_answer_counts_once(answer: Answer, column: str) -> None:
    row = dict(zip(faults.HEADER, faults.Outcome([answer], 1.0).figures("a fault").cells(), strict=True))
    assert {name: row[name] for name in ("right", "refused", "lost", "wrong")} == {
        **dict.fromkeys(("right", "refused", "lost", "wrong"), "0"),
        column: "1",
    }


def test_both_architectures_meet_ten_faults() -> None:
    assert [len(faults.FAULTS[architecture]) for architecture in deployed.ARCHITECTURES] == [10, 10]


def test_the_open_loop_ends_when_it_is_told_to() -> None:
    async def main() -> list[Answer]:
        over = asyncio.Event()
        over.set()
        return await deployed.offer(Address("127.0.0.1", 1, "", ""), 1000.0, 3600.0, over=over)

    assert asyncio.run(main()) == []
