"""Reads held-out rows and the trainer's predictions for them from beside a model.

holdout.csv        a header line, then one row of numbers or texts a line; or
holdout.json       a body of POST /invocations
predictions.json   {"predictions": [...]}: what the trainer's own library answered for those rows
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelstacks.core.errors import UsageError, relative

__all__ = ["Rows", "Values", "difference", "example_rows", "read_rows", "values"]

TOLERANCE = 1e-5  # absolute and relative: float32, printed and read again
EXAMPLE_TEXT = "It was a pleasure."


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to send, in JSON and in CSV, and the expected predictions.

    `table` is None for rows that are not a table of cells (texts, nested tensors); `expected` is None where
    nobody recorded predictions.
    """

    body: dict[str, Any]
    table: tuple[tuple[str, ...], ...] | None
    columns: tuple[str, ...] | None
    expected: Any | None
    origin: str  # the file that they come from

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.body.get("instances", self.body.get("inputs", [])))

    def csv(self) -> bytes | None:
        """The rows as CSV with a header line; None if they are not a table."""
        if self.table is None or self.columns is None:
            return None
        return "".join(",".join(line) + "\n" for line in (self.columns, *self.table)).encode()


def read_rows(folder: Path | None, data: Path | None) -> Rows | None:
    """Return the rows of a file that the user names, or those beside the model, or None.

    Raises UsageError for a file that cannot be read as rows.
    """
    if data is not None:
        return _read(data, data.parent / "predictions.json")
    for name in ("holdout.csv", "holdout.json"):
        if folder is not None and (folder / name).is_file():
            return _read(folder / name, folder / "predictions.json")
    return None


def example_rows(example: dict[str, Any]) -> Rows:
    """Return one example that the model accepts, for which there is no recorded prediction."""
    return Rows(example, None, None, None, "an example made from the signature")


def _read(path: Path, predictions: Path) -> Rows:
    try:
        expected = json.loads(predictions.read_bytes())["predictions"] if predictions.is_file() else None
        if path.suffix == ".json":
            body = json.loads(path.read_bytes())
            if not isinstance(body, dict) or not ({"instances", "inputs"} & set(body)):
                raise ValueError('it is not an object with "instances" or "inputs"')
            return Rows(body, None, None, expected, relative(path))
        with path.open(newline="", encoding="utf-8") as file:
            columns, *table = csv.reader(file)
        body = {"instances": [[_cell(cell) for cell in line] for line in table]}
        return Rows(body, tuple(map(tuple, table)), tuple(columns), expected, relative(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"the rows in {relative(path)} cannot be read: {error}",
            allowed="CSV with a header line, or JSON as POST /invocations takes it",
        ) from None


def _cell(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


@dataclass(frozen=True, slots=True)
class Values:
    """The numbers and the texts of an answer, each in order."""

    numbers: tuple[float, ...]
    texts: tuple[str, ...]


def values(answer: Any) -> Values:
    """Collect the numbers and texts of a nested answer."""
    leaves = list(_leaves(answer))
    return Values(
        tuple(float(leaf) for leaf in leaves if isinstance(leaf, int | float)),
        tuple(leaf for leaf in leaves if isinstance(leaf, str)),
    )


def _leaves(value: Any) -> Iterator[object]:
    children: Sequence[Any] = ()
    if isinstance(value, dict):
        children = list(value.values())
    elif isinstance(value, list):
        children = value
    elif value is not None:
        yield value
    for child in children:
        yield from _leaves(child)


def difference(one: Values, other: Values) -> float:
    """Return the largest difference as a multiple of the tolerance; infinite if texts or lengths differ."""
    if one.texts != other.texts or len(one.numbers) != len(other.numbers):
        return math.inf
    pairs = zip(one.numbers, other.numbers, strict=True)
    return max((abs(a - b) / (TOLERANCE * (1 + abs(b))) for a, b in pairs), default=0.0)
