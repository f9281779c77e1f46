"""Engines: what runs a model. Each is a module here with a data file beside it; nothing lists them by hand.

A module that is an engine has

    ENGINE: str                                          its name, the module's own
    def accepts(directory: Path) -> bool                 is this artifact its own? (looks at file names only)
    def load(directory: Path, settings: Settings) -> Engine     raises ModelRefusedError, with one clear line

may have, where a model's file states the version of the library that wrote it,

    def saved_with(directory: Path) -> Saved | None      reads the file only, never loads it

and imports its library inside `load`, so that looking for the right engine costs nothing. A module whose name
begins with an underscore is a part of an engine.

`<engine>.json` holds what has to be known without importing the module; the toolkit reads it, too
(modelstacks/core/engines.py). Each member may be left out:

    contracts     the groups of routes.json that the engine can answer; without it, predictive
    packages      what its image needs beyond the server's own, as pip reads it (requirements/compile.sh)
    older_series  older releases that an image can be built with: series -> pins
    torch         {"version", "unless_file"}: PyTorch is installed unless the model has a file of that name
    files         patterns of the names of model files, for formats that the toolkit does not know by content
    precedes      true: where other engines accept the artifact, too, this one is meant
"""

from __future__ import annotations

import pkgutil
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import orjson

from model_server.chunks import Chunks
from model_server.engines._versions import Saved
from model_server.problems import Fault, ModelRefusedError, invalid
from model_server.settings import Settings
from model_server.signature import Signature, Tensor

Tensors = dict[str, "np.ndarray[Any, Any]"]


def part(outputs: Tensors, start: int, end: int) -> Tensors:
    """The rows of one request among a batch's."""
    return {name: array[start:end] for name, array in outputs.items()}


