"""Answers in chunks over plain sockets: pace, clients that leave, failures, the server's leaving."""

from __future__ import annotations

import http.client
import json
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from support.model_server import ModelServer, wait_for

# Each name is one way to answer; `folder` is the model's own, in which steps are noted and waited for.
SCRIPT = """
import pathlib, sys, time
from sagemaker_inference import errors

def model_fn(folder):
    return pathlib.Path(folder)

def input_fn(body, content_type):
    return body.decode()

def predict_fn(name, folder):
    return globals()[name](folder)

def output_fn(prediction, accept):
    return prediction

def wait(path):
    while not path.exists():
        time.sleep(0.005)

def two(folder):
    yield b"first "
    wait(folder / "go")
    yield "second"

def bodies(folder):
    return b"whole"

def nothing(folder):
    yield from ()

def gaps(folder):
    yield b""
    yield b"a"
    yield b""
    yield b"b"

def values(folder):
    yield {"token": "a"}
    yield [1, 2]

async def later(folder):
    import asyncio
    try:
        yield "one "
        await asyncio.sleep(0.01)
        yield "two"
        while (folder / "forever").exists():
            await asyncio.sleep(0.01)
    finally:
        (folder / "closed").touch()

def endless(folder):
    try:
        while True:
            time.sleep(0.002)
            yield "data: x\\n\\n"
    finally:
        (folder / "closed").touch()

def large(folder):
    while True:
        with (folder / "made").open("a") as made:
            made.write("x")
        yield bytes(65536)

def early(folder):
    raise ZeroDivisionError("early")
    yield

def refused(folder):
    raise errors.GenericInferenceToolkitError(422, "no such word")
    yield

def late(folder):
    yield "data: x\\n\\n"
    raise ZeroDivisionError("late")

def leaves(folder):
    yield "x"
    sys.exit(3)

def odd(folder):
    yield "x"
    yield object()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("streaming")
    (made / "inference.py").write_text(SCRIPT, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def server(folder: Path, logs: Path) -> Iterator[ModelServer]:
    with ModelServer.start(folder, logs, tunnel=True) as running:
        yield running


@pytest.fixture
def own(tmp_path: Path, start: Callable[..., ModelServer]) -> Callable[..., ModelServer]:
    """Starts a server of the test's own, with the model's folder at `tmp_path`."""
    (tmp_path / "inference.py").write_text(SCRIPT, encoding="utf-8")
    return lambda **settings: start(tmp_path, **settings)


def message(name: str, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST /invocations HTTP/{version}", "host: x", "content-type: text/plain", *headers]
    return "\r\n".join([*lines, f"content-length: {len(name)}", "", name]).encode()


def ask(server: ModelServer, name: str, accept: str = "text/plain") -> http.client.HTTPResponse:
    """The answer's head; its body is read by the test."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    headers = {"content-type": "text/plain", "accept": accept}
    connection.request("POST", "/invocations", name, headers)
    return connection.getresponse()


def raw(server: ModelServer, data: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    client.sendall(data)
    return client


def until(client: socket.socket, mark: bytes) -> bytes:
    """What was received once the mark has come."""
    received = b""
    while mark not in received:
        part = client.recv(65536)
        assert part, received
        received += part
    return received


def outcomes(server: ModelServer) -> dict[str, float]:
    text = httpx.get(f"{server.url}/metrics").text
    mark = 'model_server_streams_total{outcome="'
    lines = [line.removeprefix(mark) for line in text.splitlines() if line.startswith(mark)]
    return {line.partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}


# What is sent


def test_a_chunk_is_sent_when_it_is_made(own: Callable[..., ModelServer], tmp_path: Path) -> None:
    with raw(own(), message("two")) as client:
        head, _, body = until(client, b"first").partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        assert b"content-length" not in head
        (tmp_path / "go").touch()
        body += until(client, b"0\r\n\r\n")
    assert body == b"6\r\nfirst \r\n6\r\nsecond\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("name", "accept", "media", "body"),
    [
        ("bodies", "text/plain", "text/plain", b"whole"),
        ("nothing", "text/plain", "text/plain", b""),
        ("gaps", "text/plain", "text/plain", b"ab"),
        ("later", "text/plain", "text/plain", b"one two"),
        ("values", "application/jsonlines", "application/jsonlines", b'{"token":"a"}\n[1,2]\n'),
        ("values", "text/event-stream", "text/event-stream", b'data: {"token":"a"}\n\ndata: [1,2]\n\n'),
    ],
)
def test_whatever_gives_the_chunks_the_body_is_whole(
    server: ModelServer, name: str, accept: str, media: str, body: bytes
) -> None:
    answer = ask(server, name, accept)
    assert (answer.status, answer.headers["content-type"], answer.read()) == (200, media, body)


