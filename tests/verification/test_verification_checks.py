"""Every question passes against an API that keeps the contract, and fails where one breaks it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from support.contract_api import Asked, Contract, Reply, problem

from modelstacks.verification.checks import checks
from modelstacks.verification.subject import Subject
from modelstacks.verification.verdict import Verdict


def verdicts(subject: Subject) -> list[Verdict]:
    return [verdict for check in checks() for verdict in check.run(subject)]


def test_an_api_that_keeps_the_contract_passes_every_question(subject: Subject) -> None:
    found = verdicts(subject)
    assert [verdict for verdict in found if verdict.state != "passed"] == []
    assert len(found) > 20


def unless(condition: Callable[[Asked, Reply], bool], reply: Reply) -> Callable[[Asked, Reply], Reply]:
    return lambda asked, good: reply if condition(asked, good) else good


def wrong_sums(asked: Asked, good: Reply) -> Reply:
    if b'"predictions"' not in good.body:
        return good
    return Reply(200, json.dumps({"predictions": [3, 7.6]}).encode())


def one_label_off(asked: Asked, good: Reply) -> Reply:
    if good.headers["content-type"] != "text/csv":
        return good
    return replace(good, body=good.body.replace(b"7.5", b"7.6"))


def forgets_a_member(asked: Asked, good: Reply) -> Reply:
    if good.status != 413:
        return good
    document = json.loads(good.body)
    del document["status"]
    return replace(good, body=json.dumps(document).encode())


def describes(change: Callable[[dict], None]) -> Callable[[Asked, Reply], Reply]:
    def broken(asked: Asked, good: Reply) -> Reply:
        if not asked.path.endswith("/openapi.json"):
            return good
        document = json.loads(good.body)
        change(document)
        return Reply(200, json.dumps(document).encode())

    return broken


def binary_differs(asked: Asked, good: Reply) -> Reply:
    if "inference-header-content-length" not in asked.headers:
        return good
    return Reply(200, json.dumps({"outputs": [{"name": "sums", "data": [0, 0]}]}).encode())


def open_tunnel(asked: Asked, good: Reply) -> Reply:
    return (
        Reply(200, b'{"name": "server"}') if "x-amzn-sagemaker-custom-attributes" in asked.headers else good
    )


@pytest.mark.parametrize(
    ("broken", "question"),
    [
        (unless(lambda a, _: a.path == "/live/ping", problem(503)), "GET /ping"),
        (
            lambda a, g: replace(g, headers={**g.headers, "x-request-id": "mine"}),
            "GET /v2/health/live",
        ),
        (wrong_sums, "predictions in JSON"),
        (one_label_off, "predictions in CSV"),
        (
            unless(lambda a, _: "content-encoding" in a.headers, problem(415)),
            "predictions of a gzip-compressed body",
        ),
        (
            unless(lambda a, _: a.path == "/live/v2/models/sums", Reply(200, b'{"inputs": []}')),
            "model metadata",
        ),
        (unless(lambda a, _: a.path.endswith("/infer"), problem(400)), "infer with JSON tensors"),
        (binary_differs, "infer with a binary tensor"),
        (unless(lambda _, g: g.status == 415, problem(500)), "an unknown content type is refused"),
        (unless(lambda a, _: a.path == "/live/metrics", Reply(200, b"# HELP")), "metrics are not reachable"),
        (forgets_a_member, "a body above 100000 bytes is too large"),
        (open_tunnel, "a caller cannot choose another route by a header"),
        (
            unless(lambda a, _: "x-api-key" not in a.headers, Reply(200, b"{}")),
            "a caller without a key is refused",
        ),
        (
            unless(lambda a, _: a.headers.get("x-api-key", "").startswith("not-the"), Reply(200, b"{}")),
            "a caller with a wrong key is refused",
        ),
        (describes(lambda d: d.update(servers=[])), "the API's description"),
        (describes(lambda d: d.update(components={})), "the API's description"),
        (describes(lambda d: d["paths"].update({"/metrics": {}})), "the API's description"),
    ],
)
def test_an_api_that_breaks_it_fails_that_question(
    subject: Subject, contract: Contract, broken: Callable[[Asked, Reply], Reply], question: str
) -> None:
    contract.broken = broken
    failed = [verdict.question for verdict in verdicts(replace(subject, overload=False)) if verdict.failed]
    assert question in failed


def test_a_page_of_the_load_balancer_is_named_as_its_own(subject: Subject, contract: Contract) -> None:
    page = Reply(503, b"<html></html>", {"content-type": "text/html"})
    contract.broken = unless(lambda a, _: a.path == "/live/ping", page)
    [failed] = [one for one in verdicts(replace(subject, overload=False)) if one.failed]
    assert failed.detail.startswith("got 503, the load balancer's own answer")


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(429, b"{}"), "429 without Retry-After"),
        (Reply(500, b"{}"), "status 500"),
        (Reply(200, b'{"predictions": [0, 0]}'), "wrong answer"),
    ],
)
def test_under_overload_every_answer_is_looked_at(
    subject: Subject, contract: Contract, reply: Reply, kind: str
) -> None:
    count = itertools.count()
    # The check asks once by itself; later a single answer among hundreds is wrong.
    contract.broken = lambda asked, good: reply if next(count) == 100 else good
    (overload,) = [check for check in checks() if check.name == "overload"]
    (verdict,) = overload.run(subject)
    assert verdict.failed
    assert verdict.figures[kind] == 1


def test_refusals_with_retry_after_are_no_failure_under_overload(
    subject: Subject, contract: Contract
) -> None:
    count = itertools.count()
    refusal = Reply(429, b"{}", {"retry-after": "1"})
    contract.broken = lambda asked, good: refusal if next(count) % 2 else good
    (overload,) = [check for check in checks() if check.name == "overload"]
    (verdict,) = overload.run(subject)
    assert verdict.state == "passed"
    assert verdict.figures["refused"] > 0


def test_an_api_that_refuses_everything_under_overload_fails(subject: Subject, contract: Contract) -> None:
    count = itertools.count()
    contract.broken = lambda asked, good: Reply(429, b"{}", {"retry-after": "1"}) if next(count) else good
    (overload,) = [check for check in checks() if check.name == "overload"]
    assert next(iter(overload.run(subject))).failed
