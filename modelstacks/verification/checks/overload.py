"""Checks that many requests at once are each answered correctly or refused with Retry-After."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from modelstacks.adapters.deployed_api import Answer
from modelstacks.core.errors import InvocationFailed
from modelstacks.verification.checks import Check
from modelstacks.verification.rows import Values, difference, values
from modelstacks.verification.subject import Subject
from modelstacks.verification.verdict import Verdict

AT_ONCE = 64
REQUESTS = 512  # bounded: the check must not become the outage, or spend a caller's quota
REFUSALS = (429, 503)


def run(subject: Subject) -> Iterator[Verdict]:
    """Send the rows many times at once and judge every answer."""
    question = f"{REQUESTS} requests, {AT_ONCE} at once"
    if not subject.overload:
        yield Verdict(question, "skipped", "not asked for (--no-overload)")
        return
    first = subject.predict()
    if not first.ok:
        yield Verdict(question, "skipped", f"a single request is answered with {first.status}")
        return
    right = values(json.loads(first.body).get("predictions"))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(lambda _: _outcome(subject, right), range(REQUESTS)))
    yield _verdict(question, outcomes)


def _outcome(subject: Subject, right: Values) -> tuple[str, float]:
    """Return the outcome of one request, and its seconds."""
    try:
        answer = subject.predict()
    except InvocationFailed:
        return "no answer", 0.0
    return _kind(answer, right), answer.seconds


def _kind(answer: Answer, right: Values) -> str:
    if answer.ok:
        try:
            found: Any = json.loads(answer.body).get("predictions")
        except (ValueError, AttributeError):
            return "wrong answer"
        return "answered" if difference(values(found), right) <= 1 else "wrong answer"
    if answer.status in REFUSALS:
        return "refused" if "retry-after" in answer.headers else f"{answer.status} without Retry-After"
    return f"status {answer.status}"


def _verdict(question: str, outcomes: list[tuple[str, float]]) -> Verdict:
    counts = Counter(kind for kind, _ in outcomes)
    times = sorted(1000 * seconds for kind, seconds in outcomes if kind == "answered")
    fine = set(counts) <= {"answered", "refused"} and counts["answered"] > 0
    figures: dict[str, Any] = dict(sorted(counts.items()))
    detail = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    if times:
        figures["p50_ms"] = round(statistics.median(times), 1)
        figures["p99_ms"] = round(times[min(len(times) - 1, int(len(times) * 0.99))], 1)
        detail += f"; answered in {figures['p50_ms']} ms (p50), {figures['p99_ms']} ms (p99)"
    return Verdict(question, "passed" if fine else "failed", detail, figures=figures)


CHECK = Check(
    "overload",
    90,
    "under load, API Gateway, Lambda and SageMaker lead to 429 or 503 with Retry-After",
    run,
)
