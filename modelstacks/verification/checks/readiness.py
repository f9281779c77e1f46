"""Checks that the routes without a body answer 200."""

from __future__ import annotations

from collections.abc import Iterator

from modelstacks.core.contract import routes
from modelstacks.verification.checks import Check
from modelstacks.verification.subject import Subject, got
from modelstacks.verification.verdict import Verdict, exchange

REQUEST_ID = "modelstacks-verify-1"


def run(subject: Subject) -> Iterator[Verdict]:
    """Send every GET route of the contract; the caller's request id must be returned."""
    for route in routes(subject.plan.contracts):
        if route.method != "GET":
            continue
        path = route.path.replace("{model}", subject.model)
        answer = subject.api.send("GET", path, headers={"x-request-id": REQUEST_ID})
        shown = exchange(f"GET {path}", answer)
        if answer.status != 200:
            yield Verdict(f"GET {path}", "failed", f"{got(answer)}; expected 200", shown)
        elif (returned := answer.headers.get("x-request-id")) != REQUEST_ID:
            detail = f"X-Request-Id is {returned!r}; expected the caller's own, {REQUEST_ID!r}"
            yield Verdict(f"GET {path}", "failed", detail, shown)
        else:
            yield Verdict(f"GET {path}", "passed", f"200 in {1000 * answer.seconds:.0f} ms", shown)


CHECK = Check(
    "readiness",
    10,
    "the private integration reaches a healthy replica, with or without the stage's name in the path; "
    "SageMaker accepts an invocation for a route without a body",
    run,
)
