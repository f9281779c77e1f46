"""The rows that each example's trainer held out, and what the trainer itself predicted for them."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Holdout:
    """`body` is what POST /invocations takes; `predictions` what must come back."""

    folder: Path
    body: dict[str, Any]
    predictions: list[Any]


def holdout(deployment: str) -> Holdout:
    """The held-out rows of an example spec's model."""
    spec = yaml.safe_load((REPOSITORY / "deployments" / f"{deployment}.yaml").read_text())
    folder = REPOSITORY / spec["model"]["path"]
    predictions = json.loads((folder / "predictions.json").read_bytes())["predictions"]
    texts = folder / "holdout.json"
    if texts.is_file():
        return Holdout(folder, json.loads(texts.read_bytes()), predictions)
    with (folder / "holdout.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    return Holdout(folder, {"instances": [[float(cell) for cell in row] for row in rows]}, predictions)


def numbers(value: Any) -> list[float]:
    """Every number in an answer, in order; words are compared apart (`words`)."""
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []


def words(value: Any) -> list[str]:
    """Every word in an answer, in order."""
    if isinstance(value, dict):
        return [word for item in value.values() for word in words(item)]
    if isinstance(value, list):
        return [word for item in value for word in words(item)]
    return [value] if isinstance(value, str) else []
