"""LightGBM boosters in the library's own text form (model.txt)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_server.engines import Engine, Tensors, both_classes, no_parameters
from model_server.engines._categories import Categorical, Encoder
from model_server.engines._lightgbm_trees import check_model
from model_server.problems import ModelRefusedError
from model_server.settings import Settings
from model_server.signature import Signature, Tensor, read_signature

ENGINE = "lightgbm"


def accepts(directory: Path) -> bool:
    return _artifact(directory) is not None


def load(directory: Path, settings: Settings) -> Engine:
    import lightgbm

    path = _artifact(directory)
    if path is None:
        raise ModelRefusedError(f"{directory} holds no LightGBM model (model.txt)")
    text = path.read_bytes()
    check_model(text, path.name)
    try:
        booster = lightgbm.Booster(model_file=str(path))
    except lightgbm.basic.LightGBMError as error:
        raise ModelRefusedError(f"{path.name} is not a readable LightGBM model: {error}") from error
    found = re.search(rb"^objective=(\S+)", text, re.MULTILINE)
    objective = found.group(1).decode("utf-8", "replace") if found else ""
    classes = booster.num_model_per_iteration()
    binary = objective in ("binary", "cross_entropy", "xentropy") and classes == 1
    if binary or objective.startswith("multiclass"):
        task, output = "classification", Tensor("probabilities", "FP64", (-1, 2 if binary else classes))
    else:
        task = "ranking" if objective in ("lambdarank", "rank_xendcg") else "regression"
        output = Tensor("predictions", "FP64", (-1,) if classes == 1 else (-1, classes))
    names = tuple(booster.feature_name())
    named = any(not re.fullmatch(r"Column_\d+", name) for name in names)
    given = read_signature(directory)
    encoder = _encoder(booster, path, given)
    matrix = Tensor("input", "FP64", (-1, len(names)), names if named else ())
    return LightGBM(
        framework_version=lightgbm.__version__,
        task=task,
        signature=given or Signature(encoder.tensors if encoder else (matrix,), (output,)),
        booster=booster,
        encoder=encoder,
        threads=settings.threads or 1,
        binary=binary,
    )


@dataclass
class LightGBM(Engine):
    framework_version: str
    task: str
    signature: Signature
    booster: Any
    encoder: Encoder | None  # where columns hold categories
    threads: int
    binary: bool
    name: str = ENGINE
    framework: str = "lightgbm"
    batches: bool = True
    parallel: bool = False  # one thread a call: rows are few, and threads cost more than they bring

    def __post_init__(self) -> None:
        self.input, self.output = self.signature.inputs[0].name, self.signature.outputs[0].name

    def predict(self, inputs: Tensors, parameters: Mapping[str, object]) -> Tensors:
        no_parameters(parameters, ENGINE)
        rows = self.encoder.matrix(inputs) if self.encoder else inputs[self.input]
        scores = self.booster.predict(rows, num_threads=self.threads)
        return {self.output: both_classes(scores) if self.binary else scores}


def _encoder(booster: Any, path: Path, given: Signature | None) -> Encoder | None:
    """The encoder of the pandas categories that the model's file holds; None where it holds none.

    Under a signature.json with one input, callers send the codes.
    """
    kept: list[list[str | float]] = booster.pandas_categorical or []
    if not kept or (given is not None and len(given.inputs) == 1):
        return None
    listed = re.search(r"^\[categorical_feature: ([\d,]+)\]", path.read_text("utf-8"), re.MULTILINE)
    places = [int(place) for place in listed.group(1).split(",")] if listed else []
    if len(places) != len(kept):  # columns named as categorical beside those of pandas' own dtype
        return None
    categories = {place: tuple(values) for place, values in zip(places, kept, strict=True)}
    columns = [Categorical(name, categories.get(i)) for i, name in enumerate(booster.feature_name())]
    return Encoder(columns, "FP64", "missing")


def _artifact(directory: Path) -> Path | None:
    for path in (directory / "model.txt", *sorted(directory.glob("*.txt"))):
        if path.is_file():
            with path.open("rb") as file:
                if file.read(5).strip() == b"tree":  # the first line of the library's text form
                    return path
    return None
