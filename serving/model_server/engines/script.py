"""A user's own inference.py, as for SageMaker: model_fn, input_fn, predict_fn, output_fn, or transform_fn.

The file is code/inference.py or inference.py in the model's folder, as in SageMaker's containers. Functions
that it leaves out do what SageMaker's inference toolkit does by default. It has the server's own rights.

Beyond the toolkit, predict_fn, output_fn and transform_fn may give an iterator, a generator as a rule: its
items are sent as chunks while they are made.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from model_server.chunks import EVENT_STREAM, Chunk, Chunks, ServerSentEvent, each
from model_server.codecs import ENCODERS, choose_answer, dumps, load_json, parse_media
from model_server.engines import Engine, Tensors
from model_server.files import npy_array
from model_server.logs import event, log
from model_server.metrics import STATUSES
from model_server.problems import ModelRefusedError, ProblemError, malformed
from model_server.settings import Settings
from model_server.signature import Signature, Tensor, read_signature

ENGINE = "script"
JSON_LINES = "application/jsonlines"

# SageMaker's inference toolkit decodes bodies of these types for the script, compared as the header has them
# (sagemaker_inference/content_types.py and transformer.py); every other body stays bytes.
UTF8_TYPES = ("application/json", "text/csv")
# What the toolkit asks of the script where the caller does not care (its environment.py, default_accept).
DEFAULT_ACCEPT = "application/json"
DEFAULT_ACCEPT_VARIABLE = "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"

# What a script raises when it cannot read what it was sent; anything else is a fault of the script.
UNREADABLE = (ValueError, KeyError, TypeError, IndexError, UnicodeError)


def accepts(directory: Path) -> bool:
    return _script(directory) is not None


def load(directory: Path, settings: Settings) -> Engine:
    path = _script(directory)
    if path is None:
        raise ModelRefusedError(f"{directory} holds neither code/inference.py nor inference.py")
    if not settings.trust_code:
        raise ModelRefusedError(
            f"{path.name} is the model's own code; set MODEL_SERVER_TRUST_CODE=true if you trust who made it"
        )
    if (path.parent / "requirements.txt").is_file():
        # SageMaker's containers install it at start; a container without a way out cannot.
        event(
            logging.WARNING, "requirements.txt beside inference.py is not installed; build it into the image"
        )
    module = _import(path)
    functions = {name: _call(module, name) for name in FUNCTIONS if hasattr(module, name)}
    if "model_fn" not in functions:
        raise ModelRefusedError(f"{path.name} has no model_fn(model_dir)")
    try:
        model = functions["model_fn"](str(directory))
    except Exception as error:
        log.error("model_fn failed", exc_info=error)
        raise ModelRefusedError(f"model_fn failed: {type(error).__name__}: {error}") from error
    anything = Tensor("body", "BYTES", (-1,))
    return Script(
        framework_version=".".join(str(part) for part in sys.version_info[:3]),
        signature=read_signature(directory) or Signature((anything,), (anything,)),
        model=model,
        functions=functions,
        default_accept=os.environ.get(DEFAULT_ACCEPT_VARIABLE) or DEFAULT_ACCEPT,
    )


FUNCTIONS = ("model_fn", "input_fn", "predict_fn", "output_fn", "transform_fn")


@dataclass
class Script(Engine):
    framework_version: str
    signature: Signature
    model: Any
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    default_accept: str = DEFAULT_ACCEPT
    name: str = ENGINE
    framework: str = "python"
    task: str = "custom"
    batches: bool = False
    parallel: bool = False

    def predict(self, inputs: Tensors, parameters: Mapping[str, object]) -> Tensors:  # noqa: ARG002
        raise ProblemError(501, "this model has its own inference.py, which answers POST /invocations only")

    def invoke(self, body: bytes, content_type: str, accept: str) -> tuple[bytes | Chunks, str]:
        if accept in ("", "*/*"):
            accept = self.default_accept
        with _problems():
            return self._invoke(body, content_type, accept)

    def _invoke(self, body: bytes, content_type: str, accept: str) -> tuple[bytes | Chunks, str]:
        functions = self.functions
        if "transform_fn" in functions:
            given = _given(body, content_type)
            return _answer(functions["transform_fn"](self.model, given, content_type, accept), accept)
        data = self._read(body, content_type)
        prediction = (
            functions["predict_fn"](data, self.model) if "predict_fn" in functions else self._predict(data)
        )
        if "output_fn" in functions:
            try:
                return _answer(functions["output_fn"](prediction, accept), accept)
            except Exception as error:
                if _is_a(error, "UnsupportedFormatError"):
                    raise ProblemError(406, f"output_fn does not write {accept}") from error
                raise
        return _write(prediction, accept)

    def _read(self, body: bytes, content_type: str) -> Any:
        if "input_fn" not in self.functions:
            return _decode(body, content_type)
        given = _given(body, content_type)
        try:
            return self.functions["input_fn"](given, content_type)
        except ProblemError:
            raise
        except UNREADABLE as error:
            raise ProblemError(400, f"input_fn refused the body: {type(error).__name__}: {error}") from error
        except Exception as error:
            if _is_a(error, "UnsupportedFormatError"):
                raise ProblemError(415, f"input_fn does not read {content_type}") from error
            raise

    def _predict(self, data: Any) -> Any:
        if hasattr(self.model, "predict"):
            return self.model.predict(data)
        if callable(self.model):
            return self.model(data)
        raise ProblemError(500, "the model has no predict, and inference.py has no predict_fn")


def _is_a(error: Exception, name: str) -> bool:
    """Whether it is of sagemaker_inference's class of that name, which only the script need import."""
    return any(kind.__name__ == name for kind in type(error).__mro__)


