"""Requests that a busy worker gives to a free one, with their connections."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from model_server import metrics
from model_server.handover import BODY_IN_MESSAGE, Mailboxes, Neighbours
from model_server.http import Connection, Server
from model_server.request import Request, RequestParts
from model_server.settings import Settings
from support.model_server import ModelServer, wait_for

SECOND = metrics.NANOSECONDS


def parts(body: bytes = b"x") -> RequestParts:
    return RequestParts(
        b"POST", b"/invocations", {b"content-type": b"text/plain"}, b"id-1", None, True, False, 1.5, body
    )


# -------------------------------------------------------------------------------------------- mailboxes


@pytest.mark.parametrize("size", [0, 1, BODY_IN_MESSAGE, BODY_IN_MESSAGE + 1, 6_000_000])
def test_a_connection_arrives_with_its_request_whatever_the_size_of_the_body(size: int) -> None:
    boxes, sent = Mailboxes(2), parts(b"b" * size)
    client, server = socket.socketpair()
    with client, server:
        assert boxes.of(0).send(1, server, sent)
        server.close()  # as the sender does: the other has a descriptor of its own
        [(received, got)] = boxes.of(1).receive()
        assert got == sent
        with received:
            received.sendall(b"answer")
            assert client.recv(6) == b"answer"
            assert not received.get_inheritable()
    assert list(boxes.of(1).receive()) == []


def test_a_mailbox_that_is_full_takes_nothing_and_the_sender_keeps_the_request() -> None:
    boxes = Mailboxes(2)
    client, server = socket.socketpair()
    with client, server:
        sent = 0
        while boxes.of(0).send(1, server, parts(b"b" * BODY_IN_MESSAGE)):
            sent += 1
        assert sent > 0
        received = [connection for connection, _ in boxes.of(1).receive()]
        assert len(received) == sent
        for connection in received:
            connection.close()


# -------------------------------------------------------------------------------------------- the choice


class Transport(asyncio.Transport):
    """A transport on a real socket, as uvloop's."""

    def __init__(self, end: socket.socket, *, unsent: int = 0) -> None:
        super().__init__()
        self.end, self.unsent, self.aborted = end, unsent, False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self.end if name == "socket" else default

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


HEAD = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n"


class Scene:
    """Three workers' slots; worker 0 holds a connection on which a request has arrived."""

    def __init__(self, *packets: bytes, unsent: int = 0, now: float = 50.0) -> None:
        self.now = now
        self.shared = metrics.SharedMetrics(3)
        self.boxes = Mailboxes(3)
        self.requests: list[Request] = []
        self.neighbours = Neighbours(0, self.shared.worker(0), self.boxes.of(0))
        self.server = Server(self.requests.append, Settings(model_name="m"), self.shared.worker(0))
        self.client, end = socket.socketpair()
        self.transport = Transport(end, unsent=unsent)
        self.connection = Connection(self.server)
        self.connection.connection_made(self.transport)
        for packet in packets or (HEAD + b"abc",):
            self.connection.data_received(packet)

    def says(self, slot: int, *, free_in: float | None, beat_ago: float = 0.1) -> None:
        values = self.shared.worker(slot).values
        values[metrics.FREE_AT] = 0 if free_in is None else int((self.now + free_in) * SECOND)
        values[metrics.BEAT] = int((self.now - beat_ago) * SECOND)

    def take(self, wait: float) -> bool:
        return self.neighbours.take(self.requests[0], wait, 0.15, self.now)

    def sent_to(self) -> list[int]:
        found = []
        for slot in (1, 2):
            for connection, _ in self.boxes.of(slot).receive():
                connection.close()
                found.append(slot)
        return found

    def close(self) -> None:
        self.client.close()
        self.transport.end.close()


@pytest.fixture
def scene() -> Iterator[Callable[..., Scene]]:
    scenes: list[Scene] = []

    def make(*packets: bytes, unsent: int = 0) -> Scene:
        scenes.append(Scene(*packets, unsent=unsent))
        return scenes[-1]

    yield make
    for each in scenes:
        each.close()


def test_the_sibling_that_begins_soonest_gets_it_and_the_next_goes_to_another(
    scene: Callable[..., Scene],
) -> None:
    one = scene()
    one.says(1, free_in=0.1)
    one.says(2, free_in=-3.0)
    assert one.take(wait=0.2)
    assert one.sent_to() == [2]
    assert one.transport.aborted
    assert one.server.in_flight == 0
    assert one.shared.worker(2).values[metrics.FREE_AT] == pytest.approx((one.now + 0.15) * SECOND)
    assert one.shared.sum(metrics.HANDED_OVER) == 1


@pytest.mark.parametrize(
    "says",
    [
        {"free_in": 0.195},  # not worth it
        {"free_in": None},  # it loads its model, or drains
        {"free_in": 0.0, "beat_ago": 1.5},  # it hangs
    ],
)
def test_no_sibling_gets_it_that_would_not_begin_sooner(
    scene: Callable[..., Scene], says: dict[str, float | None]
) -> None:
    one = scene()
    one.says(1, **says)  # type: ignore[arg-type]
    assert not one.take(wait=0.2)
    assert one.sent_to() == []
    assert not one.transport.aborted


@pytest.mark.parametrize(
    "packets",
    [
        (HEAD + b"abc" + HEAD + b"abc",),  # another request, whole, in the same packet
        (HEAD + b"abc" + HEAD[:9],),  # the beginning of one
        (HEAD + b"abc", HEAD[:9]),  # in a packet of its own
        (HEAD[:20], HEAD[20:] + b"abc" + b"POST"),
        (HEAD + b"a", b"bcPOST"),
    ],
)
def test_a_connection_with_more_than_one_request_on_it_stays(
    scene: Callable[..., Scene], packets: tuple[bytes, ...]
) -> None:
    one = scene(*packets)
    one.says(1, free_in=0.0)
    assert not one.take(wait=0.2)
    assert one.sent_to() == []