def test_the_items_of_a_prediction_are_lines_where_no_output_fn_writes_them(
    start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    script = "def model_fn(d): ...\ndef predict_fn(data, model):\n    yield from data.tolist()\n"
    (tmp_path / "inference.py").write_text(script, encoding="utf-8")
    answer = httpx.post(f"{start(tmp_path).url}/invocations", json=[1, [2, 3]][1])
    assert answer.headers["content-type"] == "application/jsonlines"
    assert answer.text == "2\n3\n"


def test_on_http_1_0_the_body_ends_with_the_connection(server: ModelServer) -> None:
    with raw(server, message("gaps", "connection: keep-alive", version="1.0")) as client:
        head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == b"ab"


def test_through_sagemaker_the_answers_attributes_are_in_its_head(server: ModelServer) -> None:
    attributes = "X-Amzn-SageMaker-Custom-Attributes: modelstacks-route=POST /invocations;request-id=call-9"
    with raw(server, message("gaps", attributes)) as client:
        head, _, body = until(client, b"0\r\n\r\n").partition(b"\r\n\r\n")
    assert b"x-amzn-sagemaker-custom-attributes: request-id=call-9" in head
    assert body == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"


def test_requests_behind_a_stream_are_answered_after_it_and_in_order(server: ModelServer) -> None:
    ping = b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n"
    with raw(server, message("gaps") + ping + message("later") + ping) as client:
        received = until(client, b"two")
        # The last answer may have come in the same packet.
        if not received.endswith(b'{"ready":true}'):
            received += until(client, b'{"ready":true}')
    assert received.count(b"HTTP/1.1 200 OK") == 4
    ends = [received.index(mark) for mark in (b"1\r\nb\r\n0\r\n\r\n", b'{"ready":true}', b"two")]
    assert ends == sorted(ends)


# Several at once


def test_streams_and_calls_take_turns_on_the_engine(own: Callable[..., ModelServer]) -> None:
    server = own()
    with raw(server, message("endless")) as one, raw(server, message("endless")) as other:
        until(one, b"data: x")
        until(other, b"data: x")
        assert ask(server, "bodies").read() == b"whole"
        assert httpx.get(f"{server.url}/ping").status_code == 200
        until(one, b"data: x")
        until(other, b"data: x")


def test_a_slow_reader_is_sent_no_more_than_it_takes(own: Callable[..., ModelServer], tmp_path: Path) -> None:
    server, made = own(), tmp_path / "made"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.connect(("127.0.0.1", server.port))
        client.sendall(message("large"))
        sizes: list[int] = []

        def stands_still() -> bool:
            sizes.append(made.stat().st_size if made.exists() else 0)
            return len(sizes) > 60 and sizes[-60] == sizes[-1] > 0

        wait_for(stands_still, 60)
        # What the kernel's buffers take, the transport's, and one chunk.
        assert sizes[-1] < 300
        assert ask(server, "bodies").read() == b"whole"  # which the slow reader does not hold up
        client.settimeout(30)
        taken = sum(len(client.recv(1 << 20)) for _ in range(200))
        wait_for(lambda: made.stat().st_size > sizes[-1], 30, lambda: f"{taken} bytes were taken")


def test_a_client_that_reads_nothing_for_too_long_is_given_up(own: Callable[..., ModelServer]) -> None:
    server = own(keep_alive_seconds=1)
    with raw(server, message("large")):
        wait_for(lambda: outcomes(server) == {"gone": 1}, 60)


# Clients that leave


@pytest.mark.parametrize("name", ["endless", "later"])
def test_the_work_for_a_client_that_left_ends(
    own: Callable[..., ModelServer], tmp_path: Path, name: str
) -> None:
    server = own()
    (tmp_path / "forever").touch()
    with raw(server, message(name)) as client:
        until(client, {"endless": b"data: x", "later": b"two"}[name])
        assert not (tmp_path / "closed").exists()
    wait_for(lambda: (tmp_path / "closed").exists(), 30)
    wait_for(lambda: outcomes(server) == {"gone": 1}, 30)
    assert server.metric("model_server_requests_in_flight") == 1  # this one, for the metrics
    assert server.metric("model_server_requests_dropped_total") == 1


# Failures


@pytest.mark.parametrize(("name", "status"), [("early", 500), ("refused", 422)])
def test_what_fails_before_the_first_chunk_is_a_problem(server: ModelServer, name: str, status: int) -> None:
    answer = ask(server, name)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.read())["status"] == status


