"""Checks that bad requests are refused with the contract's status and form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelstacks.verification.checks import Check
from modelstacks.verification.subject import JSON, Subject
from modelstacks.verification.verdict import Verdict, exchange

TUNNEL = "X-Amzn-SageMaker-Custom-Attributes"


def run(subject: Subject) -> Iterator[Verdict]:
    """Send bad bodies, content types, models and paths, and the route header."""
    yield _post(subject, "a body that is not JSON is refused", b"{", {"content-type": JSON}, (400,))
    yield _post(subject, "a body without rows is refused", b"{}", {"content-type": JSON}, (400, 422))
    unknown = {"content-type": "application/x-nobody-knows"}
    yield _post(subject, "an unknown content type is refused", b"x", unknown, (415,))
    yield _post(subject, "a POST without a content type is refused", b"{}", {}, (400, 415))
    yield _get(subject, "an unknown model is not found", "/v2/models/nobody", (404,))
    yield _get(subject, "an unknown path is refused", "/nowhere", (403, 404))
    yield _get(subject, "metrics are not reachable", "/metrics", (403, 404))
    yield _too_large(subject)
    yield _tunnel(subject)


def _post(
    subject: Subject, question: str, body: bytes, headers: Mapping[str, str], allowed: tuple[int, ...]
) -> Verdict:
    answer = subject.api.send("POST", "/invocations", body=body, headers=headers)
    return subject.refused(question, "POST /invocations", answer, allowed, body)


def _get(subject: Subject, question: str, path: str, allowed: tuple[int, ...]) -> Verdict:
    return subject.refused(question, f"GET {path}", subject.api.send("GET", path), allowed)


def _too_large(subject: Subject) -> Verdict:
    limit = subject.plan.max_body_bytes
    return _post(
        subject,
        f"a body above {limit} bytes is too large",
        b"1" * (limit + 1),
        {"content-type": JSON},
        (413,),
    )


def _tunnel(subject: Subject) -> Verdict:
    """Check that a caller's own tunnel header does not select the route."""
    question = "a caller cannot choose another route by a header"
    answer = subject.predict(headers={TUNNEL: "modelstacks-route=GET /v2"})
    shown = exchange("POST /invocations", answer)
    if b'"predictions"' in answer.body and answer.ok:
        return Verdict(question, "passed", "the header was ignored", shown)
    if answer.status in (400, 403):
        return Verdict(question, "passed", f"refused with {answer.status}", shown)
    return Verdict(question, "failed", f"got {answer.status}: {answer.text[:200]}", shown)


CHECK = Check(
    "refusals",
    40,
    "API Gateway's own errors and the servers' have one form; the body limit fits what each service carries",
    run,
)
