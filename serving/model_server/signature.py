"""What a model takes and gives back: named tensors with Open Inference datatypes.

A signature comes from the model itself (its engine derives it) and may be refined by a
`signature.json` beside the artifact, which adds column names, class names and image preprocessing:

    {"inputs":  [{"name": "input", "datatype": "FP32", "shape": [-1, 2], "columns": ["age", "income"]}],
     "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}],
     "classes": ["stays", "leaves"]}

`{"classes": [...]}` alone adds labels to the tensors that the engine derives.
In a shape, -1 is a dimension that a request chooses; the first one is the batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from model_server.problems import ModelRefusedError

# Open Inference datatype -> numpy dtype. BYTES tensors travel inside the server as object arrays of `str`.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
SIGNATURE = "signature.json"
EXAMPLES = 3  # of a column's known values, that a signature shows
DATATYPES: dict[np.dtype[Any], str] = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """How a PNG or JPEG becomes a tensor: pixels in [0, 255] times `scale`, minus `mean`, over `std`."""

    mode: Literal["L", "RGB"]
    height: int
    width: int
    layout: Literal["CHW", "HWC", "flat"]
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named tensor. `columns` names the last dimension of an input, where the model knows it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    image: ImageFormat | None = None
    examples: tuple[str, ...] = ()  # values that the model knows, for a column of categories
    nan: bool = True  # a floating-point input takes NaN (and JSON's null) as a missing value
    nullable: bool = False  # a text input takes JSON's null as a missing value

    @property
    def dtype(self) -> np.dtype[Any]:
        return DTYPES[self.datatype]

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}
        if self.columns:
            body["columns"] = list(self.columns)
        if self.examples:
            body["examples"] = list(self.examples)
        return body


@dataclass(frozen=True, slots=True)
class Signature:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    classes: tuple[str, ...] = ()

    def with_classes(self, labels: Sequence[str]) -> Signature:
        """The same with labels. ModelRefusedError where no output has as many values a row."""
        sizes = [tensor.shape[-1] for tensor in self.outputs if len(tensor.shape) > 1]
        if labels and not any(size in (-1, len(labels)) for size in sizes):
            shapes = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in self.outputs)
            raise ModelRefusedError(
                f"signature.json names {len(labels)} classes, but no output has {len(labels)} values a row: "
                f"{shapes}"
            )
        return replace(self, classes=tuple(labels))

    def classes_of(self, output: Tensor) -> tuple[str, ...]:
        """The labels of an output's last dimension, where it has as many values."""
        labelled = len(output.shape) > 1 and output.shape[-1] == len(self.classes)
        return self.classes if labelled else ()

    def input(self, name: str) -> Tensor | None:
        return next((tensor for tensor in self.inputs if tensor.name == name), None)

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "inputs": [tensor.to_json() for tensor in self.inputs],
            "outputs": [tensor.to_json() for tensor in self.outputs],
        }
        if self.classes:
            body["classes"] = list(self.classes)
        return body


def read_signature(directory: Path) -> Signature | None:
    """The tensors of the artifact's own signature.json; None where it has none, or names classes alone.

    Raises ModelRefusedError when it is wrong.
    """
    body = _read(directory)
    if not body or set(body) == {"classes"}:
        return None
    try:
        return Signature(
            inputs=tuple(_tensor(item) for item in body["inputs"]),
            outputs=tuple(_tensor(item) for item in body["outputs"]),
            classes=_labels(body),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(error) from error


def read_classes(directory: Path) -> tuple[str, ...]:
    """The labels that signature.json gives to the classes; () where it gives none."""
    try:
        return _labels(_read(directory))
    except (ValueError, TypeError) as error:
        raise _unreadable(error) from error


def _read(directory: Path) -> dict[str, Any]:
    path = directory / SIGNATURE
    if not path.is_file():
        return {}
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if type(body) is not dict or not body:
            raise ValueError("it is not an object with inputs, outputs or classes")
        return body
    except (OSError, ValueError) as error:
        raise _unreadable(error) from error


def _labels(body: Mapping[str, Any]) -> tuple[str, ...]:
    labels = body.get("classes", [])
    if type(labels) is not list:
        raise ValueError(f"classes is {labels!r}; allowed: a list of labels")
    return tuple(str(label) for label in labels)


def _unreadable(error: Exception) -> ModelRefusedError:
    fault = f"no {error}" if isinstance(error, KeyError) else str(error)
    return ModelRefusedError(f"signature.json cannot be read: {fault}")


def _tensor(item: Mapping[str, Any]) -> Tensor:
    datatype = str(item["datatype"])
    if datatype not in DTYPES:
        raise ValueError(f"datatype {datatype!r} of {item['name']!r} is not one of {', '.join(DTYPES)}")
    shape = tuple(int(size) for size in item["shape"])
    columns = tuple(str(column) for column in item.get("columns", ()))
    if columns and (not shape or shape[-1] not in (-1, len(columns))):
        raise ValueError(f"{item['name']!r} names {len(columns)} columns, but its shape is {list(shape)}")
    examples = tuple(str(value) for value in item.get("examples", ()))
    nullable = item.get("nullable", False)
    if nullable not in (True, False) or (nullable and datatype != "BYTES"):
        raise ValueError(f"nullable of {item['name']!r} is {nullable!r}; allowed: true or false, for BYTES")
    return Tensor(
        str(item["name"]),
        datatype,
        shape,
        columns,
        _image(item.get("image")),
        examples,
        nullable=bool(nullable),
    )


def _image(item: Mapping[str, Any] | None) -> ImageFormat | None:
    if item is None:
        return None
    mode, layout = item.get("mode", "RGB"), item.get("layout", "CHW")
    if mode not in ("L", "RGB") or layout not in ("CHW", "HWC", "flat"):
        raise ValueError(f"image mode {mode!r} or layout {layout!r} is not one of L, RGB and CHW, HWC, flat")
    return ImageFormat(
        mode=mode,
        height=int(item["height"]),
        width=int(item["width"]),
        layout=layout,
        scale=float(item.get("scale", 1 / 255)),
        mean=tuple(float(value) for value in item.get("mean", ())),
        std=tuple(float(value) for value in item.get("std", ())),
    )
