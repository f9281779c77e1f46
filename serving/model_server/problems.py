"""What can go wrong: faults of a request (application/problem+json) and of a model (it does not start)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

MAX_TEXT = 1000
# RFC 9110's names, which Python has from 3.13 on.
_TITLES = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}


class ModelRefusedError(Exception):
    """The model or the settings cannot be served. The message is one line, the last one of the log."""


class SignatureNeededError(ModelRefusedError):
    """The model does not describe its columns; a signature.json can.

    Args:
        reason: what went wrong without one.
        skeleton: a signature to correct, as far as it is known.
    """

    def __init__(self, reason: str, skeleton: dict[str, Any]) -> None:
        super().__init__(f"{reason}; a signature.json beside the model has to name the columns")
        self.skeleton = skeleton


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an input, with the tensor or column and the row (from 0), where they are known."""

    message: str
    field: str | None = None
    row: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {"field": _short(self.field), "row": self.row, "message": _short(self.message)}


@dataclass(eq=False)
class ProblemError(Exception):
    """A request that is answered with an error: an RFC 9457 problem. Engines may raise it from `predict`."""

    status: int
    detail: str
    errors: Sequence[Fault] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False  # the connection cannot be used again: what follows on it is not a request

    def __str__(self) -> str:
        return f"{self.status}: {self.detail}"

    def to_json(self, request_id: str) -> dict[str, Any]:
        detail = _short(self.detail)
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": _TITLES.get(self.status) or HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": detail,
            "instance": request_id,
            "error": detail,  # where clients of the Open Inference Protocol look for it
        }
        wait = self.headers.get("retry-after", "")
        if wait.isdecimal():  # SageMaker passes the body on, and no header
            body["retry_after"] = int(wait)
        if self.errors:
            body["errors"] = [fault.to_json() for fault in self.errors]
        return body


def _short(text: str | None) -> str | None:
    """Shortens what an answer quotes: it may be megabytes long, or hold half of a surrogate pair."""
    if text is None:
        return None
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."


def malformed(detail: str) -> ProblemError:
    """400: the body is not what its content type says."""
    return ProblemError(400, detail)


def too_large(limit: int) -> ProblemError:
    """413: the body, or what it unpacks to, is above the limit."""
    return ProblemError(413, f"the body is larger than {limit} bytes; send fewer rows at once")


def answer_too_large(size: int, limit: float) -> ProblemError:
    """422: the answer is larger than the services in front can carry."""
    what = f"the answer has {size} bytes; allowed: at most {limit:.0f}; send fewer rows at once"
    return ProblemError(422, what)


def invalid(*faults: Fault) -> ProblemError:
    """422: the body can be read, but the model cannot take it."""
    first = faults[0]
    where = ", ".join(
        part
        for part in (
            f"row {first.row}" if first.row is not None else "",
            f"field {first.field!r}" if first.field is not None else "",
        )
        if part
    )
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return ProblemError(422, f"{where}: {first.message}{more}" if where else first.message + more, faults)
