"""Plain sockets: malformed, oversized, pipelined, slow and vanishing clients."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_server.http import MAX_HELD_BODIES, Connection, Server
from model_server.metrics import SharedMetrics
from model_server.settings import Settings
from support.model_server import ARTIFACTS, ModelServer, predictions, wait_for

ROWS = np.load(ARTIFACTS / "digits-onnx" / "holdout.npy").tolist()
EXPECTED = predictions("digits-onnx")


def predict_request(rows: list[list[float]], *headers: str) -> bytes:
    body = json.dumps({"instances": rows})
    lines = ["POST /invocations HTTP/1.1", "host: x", "content-type: application/json", *headers]
    return ("\r\n".join([*lines, f"content-length: {len(body)}"]) + "\r\n\r\n" + body).encode()


def connect(server: ModelServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def read_all(client: socket.socket) -> bytes:
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def exchange(server: ModelServer, data: bytes, *, half_close: bool = True) -> bytes:
    """Everything that comes back until the server closes."""
    with connect(server) as client:
        client.sendall(data)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        return read_all(client)


def read_answers(client: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """(status, body) of each answer on a connection that stays open."""
    file, answers = client.makefile("rb"), []
    for _ in range(count):
        status = int(file.readline().split()[1])
        length = 0
        while (line := file.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        answers.append((status, file.read(length)))
    return answers


POST = b"POST /invocations HTTP/1.1\r\n"
MALFORMED: dict[str, tuple[bytes, int]] = {
    "not HTTP": (b"hello\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200, 400),
    "no version": (b"GET /ping\r\n\r\n", 400),
    "HTTP/9": (b"GET /ping HTTP/9.9\r\n\r\n", 400),
    "a bad header": (b"GET /ping HTTP/1.1\r\nho st: x\r\n\r\n", 400),
    "a bare CR in a header": (b"GET /ping HTTP/1.1\r\nhost: a\rb\r\n\r\n", 400),
    "NUL in a header": (b"GET /ping HTTP/1.1\r\nhost: a\0b\r\n\r\n", 400),
    "a negative length": (POST + b"host: x\r\ncontent-length: -5\r\n\r\n", 400),
    "a length that is no number": (POST + b"host: x\r\ncontent-length: ten\r\n\r\n", 400),
    "two lengths": (POST + b"host: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx", 400),
    "length and chunks": (
        POST + b"host: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a bad chunk": (POST + b"host: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nab\r\n", 400),
    "an absurd length": (POST + b"host: x\r\ncontent-length: 99999999999999999999999\r\n\r\n", 400),
    "a length above the limit": (POST + b"host: x\r\ncontent-length: 7000000\r\n\r\n", 413),
    "a body shorter than its length": (POST + b"host: x\r\ncontent-length: 50\r\n\r\nabc", 400),
    "a header cut short": (b"GET /ping HTTP/1.1\r\nhost:", 400),
    "a long URL": (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n", 414),
    "a long header": (b"GET /ping HTTP/1.1\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", 431),
    "many headers": (b"GET /ping HTTP/1.1\r\n" + b"x-header: abcdefghij\r\n" * 5_000 + b"\r\n", 431),
    "a header without an end": (b"GET /ping HTTP/1.1\r\nx: " + b"a" * 200_000, 431),
    "a long trailer": (POST + b"host: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: " + b"a" * 200_000, 431),
    "a long chunk extension": (
        POST + b"host: x\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"a" * 200_000,
        431,
    ),
    "an expectation": (POST + b"host: x\r\ncontent-length: 1\r\nexpect: cake\r\n\r\n", 417),
    "no host": (b"GET /ping HTTP/1.1\r\n\r\n", 400),
    "no host before a body": (POST + b"content-length: 2\r\n\r\n[]", 400),
    "two hosts": (b"GET /ping HTTP/1.1\r\nhost: x\r\nHost: x\r\n\r\n", 400),
    "two hosts around others": (POST + b"host: x\r\ncontent-length: 2\r\nhost: y\r\n\r\n[]", 400),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_http_is_answered_and_the_connection_closed(digits: ModelServer, name: str) -> None:
    data, status = MALFORMED[name]
    answer = exchange(digits, data)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert b"connection: close" in head
    assert json.loads(body)["status"] == status


def test_http_1_0_needs_no_host(digits: ModelServer) -> None:
    assert exchange(digits, b"GET /ping HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("broken", ["a long URL", "an expectation", "a length above the limit"])
def test_what_follows_a_broken_request_is_not_a_request(digits: ModelServer, broken: str) -> None:
    data, status = MALFORMED[broken]
    calls = digits.metric("model_server_batch_rows_count")
    answer = exchange(digits, data + predict_request(ROWS[:1]))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert digits.metric("model_server_batch_rows_count") == calls


def test_a_trailer_does_not_change_what_was_asked(digits: ModelServer) -> None:
    body = json.dumps({"instances": ROWS[:1]}).encode()
    head = POST + b"host: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    with connect(digits) as client:
        client.sendall(head + b"%x\r\n%b\r\n0\r\ncontent-type: text/csv\r\n\r\n" % (len(body), body))
        assert read_answers(client, 1)[0][0] == 200


@pytest.mark.parametrize("offer", ["h2c", "websocket"])
def test_an_offer_to_upgrade_is_declined_and_the_connection_goes_on(digits: ModelServer, offer: str) -> None:
    upgrade = f"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: {offer}\r\n\r\n".encode()
    with connect(digits) as client:
        client.sendall(upgrade + upgrade + predict_request(ROWS[:1]))
        assert [status for status, _ in read_answers(client, 3)] == [200, 200, 200]
        client.sendall(predict_request(ROWS[:1]))
        assert read_answers(client, 1)[0][0] == 200


def test_large_bodies_of_all_connections_together_are_bounded(start: Callable[..., ModelServer]) -> None:
    server = start(ARTIFACTS / "digits-onnx", max_body_bytes=200_000)
    body = (json.dumps({"instances": ROWS[:1]}) + " " * 200_000)[:200_000].encode()
    head = POST + b"host: x\r\ncontent-type: application/json\r\ncontent-length: 200000\r\n\r\n"
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(MAX_HELD_BODIES)]
        for client in clients:
            client.sendall(head + body[:100_000])
        wait_for(lambda: server.metric("model_server_connections") >= MAX_HELD_BODIES, 10)
        one_too_many = exchange(server, head + body[:100_000])
        assert one_too_many.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: 1\r\n" in one_too_many
        for client in clients:
            client.sendall(body[100_000:])
        assert all(read_answers(client, 1)[0][0] == 200 for client in clients)
    for _ in range(2 * MAX_HELD_BODIES):  # what was answered, or left half sent, is held no longer
        with connect(server) as client:
            client.sendall(head + body[:100_000])
    with connect(server) as client:
        client.sendall(head + body)
        assert read_answers(client, 1)[0][0] == 200


def test_a_client_that_does_not_read_has_its_requests_wait(digits: ModelServer) -> None:
    count = 3_000
    with connect(digits) as client:
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * count)
        wait_for(lambda: digits.metric("model_server_requests_in_flight") > 100, 10)
        assert [status for status, _ in read_answers(client, count)] == [200] * count


def test_a_connection_that_is_lost_leaves_nothing_to_the_garbage_collector() -> None:
    class Transport:
        def get_write_buffer_size(self) -> int:
            return 0

    settings = Settings(model_name="m")
    server = Server(lambda _request: None, settings, SharedMetrics(1).worker(0))
    gc.collect()
    gc.disable()
    try:
        connection = Connection(server)
        connection.connection_made(cast(asyncio.Transport, Transport()))
        connection.data_received(POST + b"host: x\r\ncontent-length: 1000000\r\n\r\n")
        connection.data_received(b"a" * 100_000)
        assert server.held == 1_000_000
        connection.connection_lost(None)
        del connection
        assert not [each for each in gc.get_objects() if type(each) is Connection]
        assert server.held == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("extra", [b"{", b"garbage", b"\x00\x01"])
def test_a_body_longer_than_its_length_is_an_answer_and_then_a_refusal(
    digits: ModelServer, extra: bytes
) -> None:
    answer = exchange(digits, predict_request(ROWS[:1]) + extra)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400 " in answer


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=400),
        st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=5)).map(
            lambda cut: predict_request(ROWS[:1])[: cut[0]] + cut[1] + predict_request(ROWS[:1])[cut[0] :]
        ),
    )
)
def test_no_bytes_bring_a_500_or_a_hang(digits: ModelServer, data: bytes) -> None:
    assert b"HTTP/1.1 500" not in exchange(digits, data)


def test_the_server_still_answers_after_all_that(digits: ModelServer) -> None:
    answer = httpx.post(f"{digits.url}/invocations", json={"instances": ROWS})
    np.testing.assert_allclose(answer.json()["predictions"], EXPECTED, rtol=1e-5, atol=1e-8)


def test_a_chunked_body_is_read_to_its_end(digits: ModelServer) -> None:
    body = json.dumps({"instances": ROWS[:1]}).encode()
    parts = (body[i : i + 7] for i in range(0, len(body), 7))
    answer = httpx.post(
        f"{digits.url}/invocations", content=parts, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200


def test_chunks_above_the_limit_are_413(digits: ModelServer) -> None:
    def endless() -> object:
        while True:
            yield b"0" * 65536

    answer = httpx.post(
        f"{digits.url}/invocations", content=endless(), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413
    assert "6291456" in answer.json()["detail"]


def test_requests_may_arrive_byte_by_byte(digits: ModelServer) -> None:
    with connect(digits) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in predict_request(ROWS[:1]):
            client.send(bytes([byte]))
        [(status, _)] = read_answers(client, 1)
    assert status == 200


def split_at(data: bytes, *cuts: int) -> list[bytes]:
    ends = [*cuts, len(data)]
    return [data[start:end] for start, end in zip([0, *cuts], ends, strict=True)]


def test_a_head_seen_before_may_come_with_another_body(digits: ModelServer) -> None:
    bodies = [json.dumps({"instances": [ROWS[i]]}).ljust(2000) for i in range(6)]
    head = POST + b"host: again\r\ncontent-type: application/json\r\ncontent-length: 2000\r\n\r\n"
    requests = [head + body.encode() for body in bodies]
    # Whole packets; a head and its body apart; a request and a half; the second half; two at once.
    packets = [
        requests[0],
        requests[1],
        *split_at(requests[2], len(head)),
        *split_at(requests[3] + requests[4], 3000),
    ]
    with connect(digits) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for packet in [*packets, requests[5]]:
            client.sendall(packet)
            time.sleep(
                0.02
            )  # so that each is read by itself; were they not, the test would hold all the same
        answers = read_answers(client, 6)
    assert [status for status, _ in answers] == [200] * 6
    got = [json.loads(body)["predictions"][0] for _, body in answers]
    np.testing.assert_allclose(got, EXPECTED[:6], rtol=1e-5, atol=1e-8)


def test_a_head_is_not_remembered_as_what_came_before_it(digits: ModelServer) -> None:
    odd = b"\r\n\r\n" + predict_request(ROWS[:1])
    for _ in range(2):
        with connect(digits) as client:
            client.sendall(odd)
            assert read_answers(client, 1)[0][0] == 200
    answer = exchange(digits, b"\r\n\r\n" + b"x" * (len(odd) - 4), half_close=False)
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_known_head_has_each_requests_own_id(digits: ModelServer) -> None:
    def ids(client: socket.socket, *headers: str) -> list[bytes]:
        client.sendall(predict_request(ROWS[:1], *headers))
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        return re.findall(rb"x-request-id: (.*)\r\n", answer)

    with connect(digits) as client:
        for name, value in (
            ("X-Amzn-Trace-Id", "Root={}"),
            ("x-amzn-trace-id", "Self=1;Root={}"),
            ("x-request-id", "{}"),
        ):
            for i in range(3):
                assert ids(client, f"{name}: {value.format(f'{name}-{i}')}") == [f"{name}-{i}".encode()]
        # Both; one twice; one that cannot be an id: never another request's id.
        for i in range(3):
            assert ids(client, f"x-request-id: mine-{i}", f"x-amzn-trace-id: Root=trace-{i}") == [
                f"mine-{i}".encode()
            ]
            assert ids(client, f"x-request-id: a-{i}", f"x-request-id: b-{i}") == [f"b-{i}".encode()]
            [new] = ids(client, "x-request-id: " + "x" * 200)
            assert not new.startswith(b"x")
        assert ids(client) != ids(client)


def test_a_tunnelled_head_is_a_tunnel_every_time(start: Callable[..., ModelServer]) -> None:
    tunnelled = "x-amzn-sagemaker-custom-attributes: modelstacks-route=GET /v2"
    with connect(start(ARTIFACTS / "digits-onnx", model_name="digits", tunnel=True)) as client:
        for _ in range(3):
            client.sendall(predict_request(ROWS[:1], tunnelled))
            answer = client.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"x-amzn-sagemaker-custom-attributes: request-id=" in answer
            assert b'"name":"model_server"' in answer


def test_pipelined_requests_are_answered_in_order(digits: ModelServer) -> None:
    order = [i % len(ROWS) for i in range(300)]
    data = b"".join(predict_request([ROWS[i]]) for i in order)
    with connect(digits) as client, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(client.sendall, data)
        answers = read_answers(client, len(order))
        sending.result()
    assert {status for status, _ in answers} == {200}
    got = [json.loads(body)["predictions"][0] for _, body in answers]
    np.testing.assert_allclose(got, [EXPECTED[i] for i in order], rtol=1e-5, atol=1e-8)


def test_thousands_of_pipelined_pings_do_not_exhaust_the_stack(digits: ModelServer) -> None:
    with connect(digits) as client, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(client.sendall, b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n" * 5_000)
        answers = read_answers(client, 5_000)
        sending.result()
    assert {status for status, _ in answers} == {200}


def test_a_bad_request_behind_good_ones_is_answered_in_its_turn(digits: ModelServer) -> None:
    answer = exchange(digits, predict_request(ROWS[:1]) * 3 + b"nonsense\r\n\r\n", half_close=False)
    statuses = re.findall(rb"HTTP/1.1 (\d+) ", answer)
    assert statuses == [b"200", b"200", b"200", b"400"]


def test_a_kept_connection_serves_many_requests(digits: ModelServer) -> None:
    with httpx.Client(base_url=digits.url) as client:
        for i in range(50):
            answer = client.post("/invocations", json={"instances": [ROWS[i % len(ROWS)]]})
            np.testing.assert_allclose(
                answer.json()["predictions"][0], EXPECTED[i % len(ROWS)], rtol=1e-5, atol=1e-8
            )


def test_http_1_0_closes_unless_asked_to_stay(digits: ModelServer) -> None:
    assert exchange(digits, b"GET /ping HTTP/1.0\r\n\r\n", half_close=False).startswith(b"HTTP/1.1 200 ")
    with connect(digits) as client:
        client.sendall(b"GET /ping HTTP/1.0\r\nconnection: keep-alive\r\n\r\n" * 2)
        assert [status for status, _ in read_answers(client, 2)] == [200, 200]


def test_expect_100_continue_is_granted(digits: ModelServer) -> None:
    request = predict_request(ROWS[:1], "expect: 100-continue")
    head, _, body = request.partition(b"\r\n\r\n")
    with connect(digits) as client:
        client.sendall(head + b"\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert read_answers(client, 1)[0][0] == 200


def test_head_has_no_body(digits: ModelServer) -> None:
    answer = exchange(
        digits, b"HEAD /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", half_close=False
    )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("target", ["/ping?x=1", "/%70ing", "http://example.com/ping"])
def test_a_path_may_have_a_query_an_escape_or_a_host(digits: ModelServer, target: str) -> None:
    data = f"GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()
    assert exchange(digits, data, half_close=False).startswith(b"HTTP/1.1 200 ")


def test_a_request_that_never_arrives_whole_is_408(start: Callable[..., ModelServer]) -> None:
    server = start(ARTIFACTS / "digits-onnx", read_timeout_seconds=1)
    answer = exchange(server, predict_request(ROWS[:1])[:-10], half_close=False)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_silent_connection_is_closed(start: Callable[..., ModelServer]) -> None:
    server = start(ARTIFACTS / "digits-onnx", keep_alive_seconds=1)
    assert exchange(server, b"", half_close=False) == b""


TEXT = {"content-type": "text/plain"}


def slow_script(folder: Path) -> Path:
    """A model that takes a while and counts what it was asked."""
    folder.mkdir(exist_ok=True)
    (folder / "inference.py").write_text(
        "import pathlib, time\n"
        "def model_fn(d): return pathlib.Path(d)\n"
        "def input_fn(body, kind): return body.decode()\n"
        "def predict_fn(data, d):\n"
        "    (d / 'asked').open('a').write(data + '\\n')\n"
        "    while (d / 'hold').exists(): time.sleep(0.01)\n"
        "    return data\n"
        "def output_fn(prediction, accept): return prediction\n",
        encoding="utf-8",
    )
    return folder


def test_the_work_of_a_client_that_left_is_dropped(start: Callable[..., ModelServer], tmp_path: Path) -> None:
    folder = slow_script(tmp_path / "model")
    server = start(folder)
    hold = folder / "hold"
    hold.touch()
    request = "POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\n"
    first, leaver, last = (connect(server) for _ in range(3))
    with first, last:
        first.sendall((request + "first").encode())
        wait_for((folder / "asked").exists, 10)
        leaver.sendall((request + "leave").encode())
        wait_for(lambda: server.metric("model_server_queue_depth") == 1, 10)
        leaver.close()
        last.sendall((request + "last!").encode())
        wait_for(lambda: server.metric("model_server_queue_depth") == 2, 10)
        hold.unlink()
        assert read_answers(first, 1) == [(200, b"first")]
        assert read_answers(last, 1) == [(200, b"last!")]
    assert (folder / "asked").read_text(encoding="utf-8").split() == ["first", "last!"]
    assert server.metric("model_server_requests_dropped_total") == 1


def test_a_full_queue_is_429_at_once(start: Callable[..., ModelServer], tmp_path: Path) -> None:
    folder = slow_script(tmp_path / "model")
    server = start(folder, max_queue=2)
    (folder / "hold").touch()
    with ThreadPoolExecutor(3) as pool:

        def ask() -> httpx.Response:
            return httpx.post(f"{server.url}/invocations", content=b"x", headers=TEXT, timeout=30)

        waiting = [pool.submit(ask)]
        wait_for((folder / "asked").exists, 10)
        waiting += [pool.submit(ask) for _ in range(2)]
        wait_for(lambda: server.metric("model_server_queue_depth") == 2, 10)
        started = time.monotonic()
        answer = ask()
        refused_after = time.monotonic() - started
        (folder / "hold").unlink()
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert refused_after < 10  # the others wait until the test lets them go: it was not behind them
        assert [future.result().status_code for future in waiting] == [200] * 3


def test_a_request_that_could_not_be_answered_in_time_is_429_at_once(
    start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    """The first call was so long that a second one could not end before the callers give up."""
    folder = slow_script(tmp_path / "model")
    server = start(folder, deadline_seconds=1)
    url = f"{server.url}/invocations"
    with ThreadPoolExecutor(1) as pool:
        (folder / "hold").touch()
        first = pool.submit(httpx.post, url, content=b"x", headers=TEXT, timeout=30)
        wait_for((folder / "asked").exists, 10)
        time.sleep(1.1)  # how long the call takes, which the server measures
        (folder / "hold").unlink()
        assert first.result().status_code == 200
        (folder / "asked").unlink()
        (folder / "hold").touch()
        second = pool.submit(httpx.post, url, content=b"x", headers=TEXT, timeout=30)
        wait_for((folder / "asked").exists, 10)
        refused = httpx.post(url, content=b"x", headers=TEXT, timeout=30)
        (folder / "hold").unlink()
        assert second.result().status_code == 200
    assert refused.status_code == 429
    assert refused.json()["status"] == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert server.metric("model_server_requests_rejected_total") == 1


def test_ping_is_answered_while_the_model_works(start: Callable[..., ModelServer], tmp_path: Path) -> None:
    folder = slow_script(tmp_path / "model")
    server = start(folder)
    (folder / "hold").touch()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(
            httpx.post,
            f"{server.url}/invocations",
            content=b"x",
            headers={"content-type": "text/plain"},
            timeout=30,
        )
        wait_for((folder / "asked").exists, 10)
        assert httpx.get(f"{server.url}/ping").status_code == 200
        (folder / "hold").unlink()


def test_ping_is_answered_while_a_large_body_is_read(digits: ModelServer) -> None:
    rows = 7_000
    line = ",".join(f'"{value}"' for value in ROWS[0])  # quotes: the slowest kind of CSV, half a second of it
    body = "\n".join([line] * rows).encode()
    head = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: text/csv\r\ncontent-length: %d\r\n\r\n"
    with connect(digits) as client:
        client.sendall(head % len(body) + body)
        pings = 0
        while not select.select([client], [], [], 0)[0]:
            assert httpx.get(f"{digits.url}/ping").status_code == 200
            pings += 1
        assert pings >= 4  # one or two fit in before the body has arrived and after it was read
        ((status, answer),) = read_answers(client, 1)
    assert status == 200
    assert np.allclose(np.loadtxt(answer.splitlines(), delimiter=","), [EXPECTED[0]] * rows, atol=1e-5)


def test_a_large_body_is_refused_as_a_small_one_is(digits: ModelServer) -> None:
    rows = [ROWS[0]] * 4_000
    rows[3_999] = [*ROWS[0][:-1], "seven"]
    answer = httpx.post(f"{digits.url}/invocations", json={"instances": rows})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["row"] == 3_999
    tensor = {"name": "X", "shape": [4_000, 64], "datatype": "FP32", "data": rows}
    answer = httpx.post(f"{digits.url}/v2/models/digits/infer", json={"inputs": [tensor]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["row"] == 3_999


def test_a_slow_clients_large_answer_is_sent_to_its_end_before_the_server_leaves(
    start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    folder = slow_script(tmp_path / "model")
    server = start(folder)
    size = 6_000_000
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(("127.0.0.1", server.port))
        head = POST + b"host: x\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % size
        client.sendall(head + b"a" * size)
        wait_for(
            lambda: server.metric("model_server_requests_in_flight") == 1, 20
        )  # but for the one that asks
        server.process.terminate()
        time.sleep(1)
        assert read_answers(client, 1) == [(200, b"a" * size)]
    assert server.process.wait(20) == 0


def test_a_script_that_calls_exit_fails_its_request_and_no_other(
    start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    (tmp_path / "inference.py").write_text(
        "import sys\n"
        "def model_fn(d): return None\n"
        "def input_fn(body, kind): return body.decode()\n"
        "def predict_fn(data, model): return sys.exit() if data == 'exit' else data\n"
        "def output_fn(prediction, accept): return prediction\n",
        encoding="utf-8",
    )
    server = start(tmp_path)
    answers = [
        httpx.post(f"{server.url}/invocations", content=text, headers=TEXT)
        for text in ("exit", "stay", "exit")
    ]
    assert [answer.status_code for answer in answers] == [500, 200, 500]


def test_a_model_that_calls_exit_is_refused(start: Callable[..., ModelServer], tmp_path: Path) -> None:
    (tmp_path / "inference.py").write_text("def model_fn(d): raise SystemExit(3)\n", encoding="utf-8")
    server = start(tmp_path, wait=False)
    assert server.process.wait(20) == 78
    assert "SystemExit: 3" in server.log()[-1]["message"]


def test_an_answer_that_nobody_reads_is_told_of_at_the_end(
    start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    folder = slow_script(tmp_path / "model")
    server = start(folder, drain_seconds=1)
    size = 6_000_000
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        head = POST + b"host: x\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % size
        client.sendall(head + b"a" * size)
        wait_for((folder / "asked").exists, 20)
        wait_for(lambda: server.metric("model_server_requests_in_flight") == 1, 20)  # the one that asks
        server.process.terminate()
        assert server.process.wait(20) == 1
    assert any(line["message"] == "stopped with requests unanswered" for line in server.log())


def test_the_date_is_this_seconds(digits: ModelServer) -> None:
    with httpx.Client(base_url=digits.url) as client:
        first = client.get("/ping").headers["date"]
        wait_for(lambda: client.get("/ping").headers["date"] != first, 5)


def test_the_garbage_collector_is_on_again_once_the_model_is_there(
    start: Callable[..., ModelServer], tmp_path: Path
) -> None:
    (tmp_path / "inference.py").write_text(
        "import gc\n"
        "def model_fn(d): return None\n"
        "def input_fn(body, kind): return body\n"
        "def predict_fn(data, model): return gc.isenabled() and gc.get_freeze_count() > 0\n"
        "def output_fn(prediction, accept): return str(prediction)\n",
        encoding="utf-8",
    )
    server = start(tmp_path)

    def collects() -> bool:
        return httpx.post(f"{server.url}/invocations", content=b"?", headers=TEXT).text == "True"

    wait_for(collects, 10)
