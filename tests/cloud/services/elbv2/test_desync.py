"""Desync mitigation: what each mode of a load balancer refuses."""

from __future__ import annotations

import pytest

from modelstacks.cloud.host.wire import Headers, Request
from modelstacks.cloud.services.elbv2.desync import Class, classify, refusal

PLAIN: Headers = [("Host", "alb.internal"), ("Content-Type", "application/json")]


def request(method: str = "GET", path: str = "/ping", headers: Headers | None = None) -> Request:
    return Request(method, path, "", [*PLAIN, *(headers or [])])


@pytest.mark.parametrize(
    ("given", "kind", "reason"),
    [
        (request(), Class.COMPLIANT, "Compliant"),
        (request("POST", headers=[("Content-Length", "2")]), Class.COMPLIANT, "Compliant"),
        (request("POST", headers=[("Content-Length", "0")]), Class.COMPLIANT, "Compliant"),
        (request(headers=[("Content-Length", "0")]), Class.ACCEPTABLE, "GetHeadZeroContentLength"),
        (request("HEAD", headers=[("content-length", "0")]), Class.ACCEPTABLE, "GetHeadZeroContentLength"),
        (request(headers=[("Content-Length", "2")]), Class.AMBIGUOUS, "UndefinedContentLengthSemantics"),
        (request(path="/a b"), Class.ACCEPTABLE, "SpaceInUri"),
        (request(path="/a\x07"), Class.AMBIGUOUS, "AmbiguousUri"),
        (request(path="/a\r\nb"), Class.SEVERE, "BadUri"),
        (request(headers=[("X-Name", "caf\u00e9")]), Class.ACCEPTABLE, "NonCompliantHeader (X-Name)"),
        (request(headers=[("X-Empty", " ")]), Class.AMBIGUOUS, "EmptyHeader (X-Empty)"),
        (request(headers=[("X-Cut", "a\rb")]), Class.SEVERE, "BadHeader (X-Cut)"),
        (request(headers=[("Content_Length", "1")]), Class.AMBIGUOUS, "SuspiciousHeader (Content_Length)"),
        (request("POST", headers=[("Content-Length", "two")]), Class.SEVERE, "BadContentLength"),
        (
            request("POST", headers=[("Content-Length", "1"), ("Content-Length", "2")]),
            Class.SEVERE,
            "MultipleContentLength",
        ),
        (
            request("POST", headers=[("Content-Length", "1"), ("Content-Length", "1")]),
            Class.AMBIGUOUS,
            "DuplicateContentLength",
        ),
        (
            request("POST", headers=[("Content-Length", "1"), ("Transfer-Encoding", "chunked")]),
            Class.AMBIGUOUS,
            "BothTeClPresent",
        ),
        (
            request("POST", headers=[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")]),
            Class.SEVERE,
            "MultipleTransferEncodingChunked",
        ),
        (request("POST", headers=[("Transfer-Encoding", "chunky")]), Class.SEVERE, "BadTransferEncoding"),
        (
            request(headers=[("Transfer-Encoding", "chunked")]),
            Class.AMBIGUOUS,
            "UndefinedTransferEncodingSemantics",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_request_has_the_class_of_its_worst_part(given: Request, kind: Class, reason: str) -> None:
    assert classify(given) == (kind, reason)


@pytest.mark.parametrize(
    ("mode", "passes"),
    [
        ("monitor", [True, True, True, True]),
        ("defensive", [True, True, True, False]),
        ("strictest", [True, False, False, False]),
    ],
)
def test_a_mode_refuses_from_a_class_on(mode: str, passes: list[bool]) -> None:
    lengths = [[], [("Content-Length", "0")], [("Content-Length", "1")], [("Content-Length", "x")]]
    assert [refusal(mode, request(headers=headers)) == "" for headers in lengths] == passes


def test_a_refusal_names_mode_class_and_reason() -> None:
    why = refusal("strictest", request(headers=[("Content-Length", "0")]))
    assert why == "desync mitigation mode strictest blocks acceptable requests: GetHeadZeroContentLength"
