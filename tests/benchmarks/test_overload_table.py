"""The overload benchmark's figures, from answers that are made up."""

from __future__ import annotations

from benchmarks.deployed import Answer
from benchmarks.overload import CAPACITY, HEADER, row_of, targets


def answers(right: int, refused: int, seconds: float = 0.2, lost: int = 0) -> list[Answer]:
    return [
        *(Answer(200, seconds, right=True) for _ in range(right)),
        *(Answer(429, 0.001, right=False, retry_after="2") for _ in range(refused)),
        *(Answer(0, 35.0, right=False) for _ in range(lost)),
    ]


def test_a_row_has_what_its_callers_saw() -> None:
    row = row_of([*answers(90, 8, lost=1), Answer(200, 0.1, right=False)], 1, 3.0, 0.16, 20.0)
    assert (row.requests, row.answered, row.refused, row.wrong) == (100, 91, 8, 1)
    assert row.other == {"lost": 1}
    assert row.p99_of_unloaded == 0.2 / 0.16
    assert row.goodput_of_capacity == 90 / 20.0 / CAPACITY
    cells = dict(zip(HEADER, row.cells(runs=1), strict=True))
    assert cells[""] == "3 x capacity"
    assert (cells["answered 200"], cells["other"], cells["Retry-After s"]) == ("91 of 100", "1 x lost", "2")
    assert row.cells(runs=2)[0] == "3 x capacity, run 1"


def test_targets_are_judged_by_the_worst_run() -> None:
    at_capacity = [row_of(answers(100 - refused, refused), 1, 1.0, 0.16, 20.0) for refused in (2, 6)]
    over = [row_of(answers(500, 1000, seconds), 1, 3.0, 0.16, 20.0) for seconds in (0.3, 0.31)]
    verdicts = [(measured, met) for _, measured, met in targets([*at_capacity, *over])]
    assert verdicts == [
        ("6.0% at worst (2.0%, 6.0%)", "no"),
        ("1.94 at worst (1.88, 1.94)", "yes"),
        ("0.94 at worst (0.94, 0.94)", "yes"),
    ]