@contextmanager
def _problems() -> Iterator[None]:
    """Raises what a script means by the toolkit's errors."""
    try:
        yield
    except Exception as error:
        problem = _meant(error)
        if problem is None:
            raise
        raise problem from error


def _meant(error: Exception) -> ProblemError | None:
    """The answer that a script chose by raising one of the toolkit's errors with a status."""
    if not _is_a(error, "BaseInferenceToolkitError"):
        return None
    status, message = getattr(error, "status_code", 500), getattr(error, "message", "")
    if status not in STATUSES:
        status = 400 if isinstance(status, int) and 400 <= status < 500 else 500
    return ProblemError(status, str(message))


def _script(directory: Path) -> Path | None:
    return next(
        (p for p in (directory / "code" / "inference.py", directory / "inference.py") if p.is_file()), None
    )


def _import(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.parent))  # its neighbours are importable, as in SageMaker's containers
    spec = importlib.util.spec_from_file_location("inference", path)
    if spec is None or spec.loader is None:
        raise ModelRefusedError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules["inference"] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        log.error("inference.py cannot be imported", exc_info=error)
        raise ModelRefusedError(f"{path.name} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _call(module: ModuleType, name: str) -> Callable[..., Any]:
    """The function; one that wants the `context` that newer toolkits add at the end is given None."""
    function: Callable[..., Any] = getattr(module, name)
    wanted = {"model_fn": 1, "input_fn": 2, "predict_fn": 2, "output_fn": 2, "transform_fn": 4}[name]
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return function
    required = [
        p
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) > wanted:
        return lambda *arguments: function(*arguments, *[None] * (len(required) - wanted))
    return function


def _given(body: bytes, content_type: str) -> str | bytes:
    """The body as the toolkit hands it to input_fn and transform_fn."""
    if content_type not in UTF8_TYPES:
        return body
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise malformed(f"the body is not UTF-8: byte {error.start}") from None


def _decode(body: bytes, content_type: str) -> Any:
    """The toolkit's default input_fn: a numpy array."""
    media = parse_media(content_type).type
    if media == "application/json":
        value = load_json(body)
        try:
            return np.array(value)
        except ValueError as error:  # rows of different lengths, or nested deeper than numpy goes
            raise malformed(f"the body is not one array: {error}") from None
    if media == "text/csv":
        try:
            return np.genfromtxt(body.decode("utf-8").splitlines(), delimiter=",")
        except (UnicodeDecodeError, ValueError) as error:
            raise malformed(f"the body is not CSV of numbers: {error}") from None
    if media == "application/x-npy":
        return npy_array(body)
    raise ProblemError(
        415,
        f"Content-Type is {media!r}, and inference.py has no input_fn; "
        "allowed: application/json, text/csv, application/x-npy",
    )


def _answer(result: Any, accept: str) -> tuple[bytes | Chunks, str]:
    """What output_fn gave: a body, or a body and its content type; the toolkit allows both.

    In place of a body it may give an iterator of its pieces, which are sent while they are made.
    """
    media = ""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str):
        result, media = result
    if isinstance(result, str):
        result = result.encode()
    wanted = media or (accept if accept and "*" not in accept and "," not in accept else "application/json")
    if isinstance(result, Iterator | AsyncIterator):
        return _pieces(result, wanted), wanted
    if not isinstance(result, bytes | bytearray | memoryview):
        return _write(result, media or accept)
    return bytes(result), wanted


def _pieces(chunks: Chunks, media: str) -> Chunks:
    """Chunks of a body. An item that is neither bytes nor text is written as JSON: one event, or one line."""
    events = parse_media(media).type == EVENT_STREAM

    def piece(item: Any) -> Chunk:
        if isinstance(item, str | bytes | bytearray | memoryview):
            return item
        text = dumps(item)
        return ServerSentEvent(text.decode()) if events else text + b"\n"

    return each(piece, chunks, guard=_problems)


def _write(prediction: Any, accept: str) -> tuple[bytes | Chunks, str]:
    """The toolkit's default output_fn. The items of an iterator are written one by one."""
    if isinstance(prediction, Iterator | AsyncIterator):
        media = EVENT_STREAM if parse_media(accept).type == EVENT_STREAM else JSON_LINES
        return _pieces(prediction, media), media
    media = choose_answer(accept, "application/json")
    if media == "application/json":
        return dumps(prediction if isinstance(prediction, dict | list) else np.asarray(prediction)), media
    return ENCODERS[media](np.asarray(prediction), {"predictions": np.asarray(prediction)}), media
