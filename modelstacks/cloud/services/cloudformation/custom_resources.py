"""Custom resources that wait for their function's answer.

The engine asks in the control plane's process; functions run in the data plane's, which takes what is asked
over the control plane's own routes (server.py) and brings the answers back.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ROUTE", "CustomResources", "NoAnswerError", "custom_resources"]

#: GET takes what is asked; POST to a path below it brings an answer.
ROUTE = "/_modelstacks/custom-resources"
TAKEN_SECONDS = 60.0  # how long a question may lie before it is clear that no data plane is there


class NoAnswerError(Exception):
    """A function did not answer, and why."""


@dataclass(slots=True)
class _Question:
    function_arn: str
    event: Mapping[str, Any]
    taken: bool = False
    answer: Mapping[str, Any] | None = None
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))


class CustomResources:
    """The questions of this process's engine. Thread-safe."""

    def __init__(self) -> None:
        self._questions: dict[str, _Question] = {}
        self._changed = threading.Condition()

    def ask(self, function_arn: str, event: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        """Have a function answer an event. Raises NoAnswerError after `seconds`."""
        question = _Question(function_arn, event)
        with self._changed:
            self._questions[question.token] = question
            self._changed.notify_all()
            try:
                if not self._changed.wait_for(lambda: question.taken, TAKEN_SECONDS):
                    raise NoAnswerError("no data plane runs that could invoke the function")
                if not self._changed.wait_for(lambda: question.answer is not None, seconds):
                    raise NoAnswerError(f"the function did not answer within {seconds:g} s")
            finally:
                del self._questions[question.token]
        assert question.answer is not None
        if "failure" in question.answer:
            raise NoAnswerError(str(question.answer["failure"]))
        return question.answer

    def take(self, seconds: float) -> list[dict[str, Any]]:
        """What is asked and not taken yet, after at most `seconds`: token, function ARN, event."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not (fresh := [one for one in self._questions.values() if not one.taken]):
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    return []
            for one in fresh:
                one.taken = True
            self._changed.notify_all()
            return [{"token": one.token, "function": one.function_arn, "event": one.event} for one in fresh]

    def answer(self, token: str, answer: Mapping[str, Any]) -> bool:
        """Bring an answer, or `{"failure": why}`; False where nobody waits for it any more."""
        with self._changed:
            question = self._questions.get(token)
            if question is None:
                return False
            question.answer = answer
            self._changed.notify_all()
            return True


custom_resources = CustomResources()
