"""The outcome of a Lambda invocation, for whoever invokes a function: an API, CloudFormation, an SDK."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Outcome", "Throttled"]

Throttled = Literal["", "function", "account"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`error` is Lambda's FunctionError. A throttled invocation never ran.

    `throttled` names the concurrency that is used up: the function's own reserved one, or the account's.
    """

    payload: bytes
    error: bool = False
    throttled: Throttled = ""
