"""model_artifacts/: the script makes the models that are kept there; each one answers as its trainer did."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from model_server.engines import choose
from model_server.settings import Settings

ARTIFACTS = Path(__file__).resolve().parents[2] / "model_artifacts"
NAMES = sorted(path.parent.name for path in ARTIFACTS.glob("*/holdout.npy"))


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All models, trained anew in a process of their own."""
    out = tmp_path_factory.mktemp("retrained")
    subprocess.run([sys.executable, ARTIFACTS / "train.py", "--out", out], check=True, capture_output=True)
    return out


def predictions(folder: Path) -> np.ndarray:
    return np.array(json.loads((folder / "predictions.json").read_text())["predictions"])


def test_there_are_models_of_four_kinds() -> None:
    assert {"churn-xgboost", "diabetes-sklearn", "wine-kmeans", "digits-onnx"} <= set(NAMES)


# Training a network carries the rounding of one step into all later ones, and another processor's matrix
# products round differently: 2e-4 was seen between two.
TOLERANCE = {"digits-onnx": 5e-3}


@pytest.mark.parametrize("name", NAMES)
def test_training_again_gives_the_same_predictions(name: str, retrained: Path) -> None:
    again, kept = predictions(retrained / name), predictions(ARTIFACTS / name)
    np.testing.assert_allclose(again, kept, rtol=0, atol=TOLERANCE.get(name, 1e-5))
    np.testing.assert_array_equal(np.argmax(again, axis=-1), np.argmax(kept, axis=-1))


@pytest.mark.parametrize("name", NAMES)
def test_training_again_gives_the_same_rows_and_signature(name: str, retrained: Path) -> None:
    for file in ("holdout.csv", "signature.json"):
        assert (retrained / name / file).read_text() == (ARTIFACTS / name / file).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_the_csv_and_the_array_hold_the_same_rows(name: str) -> None:
    rows = np.load(ARTIFACTS / name / "holdout.npy")
    table = pd.read_csv(ARTIFACTS / name / "holdout.csv")
    signature = json.loads((ARTIFACTS / name / "signature.json").read_text())
    assert list(table.columns) == signature["inputs"][0]["columns"]
    np.testing.assert_array_equal(table.to_numpy(rows.dtype), rows)
    assert len(rows) == len(predictions(ARTIFACTS / name)) == 40


@pytest.mark.parametrize("name", NAMES)
def test_the_kept_model_answers_as_its_trainer_did(name: str) -> None:
    folder = ARTIFACTS / name
    engine = choose(folder).load(folder, Settings(model_name=name, model_dir=folder))
    tensor = engine.signature.inputs[0]
    rows = np.load(folder / "holdout.npy")
    assert rows.dtype == tensor.dtype
    answer = np.asarray(engine.present(engine.predict({tensor.name: rows}, {})))
    np.testing.assert_allclose(answer, predictions(folder), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_has_learnt_something(name: str) -> None:
    scores = json.loads((ARTIFACTS / name / "predictions.json").read_text())["scores"]
    least = {"accuracy": 0.9, "r2": 0.3, "adjusted_rand": 0.8}
    assert scores
    assert all(value >= least[score] for score, value in scores.items())
