"""The rows beside a model, and how two answers are compared."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from modelstacks.core.errors import UsageError
from modelstacks.verification.rows import difference, read_rows, values


def test_a_csv_with_text_columns_keeps_its_texts(tmp_path: Path) -> None:
    (tmp_path / "holdout.csv").write_text("city,size\nOslo,1\n")
    rows = read_rows(tmp_path, None)
    assert rows is not None
    assert rows.body == {"instances": [["Oslo", 1.0]]}
    assert rows.csv() == b"city,size\nOslo,1\n"
    assert rows.expected is None


def test_a_file_of_the_user_goes_before_the_models_own(tmp_path: Path) -> None:
    (tmp_path / "holdout.csv").write_text("a\n1\n")
    mine = tmp_path / "mine.json"
    mine.write_text('{"inputs": ["a text"]}')
    rows = read_rows(tmp_path, mine)
    assert rows is not None
    assert (rows.body, rows.csv()) == ({"inputs": ["a text"]}, None)


def test_a_folder_without_rows_has_none(tmp_path: Path) -> None:
    assert read_rows(tmp_path, None) is None
    assert read_rows(None, None) is None


@pytest.mark.parametrize("content", ["", "[1]", "{}", "{"])
def test_a_file_that_holds_no_rows_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"rows\.json cannot be read: .*; allowed: CSV with a header line"):
        read_rows(None, path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_rows(None, tmp_path / "nowhere.csv")


def test_texts_and_lengths_must_be_equal() -> None:
    assert (
        difference(values([{"label": "A", "score": 1.0}]), values([{"label": "B", "score": 1.0}])) == math.inf
    )
    assert difference(values([1.0]), values([1.0, 2.0])) == math.inf


def test_numbers_are_compared_to_the_tolerance() -> None:
    assert difference(values([[1.0], [2.0]]), values([[1.0], [2.0]])) == 0
    assert difference(values([1.000001]), values([1.0])) < 1
    assert difference(values([1.001]), values([1.0])) > 1