def both_classes(positive: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Probabilities [rows, 2] from those of the second class [rows]; `np.stack` takes three times as long."""
    probabilities = np.empty((len(positive), 2), positive.dtype)
    np.subtract(1, positive, out=probabilities[:, 0])
    probabilities[:, 1] = positive
    return probabilities


class Engine(Protocol):
    """A loaded model. One thread calls `predict` at a time.

    Tensors are keyed by the signature's names and have its dtypes; BYTES is an object array of `str`.
    """

    name: str  # the engine's name: "onnx"
    framework: str  # the library that runs it: "onnxruntime"
    framework_version: str
    task: str  # classification, regression, clustering, text-classification, ..., custom
    signature: Signature
    # Rows of several requests may be joined along the first dimension of every input, and every output has
    # one entry a row along its first dimension.
    batches: bool
    # What its columns hold was found in the model; a signature.json may know better.
    derives_columns: bool = False
    # One call uses several cores, so that more than one worker process would only get in each other's way.
    parallel: bool

    @abstractmethod
    def predict(self, inputs: Tensors, parameters: Mapping[str, object]) -> Tensors:
        """Inputs [rows, ...] to outputs [rows, ...].

        `parameters` are the request's own (`max_new_tokens`, ...), checked by the engine, which raises
        ProblemError for one that it does not take. Any other exception is answered as a 500.
        """
        ...

    def present(self, outputs: Tensors) -> np.ndarray[Any, Any] | list[Any]:
        """What POST /invocations answers: an entry a row; for several outputs, an object a row."""
        if len(outputs) == 1:
            return next(iter(outputs.values()))
        return [
            dict(zip(outputs, row, strict=True))
            for row in zip(*(a.tolist() for a in outputs.values()), strict=True)
        ]

    def example(self) -> Tensors:
        """One row for the warm-up prediction: a value that the model knows, else zeros or a short text."""
        return {tensor.name: example_of(tensor) for tensor in self.signature.inputs}


def example_of(tensor: Tensor) -> np.ndarray[Any, Any]:
    """One row of a tensor, of a value that the model knows where the signature names one."""
    shape = [max(size, 1) for size in tensor.shape]
    if tensor.datatype == "BYTES":
        return np.full(shape, tensor.examples[0] if tensor.examples else "warm up", dtype=object)
    return np.full(shape, tensor.examples[0] if tensor.examples else 0).astype(tensor.dtype)


@runtime_checkable
class RawEngine(Protocol):
    """An engine that reads and writes bodies itself (a user's own inference.py): it has /invocations only."""

    def invoke(self, body: bytes, content_type: str, accept: str) -> tuple[bytes | Chunks, str]:
        """A request's body and the two media types to the answer's body and media type.

        The body may be an iterator of chunks (chunks.Chunk), each sent when it is made. A synchronous
        iterator is called on the engine's thread, one step at a time; an asynchronous one on the event loop,
        which it must not block.
        """
        ...


@runtime_checkable
class StreamingEngine(Protocol):
    """An engine that can give its outputs part by part, while it makes them."""

    def stream(
        self, inputs: Tensors, parameters: Mapping[str, object]
    ) -> Iterator[Tensors] | AsyncIterator[Tensors]:
        """Inputs as for `predict` to the outputs' parts, in order: some rows, or some of each row's text.

        A synchronous iterator is called on the engine's thread, one step at a time; an asynchronous one on
        the event loop, which it must not block. It is closed where nobody waits for the rest.
        """
        ...


class EngineModule(Protocol):
    ENGINE: str

    def accepts(self, directory: Path) -> bool: ...

    def load(self, directory: Path, settings: Settings) -> Engine: ...


def no_parameters(parameters: Mapping[str, object], engine: str) -> None:
    """For an engine that takes none: a parameter that would be ignored is refused instead."""
    if parameters:
        raise invalid(
            *(Fault(f"the {engine} engine takes no parameters", f"parameters.{key}") for key in parameters)
        )


def saved_with(module: EngineModule, directory: Path) -> Saved | None:
    """The version that the model was saved with, and the installed one; None where it is unknown."""
    find: Callable[[Path], Saved | None] | None = getattr(module, "saved_with", None)
    return find(directory) if find else None


def names() -> list[str]:
    """The engines there are: each is the name of its module."""
    return [found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_")]


def facts(name: str) -> dict[str, Any]:
    """The engine's data file; empty where it has none."""
    file = Path(__file__).with_name(f"{name}.json")
    return cast("dict[str, Any]", orjson.loads(file.read_bytes())) if file.is_file() else {}


def require_contracts(name: str, groups: Collection[str]) -> None:
    """Raises ModelRefusedError for a group of routes that the engine cannot answer."""
    answered = facts(name).get("contracts", ["predictive"])
    missing = [group for group in groups if group not in answered]
    if missing:
        raise ModelRefusedError(
            f"MODEL_SERVER_CONTRACTS has {', '.join(missing)}, which the {name} engine cannot answer; "
            f"allowed: {', '.join(answered) or 'none'}"
        )


def discover() -> dict[str, EngineModule]:
    """Every engine by name."""
    return {name: cast(EngineModule, import_module(f"{__name__}.{name}")) for name in names()}


def choose(directory: Path, wanted: str = "") -> EngineModule:
    """The engine called `wanted`, or the only one that accepts the artifact; else ModelRefusedError."""
    if wanted:
        if wanted not in names():
            raise ModelRefusedError(f"MODEL_SERVER_ENGINE is {wanted!r}; allowed: {', '.join(names())}")
        return cast(EngineModule, import_module(f"{__name__}.{wanted}"))
    engines = discover()
    if not directory.is_dir():
        raise ModelRefusedError(f"there is no model: {directory} is not a folder")
    matches = [name for name, module in engines.items() if module.accepts(directory)]
    if len(matches) > 1:
        matches = [name for name in matches if facts(name).get("precedes")] or matches
    if len(matches) == 1:
        return engines[matches[0]]
    held = ", ".join(sorted(path.name for path in directory.iterdir())[:12]) or "nothing"
    if matches:
        raise ModelRefusedError(
            f"{directory} can be read by {' and '.join(matches)} (it holds: {held}); "
            "set MODEL_SERVER_ENGINE to one of them"
        )
    raise ModelRefusedError(
        f"no engine ({', '.join(engines)}) knows the artifact in {directory}; it holds: {held}"
    )