@pytest.mark.parametrize("packets", [(HEAD, b"abc"), (HEAD + b"a", b"bc"), (HEAD + b"abc",)])
def test_a_body_in_several_packets_goes_too(scene: Callable[..., Scene], packets: tuple[bytes, ...]) -> None:
    one = scene(*packets)
    one.says(1, free_in=0.0)
    assert one.take(wait=0.2)
    [(connection, got)] = one.boxes.of(1).receive()
    connection.close()
    assert (got.method, got.target, got.body) == (b"POST", b"/invocations", b"abc")


def test_a_connection_whose_client_has_yet_to_read_an_answer_stays(scene: Callable[..., Scene]) -> None:
    one = scene(unsent=10)
    one.says(1, free_in=0.0)
    assert not one.take(wait=0.2)


def test_while_it_drains_a_worker_answers_what_it_has(scene: Callable[..., Scene]) -> None:
    one = scene()
    one.says(1, free_in=0.0)
    one.server.draining = True
    assert not one.take(wait=0.2)


def test_a_request_is_handed_over_once_and_the_next_on_its_connection_can_be(
    scene: Callable[..., Scene],
) -> None:
    one = scene()
    requests: list[Request] = []
    server = Server(requests.append, Settings(model_name="m"), one.shared.worker(1))
    connection = server(parts(b"abc"))
    connection.connection_made(one.transport)
    [request] = requests
    assert (request.body, request.id, request.started) == (b"abc", b"id-1", 1.5)
    one.says(2, free_in=0.0)
    neighbours = Neighbours(1, one.shared.worker(1), one.boxes.of(1))
    assert not neighbours.take(request, 0.2, 0.15, one.now)
    request.respond(200, b"text/plain", b"")
    connection.data_received(HEAD + b"def")
    assert neighbours.take(requests[1], 0.2, 0.15, one.now)


# ------------------------------------------------------------------------------------- with real processes

SCRIPT = """
import os, pathlib, time
def model_fn(d): return pathlib.Path(d)
def input_fn(body, kind): return body
def predict_fn(body, d):
    body = body if isinstance(body, str) else body.decode()
    if body.startswith("hold"):
        (d / "held").touch()
        while (d / "hold").exists(): time.sleep(0.005)
    if body == "short": time.sleep(0.02)
    return f"{os.getpid()} {len(body)}"
def output_fn(prediction, accept): return prediction.encode()
"""


class Client:
    """One keep-alive connection."""

    def __init__(self, server: ModelServer) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self.last = False  # the server has announced that it closes

    def ask(self, body: bytes) -> tuple[int, int, int]:
        """Status, the process that answered, and the length that it saw."""
        head = (
            b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n"
        )
        self.socket.sendall(head % len(body) + body)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, answer = data.partition(b"\r\n\r\n")
        self.last = b"connection: close" in head.lower()
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        while len(answer) < length:
            answer += self._more()
        words = answer.split()
        status = int(data.split()[1])
        return (status, int(words[0]), int(words[1])) if status == 200 else (status, 0, 0)

    def _more(self) -> bytes:
        chunk = self.socket.recv(65536)
        if not chunk:
            raise ConnectionError("closed without an answer")
        return chunk


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "inference.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "hold").touch()
    return tmp_path


def two_workers(start: Callable[..., ModelServer], model: Path, **settings: object) -> ModelServer:
    server = start(model, workers=2, **settings)
    wait_for(lambda: server.metric("model_server_workers_ready") == 2, 60)
    return server


@pytest.mark.parametrize("size", [1, 200_000, 2_000_000])
def test_a_request_on_a_busy_workers_connection_is_answered_by_the_free_one(
    start: Callable[..., ModelServer], model: Path, size: int
) -> None:
    server = two_workers(start, model)
    owned: dict[int, list[Client]] = {}
    while max(map(len, owned.values()), default=0) < 2:
        client = Client(server)
        owned.setdefault(client.ask(b"x")[1], []).append(client)
    owner = max(owned, key=lambda pid: len(owned[pid]))
    first, second = owned[owner]
    with ThreadPoolExecutor() as pool:
        held = pool.submit(first.ask, b"hold")
        wait_for((model / "held").exists, 30)
        status, process, length = second.ask(b"x" * size)
        assert (status, length) == (200, size)
        assert process != owner
        assert not held.done()
        (model / "hold").unlink()
        assert held.result() == (200, owner, 4)
    # The connection stays with the worker that it went to.
    assert second.ask(b"x")[1] == process
    assert server.metric("model_server_requests_handed_over_total") >= 1


def test_sigterm_while_requests_are_handed_over_loses_none(
    start: Callable[..., ModelServer], model: Path
) -> None:
    server = two_workers(start, model)
    stop = threading.Event()

    def client() -> Counter[str]:
        seen: Counter[str] = Counter()
        while not stop.is_set():
            try:
                connection = Client(server)
            except OSError:  # the port is closed: nothing was sent
                return seen
            try:
                while not stop.is_set() and not connection.last:
                    seen[str(connection.ask(b"short")[0])] += 1
            except OSError:
                seen["lost"] += 1
        return seen

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client) for _ in range(8)]
        wait_for(lambda: server.metric("model_server_requests_handed_over_total") > 20, 60)
        code = server.terminate()
        stop.set()
        seen = sum((one.result() for one in clients), Counter[str]())
    assert code == 0
    assert seen["lost"] == 0
    assert seen["200"] > 20
