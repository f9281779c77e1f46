"""A check's finding in one line, and the exchange that proves it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from modelstacks.adapters.deployed_api import Answer

__all__ = ["Exchange", "Verdict", "exchange"]

State = Literal["passed", "failed", "skipped"]

_KEPT_BYTES = 1000  # of an answer's body, in the evidence
_SECRETS = frozenset({"x-api-key", "authorization", "x-amz-security-token", "set-cookie"})


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer, without secrets."""

    request: str  # "POST /invocations"
    request_bytes: int
    status: int
    headers: dict[str, str]
    body: str  # the first characters
    seconds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one check. `detail` names what was received and, if it failed, what was expected."""

    question: str
    state: State
    detail: str
    exchange: Exchange | None = None
    figures: dict[str, Any] = field(default_factory=dict)  # counts and times, for the evidence

    @property
    def failed(self) -> bool:
        return self.state == "failed"


def exchange(request: str, answer: Answer, body: bytes | None = None) -> Exchange:
    """Return an exchange as JSON for the evidence."""
    return Exchange(
        request=request,
        request_bytes=len(body or b""),
        status=answer.status,
        headers={name: value for name, value in sorted(answer.headers.items()) if name not in _SECRETS},
        body=answer.text[:_KEPT_BYTES],
        seconds=round(answer.seconds, 4),
    )
