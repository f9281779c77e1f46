"""The small real transformers that tests use; model_artifacts/train_transformers.py makes them.

They are kept with both forms of weights, so that only what concerns PyTorch itself needs it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ARTIFACTS = Path(__file__).resolve().parents[2] / "model_artifacts"
CLASSIFIER = ARTIFACTS / "sentiment-bert"
ENCODER = ARTIFACTS / "sentence-encoder"
GENERATOR = ARTIFACTS / "descriptions-gpt2"
TRANSFORMERS = (CLASSIFIER, ENCODER, GENERATOR)

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs PyTorch: make .venv/.torch"
)


def repository(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, bytes]:
    """A model's files as a hub holds them, by path; `without` some kinds, by suffix."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in without
    }
