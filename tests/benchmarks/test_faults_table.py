"""The faults benchmark's figures, from answers that are made up."""

from __future__ import annotations

from benchmarks.deployed import Answer
from benchmarks.faults import HEADER, Outcome


def test_what_was_refused_can_be_told_from_what_was_lost() -> None:
    answers = [
        Answer(200, 0.1, right=True),
        Answer(200, 1.5, right=True),
        Answer(200, 0.1, right=False),
        Answer(503, 0.1, right=False, retry_after="1"),
        Answer(429, 0.1, right=False, retry_after="1"),
        Answer(503, 0.1, right=False),
        Answer(502, 0.1, right=False),
        Answer(0, 35.0, right=False),
    ]
    figures = Outcome(answers, 7.2).figures("a fault")
    assert (figures.right, figures.late, figures.refused, figures.lost, figures.wrong) == (2, 1, 2, 3, 1)
    assert figures.lost_as == {"502": 1, "503": 1, "no answer": 1}
    cells = dict(zip(HEADER, figures.cells(), strict=True))
    assert cells["lost as"] == "1 x 502, 1 x 503, 1 x no answer"
    assert cells["recovered after s"] == "7"


def test_what_never_recovers_says_so() -> None:
    assert Outcome([], None).figures("a fault").cells()[-1].startswith("not within")