@pytest.mark.parametrize("name", ["late", "leaves", "odd"])
def test_what_fails_later_ends_the_stream_without_its_end(server: ModelServer, name: str) -> None:
    before = outcomes(server).get("failed", 0)
    answer = ask(server, name)
    assert answer.status == 200
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    assert outcomes(server)["failed"] == before + 1
    identity = answer.headers["x-request-id"]
    (line,) = [line for line in server.log() if line.get("request_id") == identity]
    assert line["message"] == "the model failed in the middle of a stream"
    assert ask(server, "bodies").read() == b"whole"


def test_an_event_stream_that_fails_says_so_in_an_event(server: ModelServer) -> None:
    answer = ask(server, "late", "text/event-stream")
    with pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    first, error, rest = caught.value.partial.decode().split("\n\n")
    assert first == "data: x"
    assert rest == ""
    kind, data = error.split("\n")
    assert kind == "event: error"
    problem = json.loads(data.removeprefix("data: "))
    assert (problem["status"], problem["instance"]) == (500, answer.headers["x-request-id"])
    assert "late" not in data  # the model's own words are in the log


def test_on_http_1_0_a_stream_that_fails_is_a_reset(server: ModelServer) -> None:
    with (
        raw(server, message("late", version="1.0")) as client,
        pytest.raises(ConnectionResetError),
    ):
        while client.recv(65536):
            pass


# Limits


def test_a_stream_ends_where_its_caller_gives_up(own: Callable[..., ModelServer]) -> None:
    answer = ask(own(deadline_seconds=1), "endless", "text/event-stream")
    with pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    assert b'event: error\ndata: {"type":"about:blank","title":"Gateway Timeout","status":504' in (
        caught.value.partial
    )


def test_a_stream_may_have_as_many_bytes_as_an_answer(own: Callable[..., ModelServer]) -> None:
    server = own(max_answer_bytes=100_000)
    answer = ask(server, "large")
    assert answer.status == 200
    with pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    assert len(caught.value.partial) == 65_536
    server = own(max_answer_bytes=10_000)
    answer = ask(server, "large")
    assert answer.status == 422
    assert "allowed: at most 10000" in json.loads(answer.read())["detail"]


# The server's leaving


def test_a_stream_is_finished_before_the_server_leaves(
    own: Callable[..., ModelServer], tmp_path: Path
) -> None:
    server = own()
    with raw(server, message("two")) as client:
        until(client, b"first")
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: any(line["message"] == "draining" for line in server.log()), 30)
        (tmp_path / "go").touch()
        assert until(client, b"0\r\n\r\n").startswith(b"6\r\nsecond")
    assert server.process.wait(40) == 0


def test_a_stream_that_does_not_end_is_cut_when_the_time_is_over(
    own: Callable[..., ModelServer], tmp_path: Path
) -> None:
    server = own(drain_seconds=1)
    answer = ask(server, "endless", "text/event-stream")
    server.process.send_signal(signal.SIGTERM)
    with pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    assert b"event: error" in caught.value.partial
    assert b"the server stops" in caught.value.partial
    assert server.process.wait(40) == 1
    assert (tmp_path / "closed").exists()


# Counting


def test_streams_their_chunks_and_the_time_to_the_first_are_counted(own: Callable[..., ModelServer]) -> None:
    server = own()
    ask(server, "gaps").read()
    assert outcomes(server) == {"completed": 1}
    assert server.metric("model_server_stream_chunks_total") == 2
    assert server.metric("model_server_first_chunk_seconds_count") == 1
    assert server.metric("model_server_request_seconds_count") >= 1
