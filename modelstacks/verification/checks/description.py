"""Checks that /openapi.json describes the API as its callers reach it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from modelstacks.verification.checks import Check
from modelstacks.verification.subject import Subject
from modelstacks.verification.verdict import Verdict, exchange

PATH = "/openapi.json"


def run(subject: Subject) -> Iterator[Verdict]:
    """Check that it names this URL and how to authenticate, and lists no hidden route."""
    question = "the API's description"
    answer = subject.api.send("GET", PATH)
    shown = exchange(f"GET {PATH}", answer)
    try:
        document = json.loads(answer.body)
        servers = [one["url"].rstrip("/") for one in document.get("servers", [])]
        paths, secured = document["paths"], document.get("components", {}).get("securitySchemes")
    except (ValueError, KeyError, TypeError, AttributeError):
        yield Verdict(question, "failed", f"got {answer.status}: {answer.text[:200]}", shown)
        return
    wrong = []
    if subject.api.url not in servers:
        wrong.append(f"servers are {servers}; expected {subject.api.url}")
    if not secured:
        wrong.append("no security scheme is declared")
    if "/metrics" in paths:
        wrong.append("/metrics is listed, and callers cannot reach it")
    detail = "; ".join(wrong) or f"{len(paths)} paths at {subject.api.url}"
    yield Verdict(question, "failed" if wrong else "passed", detail, shown)


CHECK = Check("description", 60, "the stage's public address reaches the server", run)
