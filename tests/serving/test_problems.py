"""What an error looks like to a caller."""

from __future__ import annotations

import json

import orjson
import pytest
from model_server.problems import Fault, ProblemError


@pytest.mark.parametrize(
    ("text", "shown"), [("half \ud800 a pair", "half ? a pair"), ("x" * 2000, "x" * 1000 + "...")]
)
def test_whatever_an_error_quotes_can_be_sent(text: str, shown: str) -> None:
    problem = ProblemError(422, text, [Fault(text, text, 3)])
    body = json.loads(orjson.dumps(problem.to_json("id")))
    assert body["detail"] == shown
    assert body["errors"] == [{"field": shown, "row": 3, "message": shown}]
