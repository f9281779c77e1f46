"""What services add to the account's server: found in their folders, refused where two of them collide."""

from __future__ import annotations

import json
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import pytest

from modelstacks.cloud.account import server
from modelstacks.cloud.account.additions import Additions, Answer, Call, answered, discovered
from modelstacks.cloud.account.channel import Report


def ask(services: Iterable[Additions], method: str, path: str, query: str = "", body: bytes = b"") -> Answer:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": BytesIO(body),
    }
    return server._dispatch(server._routes(services), environ)


def echo(call: Call) -> Answer:
    return answered([call.method, call.rest, dict(call.query), call.body.decode(), call.account])


def test_every_service_with_patches_declares_what_it_adds() -> None:
    found = discovered()
    assert {kind for one in found for kind in one.hears} == {
        "ecs-service",
        "lambda-function",
        "load-balancer",
        "sagemaker-endpoint",
        "vpc-link",
    }
    assert {name for one in found for name in one.in_parallel} == {"cloudformation", "s3"}


def test_a_route_gets_the_rest_of_the_path_the_query_and_the_body() -> None:
    services = [Additions(routes={"/_modelstacks/echo": echo})]
    answer = ask(services, "POST", "/_modelstacks/echo/a/b", "x=1", b"text")
    assert json.loads(answer.body) == ["POST", "a/b", {"x": "1"}, "text", server.ACCOUNT]


@pytest.mark.parametrize("path", ["/_modelstacks/echoes", "/_modelstacks/other", "/_modelstacks/"])
def test_a_path_of_no_route_is_not_found(path: str) -> None:
    assert ask([Additions(routes={"/_modelstacks/echo": echo})], "GET", path).status == 404


@pytest.mark.parametrize("path", ["/_modelstacks/health", "/_modelstacks/echo", "/elsewhere"])
def test_a_route_that_is_taken_or_outside_the_folder_is_refused(path: str) -> None:
    services = [Additions(routes={"/_modelstacks/echo": echo}), Additions(routes={path: echo})]
    with pytest.raises(ValueError, match="must be a route under /_modelstacks/"):
        server._routes(services)


def test_a_report_reaches_the_service_that_hears_its_kind() -> None:
    heard: list[tuple[str, Report]] = []
    hears = {"thing": lambda account, report: heard.append((account, report))}
    report = {"kind": "thing", "arn": "arn", "generation": "1", "state": "stable"}
    server._take_over(Call("POST", "", {}, json.dumps([report]).encode(), server.ACCOUNT), hears)
    assert heard == [(server.ACCOUNT, Report(**report))]
