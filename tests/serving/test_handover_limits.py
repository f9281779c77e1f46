"""Handing requests over where descriptors run out, and to siblings whose call takes long."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from model_server import metrics
from model_server.batching import Batcher
from model_server.engines import Engine, Tensors
from model_server.handover import BODY_IN_MESSAGE, Mailboxes, Neighbours
from model_server.http import Connection, Server
from model_server.jobs import RequestJob
from model_server.request import Request, RequestParts
from model_server.settings import Settings
from model_server.signature import Signature, Tensor

HEAD = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n"


def parts(body: bytes) -> RequestParts:
    return RequestParts(b"POST", b"/invocations", {}, b"id-1", None, True, False, 1.5, body)


@contextmanager
def descriptors_left(number: int) -> Iterator[None]:
    """Allows the process so many more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filler: list[int] = []
    highest = max(int(descriptor.name) for descriptor in Path("/proc/self/fd").iterdir())
    try:
        # Every number below the limit is taken, but for the last ones.
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + number, hard))
        while True:
            try:
                filler.append(os.dup(0))
            except OSError:
                break
        for descriptor in filler[len(filler) - number :]:
            os.close(descriptor)
        del filler[len(filler) - number :]
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filler:
            os.close(descriptor)


def test_a_body_for_which_no_descriptor_is_left_is_never_taken_for_an_empty_one() -> None:
    boxes = Mailboxes(2)
    mine, other = boxes.of(0), boxes.of(1)
    client, server = socket.socketpair()
    with client, server:
        client.settimeout(5)
        assert mine.send(1, server, parts(b"b" * (BODY_IN_MESSAGE + 1)))
        assert mine.send(1, server, parts(b"second"))
        server.close()
        with descriptors_left(1):
            received = list(other.receive())
        bodies = [got.body for _, got in received]
        for connection, _ in received:
            connection.close()
        assert bodies == [b"second"]
        assert client.recv(1) == b""  # nothing holds it any more


class Transport(asyncio.Transport):
    """A transport on whose socket no descriptor can be had."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self if name == "socket" else default

    def dup(self) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.aborted = True


def test_a_request_whose_connection_cannot_be_duplicated_stays() -> None:
    shared, boxes = metrics.SharedMetrics(2), Mailboxes(2)
    requests: list[Request] = []
    server = Server(requests.append, Settings(model_name="m"), shared.worker(0))
    transport, connection = Transport(), Connection(server)
    connection.connection_made(transport)
    connection.data_received(HEAD + b"abc")
    values = shared.worker(1).values
    values[metrics.FREE_AT], values[metrics.BEAT] = 1, int(50 * metrics.NANOSECONDS)
    neighbours = Neighbours(0, shared.worker(0), boxes.of(0))
    assert not neighbours.take(requests[0], 0.2, 0.15, 50.0)
    assert not transport.aborted
    assert server.in_flight == 1
    assert values[metrics.FREE_AT] == 1


# ------------------------------------------------------------------------------------------ late calls


class Held(Engine):
    """Answers when it is let."""

    name = framework = "held"
    framework_version = "1"
    task = "regression"
    batches = parallel = False

    def __init__(self) -> None:
        self.signature = Signature((Tensor("x", "FP64", (-1,)),), (Tensor("y", "FP64", (-1,)),))
        self.free = threading.Event()

    def predict(self, inputs: Tensors, parameters: Mapping[str, object]) -> Tensors:
        assert self.free.wait(20)
        return {"y": inputs["x"]}


class Nobody:
    """Siblings that take nothing."""

    def take(self, request: Request, wait: float, cost: float, now: float) -> bool:
        return False


def test_a_worker_whose_call_is_late_is_not_free_to_its_siblings() -> None:
    async def main() -> None:
        counters, engine = metrics.SharedMetrics(2).worker(0), Held()
        loop = asyncio.get_running_loop()
        server = Server(lambda request: None, Settings(model_name="m"), counters)
        request = Request(Connection(server))
        now = [100.0]
        batcher = Batcher(
            engine, loop, counters, max_rows=1, max_queue=9, siblings=Nobody(), clock=lambda: now[0]
        )
        batcher.learn(1, 0.1)
        batcher.share(on=True)
        job = RequestJob(request, {"x": np.zeros(1)}, 1, {}, lambda *_: (b"", b"", b""))
        batcher.submit(job, lone=True)
        now[0] += 3.1
        batcher.relieve()  # as several times a second
        free_at = counters.values[metrics.FREE_AT]
        engine.free.set()
        while counters.values[metrics.CALL_SINCE]:
            await asyncio.sleep(0.01)
        assert free_at >= int((now[0] + 2.9) * metrics.NANOSECONDS)

    asyncio.run(main())


# ----------------------------------------------------------------------------- clients that read nothing


class Leaving(Transport):
    """A transport that closes once its client has read the rest, which it never does."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 10

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing


def test_a_connection_that_cannot_close_since_its_client_reads_nothing_is_given_up() -> None:
    requests: list[Request] = []
    server = Server(requests.append, Settings(model_name="m"), metrics.SharedMetrics(1).worker(0))
    transport, connection = Leaving(), Connection(server)
    connection.connection_made(transport)
    connection.data_received(HEAD + b"abc")
    requests[0].respond(200, b"text/plain", b"answer")
    if not connection.eof_received():  # what a transport does
        transport.close()
    connection.deadline = time.time() - 10
    server.tick()
    assert transport.aborted
