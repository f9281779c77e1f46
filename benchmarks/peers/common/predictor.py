"""The model, for every peer alike: `load(DIRECTORY)` gives a function from rows to predictions.

Rows are lists of numbers, or texts; a prediction is a list of class probabilities, or a label with its score.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Rows = Sequence[Any] | np.ndarray
Predict = Callable[[Rows], list[Any]]


def load(directory: str) -> Predict:
    folder = Path(directory)
    if (folder / "tokenizer.json").exists():
        return _text_classifier(folder)
    if (folder / "model.onnx").exists():
        return _onnx(folder)
    return _xgboost(folder)


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a small model: a second thread costs more than it gives
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _onnx(folder: Path) -> Predict:
    session = _session(folder / "model.onnx")
    name, output = session.get_inputs()[0].name, session.get_outputs()[-1].name

    def predict(rows: Rows) -> list[Any]:
        return session.run([output], {name: np.asarray(rows, dtype=np.float32)})[0].tolist()

    return predict


def _xgboost(folder: Path) -> Predict:
    import xgboost

    booster = xgboost.Booster(model_file=str(folder / "model.json"))
    booster.set_param({"nthread": 1})

    def predict(rows: Rows) -> list[Any]:
        positive = booster.inplace_predict(np.asarray(rows, dtype=np.float32))
        return np.column_stack((1 - positive, positive)).tolist()

    return predict


def _text_classifier(folder: Path) -> Predict:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    labels = json.loads((folder / "config.json").read_text())["id2label"]
    session = _session(next(folder.rglob("model.onnx")))
    wanted = {item.name for item in session.get_inputs()}

    def predict(rows: Rows) -> list[Any]:
        encodings = tokenizer.encode_batch(list(rows))
        ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
        feed = {
            "input_ids": ids,
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
            "token_type_ids": np.zeros_like(ids),
        }
        logits = session.run(None, {name: feed[name] for name in wanted})[0]
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        best = scores.argmax(axis=1)
        return [
            {"label": labels[str(index)], "score": float(row[index])}
            for index, row in zip(best.tolist(), scores, strict=True)
        ]

    return predict


def rows_of(payload: dict[str, Any]) -> list[Any]:
    """The rows of a JSON body {"instances": [...]} or, for texts, {"inputs": [...]}."""
    return payload["instances"] if "instances" in payload else payload["inputs"]


def first_answer(directory: str) -> bytes:
    """The JSON body that answers the model's first held-out row, as the trainer predicted it."""
    predictions = json.loads((Path(directory) / "predictions.json").read_text())["predictions"]
    return json.dumps({"predictions": predictions[:1]}, separators=(",", ":")).encode()
