"""Requests and scripts out of the ordinary, each of which still gets an answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.model_server import ModelServer, wait_for

SCRIPT = """
import asyncio

def model_fn(folder): return folder
def input_fn(body, content_type): return body.decode()
def predict_fn(name, folder): return globals()[name]()
def output_fn(prediction, accept): return prediction

async def cancelled():
    inner = asyncio.ensure_future(asyncio.sleep(60))
    inner.cancel()
    await inner
    yield "x"

async def cancelled_later():
    yield "x"
    async for chunk in cancelled():
        yield chunk

def pieces():
    yield "x"

def foreign():
    return pieces(), "text/plain; title=\\u2013"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, logs: Path) -> Iterator[ModelServer]:
    made = tmp_path_factory.mktemp("answers")
    (made / "inference.py").write_text(SCRIPT, encoding="utf-8")
    with ModelServer.start(made, logs) as running:
        yield running


def ask(server: ModelServer, name: str, **headers: str) -> httpx.Response:
    given = {"content-type": "text/plain", "accept": "text/plain", **headers}
    return httpx.post(f"{server.url}/invocations", content=name, headers=given, timeout=20)


def test_an_iterator_that_was_cancelled_by_its_own_script_has_failed(server: ModelServer) -> None:
    assert ask(server, "cancelled").status_code == 500


def test_an_iterator_that_is_cancelled_later_ends_without_its_end(server: ModelServer) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        ask(server, "cancelled_later")
    wait_for(lambda: server.metric("model_server_requests_in_flight") == 1, 20)


def test_a_content_type_that_no_header_can_have_is_the_scripts_failure(server: ModelServer) -> None:
    assert ask(server, "foreign").status_code == 500


@pytest.mark.parametrize("digits", [400, 5000])
def test_a_deadline_beyond_any_number_is_none(server: ModelServer, digits: int) -> None:
    answer = ask(server, "pieces", **{"x-envoy-expected-rq-timeout-ms": "9" * digits})
    assert (answer.status_code, answer.text) == (200, "x")
