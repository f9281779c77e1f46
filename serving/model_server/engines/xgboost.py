"""XGBoost boosters (model.json, model.ubj), through `inplace_predict`, which builds no DMatrix."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from model_server.engines import Engine, Tensors, both_classes, no_parameters
from model_server.engines._categories import Categorical, Encoder
from model_server.engines._versions import Saved, xgboost_version
from model_server.problems import ModelRefusedError
from model_server.settings import Settings
from model_server.signature import Signature, Tensor, read_signature

ENGINE = "xgboost"


def accepts(directory: Path) -> bool:
    return _artifact(directory) is not None


def saved_with(directory: Path) -> Saved | None:
    import xgboost

    path = _artifact(directory)
    version = xgboost_version(path) if path else None
    return Saved("XGBoost", version, xgboost.__version__) if version else None


def load(directory: Path, settings: Settings) -> Engine:
    import xgboost

    path = _artifact(directory)
    if path is None:
        raise ModelRefusedError(f"{directory} holds no XGBoost model (model.json or model.ubj)")
    booster = xgboost.Booster()
    try:
        booster.load_model(path)
    except xgboost.core.XGBoostError as error:
        # "[05:42:39] /workspace/src/common/json.cc:409: Expecting ..." and below it the library's own stack.
        reason = re.sub(r"^\[[\d:]+\] \S+: ", "", str(error).strip()).splitlines()[0]
        raise ModelRefusedError(f"{path.name} is not a readable XGBoost model: {reason}") from error
    booster.set_param({"nthread": settings.threads or 1})
    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    classes = max(
        int(learner["learner_model_param"]["num_class"]), 2 if objective == "binary:logistic" else 0
    )
    targets = int(learner["learner_model_param"].get("num_target", "1"))
    if objective == "multi:softmax":  # the same model, asked for its probabilities and not for the winner
        booster.set_param({"objective": "multi:softprob"})
    best = booster.attr("best_iteration")
    if classes:
        task, output = "classification", Tensor("probabilities", "FP32", (-1, classes))
    else:
        shape = (-1,) if targets == 1 else (-1, targets)
        task = "ranking" if objective.startswith("rank:") else "regression"
        output = Tensor("predictions", "FP32", shape)
    given = read_signature(directory)
    columns = tuple(booster.feature_names or ())
    encoder = _encoder(booster, given)
    matrix = Tensor("input", "FP32", (-1, booster.num_features()), columns)
    return XGBoost(
        framework_version=xgboost.__version__,
        task=task,
        signature=given or Signature(encoder.tensors if encoder else (matrix,), (output,)),
        booster=booster,
        encoder=encoder,
        # Early stopping keeps the later trees; the trainer's own predict leaves them out.
        iterations=(0, int(best) + 1) if best is not None else (0, 0),
        binary=objective == "binary:logistic",
    )


@dataclass
class XGBoost(Engine):
    framework_version: str
    task: str
    signature: Signature
    booster: Any
    encoder: Encoder | None  # where columns hold categories
    iterations: tuple[int, int]
    binary: bool
    name: str = ENGINE
    framework: str = "xgboost"
    batches: bool = True
    parallel: bool = False  # one thread a call: rows are few, and threads cost more than they bring

    def __post_init__(self) -> None:
        self.input, self.output = self.signature.inputs[0].name, self.signature.outputs[0].name

    def predict(self, inputs: Tensors, parameters: Mapping[str, object]) -> Tensors:
        no_parameters(parameters, ENGINE)
        rows = self.encoder.matrix(inputs) if self.encoder else inputs[self.input]
        scores = self.booster.inplace_predict(rows, iteration_range=self.iterations, validate_features=False)
        return {self.output: both_classes(scores) if self.binary else scores}


def _encoder(booster: Any, given: Signature | None) -> Encoder | None:
    """The encoder of the categories that the model's file holds; None where it holds none.

    Of a model from before XGBoost 3.1, or under a signature.json with one input, callers send the codes.
    """
    if "c" not in (booster.feature_types or ()) or (given is not None and len(given.inputs) == 1):
        return None
    trees = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    held = trees.get("gbtree", trees)["model"].get("cats", {}).get("enc", [])
    categories = [_category_values(entry) for entry in held]
    if not any(categories):
        return None
    names = booster.feature_names or [f"x{i}" for i in range(len(categories))]
    columns = [Categorical(name, values) for name, values in zip(names, categories, strict=True)]
    return Encoder(columns, "FP32", "refused")


def _category_values(entry: Mapping[str, Any]) -> tuple[str | float, ...] | None:
    """One column's categories: texts as UTF-8 bytes in a row, cut at the offsets; numbers as they are.

    XGBoost 3.2 counts the offsets of pandas' categories in characters and loses bytes of those beyond ASCII.
    """
    if "offsets" not in entry:
        return tuple(float(value) for value in entry["values"]) or None
    held, offsets = bytes(value & 0xFF for value in entry["values"]), entry["offsets"]
    return tuple(held[a:b].decode("utf-8", "replace") for a, b in pairwise(offsets)) or None


def _artifact(directory: Path) -> Path | None:
    for path in (directory / "model.ubj", directory / "model.json", *sorted(directory.glob("*.ubj"))):
        if path.suffix == ".ubj" and path.is_file():
            return path
        if path.is_file():
            with path.open("rb") as file:
                if b'"learner"' in file.read(4096):
                    return path
    return None
