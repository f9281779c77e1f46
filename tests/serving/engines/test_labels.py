"""Labels of classes that the model's file does not hold, from a signature.json that holds nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from model_server.engines import Engine
from model_server.openapi import describe
from model_server.problems import ModelRefusedError
from model_server.protocols.open_inference import model_metadata
from model_server.routes import ROUTES
from model_server.settings import Settings
from model_server.worker import load_engine
from support.model_server import ARTIFACTS

LABELS = ["stays", "leaves"]


def engine_of(artifact: str, directory: Path, signature: object) -> Engine:
    for path in (ARTIFACTS / artifact).iterdir():
        if path.name.startswith("model."):
            shutil.copy(path, directory / path.name)
    (directory / "signature.json").write_text(json.dumps(signature), encoding="utf-8")
    return load_engine(directory, Settings(model_name="m"))[0]


@pytest.mark.parametrize("artifact", ["churn-xgboost", "breast-cancer-lightgbm"])
def test_a_signature_of_labels_alone_keeps_the_models_own_tensors(artifact: str, tmp_path: Path) -> None:
    engine = engine_of(artifact, tmp_path, {"classes": LABELS})
    assert engine.signature.classes == tuple(LABELS)
    rows = np.load(ARTIFACTS / artifact / "holdout.npy")
    [tensor] = engine.signature.inputs
    [answer] = engine.predict({tensor.name: rows.astype(tensor.dtype)}, {}).values()
    expected = json.loads((ARTIFACTS / artifact / "predictions.json").read_text(encoding="utf-8"))
    np.testing.assert_allclose(answer, expected["predictions"], rtol=1e-5)


def test_callers_find_the_labels_in_the_metadata_and_in_the_apis_description(tmp_path: Path) -> None:
    engine = engine_of("churn-xgboost", tmp_path, {"classes": LABELS})
    [output] = model_metadata(engine, "m")["outputs"]
    assert output["parameters"] == {"classes": LABELS}
    schemas = describe(engine, "m", "", list(ROUTES))["components"]["schemas"]
    assert schemas["Predictions"]["properties"]["predictions"]["x-classes"] == LABELS


@pytest.mark.parametrize(
    ("signature", "complaint"),
    [
        ({"classes": ["a", "b", "c"]}, "names 3 classes, but no output has 3 values a row"),
        ({"classes": "ab"}, "classes is 'ab'; allowed: a list of labels"),
        ({}, "it is not an object with inputs, outputs or classes"),
        ({"classes": LABELS, "outputs": []}, "no 'inputs'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(signature: object, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError) as refused:
        engine_of("churn-xgboost", tmp_path, signature)
    assert complaint in str(refused.value)
