"""The transformers in model_artifacts/ can be trained anew, and say the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.tiny_models import ARTIFACTS, ENCODER, TRANSFORMERS, needs_torch


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder, trained anew in a process of its own; the others take the same path through the script."""
    out = tmp_path_factory.mktemp("retrained")
    script = ARTIFACTS / "train_transformers.py"
    subprocess.run(
        [sys.executable, script, "--out", out, "sentence-encoder"], check=True, capture_output=True
    )
    return out / "sentence-encoder"


@needs_torch
def test_training_again_gives_vectors_that_point_the_same_way(retrained: Path) -> None:
    kept, new = (
        np.array(json.loads((folder / "predictions.json").read_text())["predictions"])
        for folder in (ENCODER, retrained)
    )
    assert (kept * new).sum(axis=1).min() > 0.99  # unit vectors: the cosine


@needs_torch
def test_training_again_gives_the_same_vocabulary_and_layout(retrained: Path) -> None:
    assert (retrained / "tokenizer.json").read_text() == (ENCODER / "tokenizer.json").read_text()
    made = {path.relative_to(retrained) for path in retrained.rglob("*")}
    assert made == {path.relative_to(ENCODER) for path in ENCODER.rglob("*")} - {Path("README.md")}


@pytest.mark.parametrize("folder", TRANSFORMERS, ids=lambda folder: folder.name)
def test_a_model_has_a_card_with_licence_and_task(folder: Path) -> None:
    front_matter = (folder / "README.md").read_text().split("---")[1]
    assert "license: apache-2.0" in front_matter
    assert "pipeline_tag: " in front_matter


@pytest.mark.parametrize("folder", TRANSFORMERS, ids=lambda folder: folder.name)
def test_every_text_has_an_answer(folder: Path) -> None:
    asked = json.loads((folder / "holdout.json").read_text())["inputs"]
    answered = json.loads((folder / "predictions.json").read_text())["predictions"]
    assert len(asked) == len(answered) > 0
