"""Reads protobuf files field by field, without their libraries: enough to say what a file is and refers to.

https://protobuf.dev/programming-guides/encoding/; the field numbers are onnx.proto's and saved_model.proto's.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["MalformedError", "external_data", "is_onnx", "is_saved_model"]

# A graph of 50,000 nodes has about a tenth of that.
MOST_FIELDS: Final = 5_000_000
# Graphs within nodes within graphs.
DEEPEST: Final = 64
Data = mmap.mmap | bytes
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# ModelProto: ir_version, model_version.
_ONNX_SCALARS: Final = {1, 5}
# From producer ... opset_import ... configuration.
_ONNX_MESSAGES: Final = {2, 3, 4, 6, 7, 8, 14, 20, 25, 26}
# Message -> the fields that can hold a tensor, and the message that each holds; a test compares it with onnx.
ONNX_MESSAGES: Final[Mapping[str, Mapping[int, str]]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        10: "TensorProto",
        6: "GraphProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "TensorProto": {13: "StringStringEntryProto"},
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
}
# MetaGraphDef: meta_info_def ... object_graph_def.
_META_GRAPH: Final = set(range(1, 8))


class MalformedError(ValueError):
    """The bytes are no protobuf message, or one that no real model has."""


def is_onnx(path: Path) -> bool:
    """Whether a file's top level reads as ONNX's ModelProto: an ir_version, a graph, nothing unknown."""
    with _mapped(path) as data, suppress(MalformedError):
        seen = set()
        for number, wire, _, _ in _fields(data, 0, len(data), _Budget(10_000)):
            if not (
                (number in _ONNX_SCALARS and wire == VARINT) or (number in _ONNX_MESSAGES and wire == BYTES)
            ):
                return False
            seen.add(number)
        return {1, 7} <= seen
    return False


def is_saved_model(path: Path) -> bool:
    """Whether a file reads as TensorFlow's SavedModel: schema version 1 and its graphs."""
    with _mapped(path) as data, suppress(MalformedError):
        budget, graphs, version = _Budget(10_000), 0, 0
        for number, wire, start, end in _fields(data, 0, len(data), budget):
            if number == 1 and wire == VARINT:
                version = data[start]
            elif number == 2 and wire == BYTES:
                inner = {(n, w) for n, w, _, _ in _fields(data, start, end, budget)}
                if not inner or not inner <= {(n, BYTES) for n in _META_GRAPH}:
                    return False
                graphs += 1
            else:
                return False
        return version == 1 and graphs > 0
    return False


def external_data(path: Path) -> frozenset[str]:
    """The files that an ONNX graph keeps tensors in, as it names them: paths relative to its own folder.

    Raises:
        MalformedError: it cannot be read to its end.
    """
    locations: set[str] = set()
    with _mapped(path) as data:
        budget = _Budget(MOST_FIELDS)
        pending = [("ModelProto", 0, len(data), 0)]
        while pending:
            message, first, last, depth = pending.pop()
            if depth > DEEPEST:
                raise MalformedError(f"graphs are nested more than {DEEPEST} deep")
            if message == "StringStringEntryProto":
                locations |= _location(data, first, last, budget)
                continue
            inner = ONNX_MESSAGES[message]
            for number, wire, start, end in _fields(data, first, last, budget):
                if number in inner and wire == BYTES:
                    deeper = depth + (inner[number] == "GraphProto")
                    pending.append((inner[number], start, end, deeper))
    return frozenset(locations)


def _location(data: Data, first: int, last: int, budget: _Budget) -> set[str]:
    """The value of a `location` entry. Where a field comes twice, every reader takes the last; here, each."""
    keys: set[bytes] = set()
    values: set[bytes] = set()
    for number, wire, start, end in _fields(data, first, last, budget):
        if wire == BYTES:
            (keys if number == 1 else values).add(data[start:end])
    if b"location" not in keys:
        return set()
    return {value.decode("utf-8", "surrogateescape") for value in values}


class _Budget:
    """How many fields may be read."""

    def __init__(self, left: int) -> None:
        self.left = left


def _fields(data: Data, start: int, end: int, budget: _Budget) -> Iterator[tuple[int, int, int, int]]:
    """Each field's number and wire type, and where its value begins and ends."""
    position = start
    while position < end:
        budget.left -= 1
        if budget.left < 0:
            raise MalformedError("it has more fields than a model's graph")
        key, position = _varint(data, position, end)
        number, wire = key >> 3, key & 7
        begin = position
        if wire == VARINT:
            _, position = _varint(data, position, end)
        elif wire == BYTES:
            length, begin = _varint(data, position, end)
            position = begin + length
        elif wire in (FIXED64, FIXED32):
            position += 8 if wire == FIXED64 else 4
        else:
            raise MalformedError(f"wire type {wire}")
        if position > end or number == 0:
            raise MalformedError("a field ends outside its message")
        yield number, wire, begin, position


def _varint(data: Data, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise MalformedError("a number does not end")


@contextmanager
def _mapped(path: Path) -> Iterator[Data]:
    """A file's bytes, read only as far as they are looked at."""
    with path.open("rb") as content:
        # An empty file cannot be mapped.
        if not content.read(1):
            yield b""
            return
        with mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
