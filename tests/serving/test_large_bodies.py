"""Bodies that are read on a thread of their own."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any, cast
from unittest.mock import Mock

import pytest
from model_server import metrics
from model_server.batching import Batcher
from model_server.engines import Engine
from model_server.http import Connection, Server
from model_server.jobs import RequestJob
from model_server.large_bodies import LARGE_BODY, LargeBodies
from model_server.problems import ProblemError, malformed
from model_server.protocols.invocations import Invocations
from model_server.request import Request
from model_server.settings import Settings
from model_server.signature import Signature, Tensor
from model_server.validation import InputReader


class Asked:
    """A request, as far as it is looked at."""

    gone = False

    def __init__(self) -> None:
        self.refused: list[ProblemError] = []

    def refuse(self, problem: ProblemError) -> None:
        self.refused.append(problem)


class Room:
    """A batcher, as far as bodies that are not read need one."""

    refuses: ProblemError | None = None

    def pass_on(self, request: Request) -> bool:
        return False

    def require_room(self) -> None:
        if self.refuses is not None:
            raise self.refuses


class Rows:
    """What a body was read into."""


def large_bodies(max_queue: int = 10, room: Room | None = None) -> LargeBodies:
    counters = metrics.SharedMetrics(1).worker(0)
    batcher = cast(Batcher, room or Room())
    return LargeBodies(asyncio.get_running_loop(), batcher, counters, max_queue=max_queue)


def test_what_was_read_of_a_refused_body_is_let_go_at_once() -> None:
    read: list[Any] = []

    def refuse() -> RequestJob:
        rows = Rows()
        read.append(weakref.ref(rows))
        raise malformed("row 7 is not JSON")

    async def scene() -> None:
        asked = Asked()
        large_bodies().submit(cast(Request, asked), refuse)
        while not asked.refused:
            await asyncio.sleep(0.001)
        assert asked.refused.pop().status == 400
        await asyncio.sleep(0.01)
        assert read[0]() is None

    gc.collect()
    gc.disable()
    try:
        asyncio.run(scene())
    finally:
        gc.enable()


def test_more_than_may_wait_are_refused_at_once() -> None:
    def refuse() -> RequestJob:
        raise malformed("no")

    async def scene() -> None:
        bodies, asked = large_bodies(max_queue=2), [Asked() for _ in range(3)]
        for each in asked[:2]:
            bodies.submit(cast(Request, each), refuse)
        with pytest.raises(ProblemError) as raised:
            bodies.submit(cast(Request, asked[2]), refuse)
        assert raised.value.status == 429
        while not all(each.refused for each in asked[:2]):
            await asyncio.sleep(0.001)
        bodies.submit(cast(Request, asked[2]), refuse)

    asyncio.run(scene())


def test_a_body_that_will_be_refused_is_not_read() -> None:
    def read() -> RequestJob:
        raise AssertionError("it was read")

    async def scene() -> None:
        room = Room()
        room.refuses = ProblemError(429, "busy")
        with pytest.raises(ProblemError) as raised:
            large_bodies(room=room).submit(cast(Request, Asked()), read)
        assert raised.value is room.refuses

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("content_type", "size", "aside"),
    [
        (b"application/json", 100, False),
        (b"application/json", LARGE_BODY, True),
        (b"application/x-npz", 100, True),  # a small body may unpack to a large one
        (b"image/png", 100, True),
    ],
)
def test_what_may_take_long_to_read_is_read_aside(content_type: bytes, size: int, aside: bool) -> None:
    class Seen(Exception):
        pass

    class Aside:
        def submit(self, request: Request, read: Any) -> None:
            raise Seen

    tensor = Tensor("x", "FP32", (-1, 2))
    reader = InputReader(Signature((tensor,), (tensor,)))
    handler = Invocations(
        cast(Engine, Mock()), reader, cast(Batcher, Room()), cast(LargeBodies, Aside()), 1 << 20
    )
    server = Server(lambda _request: None, Settings(model_name="m"), metrics.SharedMetrics(1).worker(0))
    request = Request(Connection(server))
    request.headers, request.body = {b"content-type": content_type}, b"?" * size
    with pytest.raises(Seen if aside else ProblemError):
        handler(request)
