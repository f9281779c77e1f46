"""The deployment under test: its API, its Plan, the rows to send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelstacks.adapters.deployed_api import Answer, DeployedApi
from modelstacks.core.plan import Plan
from modelstacks.verification.rows import Rows, difference, values
from modelstacks.verification.verdict import Exchange, Verdict, exchange

__all__ = ["JSON", "Subject", "got"]

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Subject:
    """The deployment that the checks send requests to.

    `overload` is False where the user does not want many requests at once.
    """

    plan: Plan
    api: DeployedApi
    rows: Rows
    overload: bool = True

    @property
    def model(self) -> str:
        """The model's name in the routes of the Open Inference Protocol."""
        return self.plan.name

    def predict(self, body: Any = None, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Send POST /invocations with a JSON body, by default the rows."""
        payload = json.dumps(self.rows.body if body is None else body).encode()
        return self.api.send(
            "POST", "/invocations", body=payload, headers={"content-type": JSON, **(headers or {})}
        )

    def compare(self, question: str, found: Any, shown: Exchange) -> Verdict:
        """Compare an answer with the trainer's predictions, if they were recorded."""
        rows = self.rows
        if rows.expected is None:
            return Verdict(question, "passed", f"{rows.count} rows answered; no predictions recorded", shown)
        far = difference(values(found), values(rows.expected))
        detail = f"{rows.count} rows of {rows.origin}, largest difference {far:.1e} of the tolerance"
        return Verdict(question, "passed" if far <= 1 else "failed", detail, shown)

    def refused(
        self, question: str, request: str, answer: Answer, allowed: tuple[int, ...], body: bytes | None = None
    ) -> Verdict:
        """Check that a refusal has one of the statuses and the form of every error of the API."""
        shown = exchange(request, answer, body)
        if answer.status not in allowed:
            wanted = " or ".join(map(str, allowed))
            return Verdict(question, "failed", f"{got(answer)}; expected {wanted}", shown)
        missing = _missing_from_problem(answer)
        if missing:
            return Verdict(
                question, "failed", f"{got(answer)}, but the error lacks {', '.join(missing)}", shown
            )
        return Verdict(question, "passed", f"{answer.status}, a problem document with a request id", shown)


def got(answer: Answer) -> str:
    """Return the status, and whether the load balancer answered by itself.

    API Gateway passes such an answer on as it is: a proxy integration cannot map it (docs/contract.md).
    """
    html = answer.headers.get("content-type", "").startswith("text/html")
    if answer.status in (502, 503, 504) and html:
        return f"got {answer.status}, the load balancer's own answer: it reached no model server in time"
    return f"got {answer.status}"


def _missing_from_problem(answer: Answer) -> list[str]:
    """Return what an error lacks of the contract's form (docs/contract.md)."""
    missing = []
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        missing.append("content type application/problem+json")
    try:
        problem = json.loads(answer.body)
    except ValueError:
        return [*missing, "a JSON body"]
    if not isinstance(problem, dict):
        return [*missing, "a JSON object"]
    missing += [
        f'"{name}"' for name in ("type", "title", "status", "detail", "instance") if name not in problem
    ]
    if "status" in problem and str(problem["status"]) != str(answer.status):
        missing.append(f'"status" {answer.status}')
    if "x-request-id" not in answer.headers:
        missing.append("header X-Request-Id")
    return missing
