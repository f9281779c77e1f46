"""Open Inference Protocol v2, with the binary tensor extension: what KServe's and Triton's clients speak."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from model_server import __version__
from model_server.batching import Batcher
from model_server.codecs import dumps, holds_booleans, load_json
from model_server.encodings import decoded, is_encoded
from model_server.engines import Engine, RawEngine, Tensors, part
from model_server.jobs import RequestJob
from model_server.large_bodies import LARGE_BODY, LargeBodies
from model_server.problems import Fault, ProblemError, invalid, malformed
from model_server.request import Request
from model_server.served import Handler, ServedModel
from model_server.signature import DTYPES, Tensor
from model_server.validation import Array, InputReader, datatype_of

VERSION = "1"  # the server holds one revision of one model
JSON = b"application/json"
BINARY = b"application/octet-stream"


def handlers(model: ServedModel) -> dict[str, Handler]:
    """The protocol's operations on the model; an engine that reads bodies itself has none of them."""
    engine = model.engine
    if isinstance(engine, RawEngine):
        return {}
    metadata = dumps(model_metadata(engine, model.name))
    return {
        "modelMetadata": lambda request: request.respond(200, JSON, metadata),
        "modelReady": model.ready,
        "infer": Infer(engine, model.name, model.reader, model.batcher, model.large_bodies, model.max_body),
    }


def server_metadata() -> dict[str, Any]:
    return {"name": "model_server", "version": __version__, "extensions": ["binary_tensor_data"]}


def model_metadata(engine: Engine, name: str) -> dict[str, Any]:
    def tensor(item: Tensor) -> dict[str, Any]:
        body: dict[str, Any] = {"name": item.name, "datatype": item.datatype, "shape": list(item.shape)}
        known = {"columns": list(item.columns), "classes": list(engine.signature.classes_of(item))}
        parameters = {name: values for name, values in known.items() if values}
        return body | ({"parameters": parameters} if parameters else {})

    return {
        "name": name,
        "versions": [VERSION],
        "platform": f"{engine.framework}_{engine.name}",
        "inputs": [tensor(item) for item in engine.signature.inputs],
        "outputs": [tensor(item) for item in engine.signature.outputs],
    }


class Infer:
    """POST /v2/models/{model}/infer."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        reader: InputReader,
        batcher: Batcher,
        large_bodies: LargeBodies,
        max_body: int,
    ) -> None:
        self._name, self._reader, self._batcher = name, reader, batcher
        self._large_bodies, self._max_body = large_bodies, max_body
        self._outputs = {tensor.name: tensor for tensor in engine.signature.outputs}

    def __call__(self, request: Request) -> None:
        encoded = is_encoded(request)
        if encoded or len(request.body) >= LARGE_BODY:
            self._large_bodies.submit(request, partial(self._read, request, encoded=encoded))
        else:
            self._batcher.submit(self._read(request), lone=len(request.connection.server.connections) == 1)

    def _read(self, request: Request, *, encoded: bool = False) -> RequestJob:
        content = decoded(request.body, self._max_body) if encoded else request.body
        head, binary = _split(request, content)
        body = load_json(head)
        if type(body) is not dict:
            raise invalid(Fault("the body must be an object"))
        parameters = dict(_object(body.get("parameters", {}), "parameters"))
        all_binary = bool(parameters.pop("binary_data_output", False))
        reader = self._reader.careful if holds_booleans(head) else self._reader
        inputs = self._inputs(reader, body.get("inputs"), binary)
        wanted = self._wanted(body.get("outputs"), all_binary=all_binary)
        identity = body.get("id", "")
        if type(identity) is not str:
            raise invalid(Fault("must be a string", "id"))

        def render(outputs: Tensors, start: int, end: int) -> tuple[bytes, bytes, bytes]:
            return self._render(part(outputs, start, end), wanted, identity)

        return RequestJob(request, inputs, len(next(iter(inputs.values()))), parameters, render)

    def _inputs(self, reader: InputReader, items: Any, binary: memoryview) -> Tensors:
        if type(items) is not list or not items:
            raise invalid(Fault("must be a list of tensors", "inputs"))
        given: Tensors = {}
        at = 0
        for item in items:
            name = _object(item, "inputs").get("name")
            tensor = self._reader.signature.input(name) if type(name) is str else None
            if tensor is None or name in given:
                known = ", ".join(t.name for t in self._reader.signature.inputs)
                problem = "is there twice" if tensor else f"is not an input of this model; allowed: {known}"
                raise invalid(Fault(problem, str(name)))
            size = _object(item.get("parameters", {}), f"{name}.parameters").get("binary_data_size")
            if size is None:
                given[tensor.name] = self._from_json(reader, tensor, item)
                continue
            if type(size) is not int or not 0 <= size <= len(binary) - at:
                raise malformed(
                    f"{name}: binary_data_size is {size!r}, but {len(binary) - at} bytes are left"
                )
            given[tensor.name] = self._from_binary(tensor, item, binary[at : at + size])
            at += size
        if at != len(binary):
            raise malformed(f"{len(binary) - at} bytes of the body belong to no input")
        missing = [tensor.name for tensor in self._reader.signature.inputs if tensor.name not in given]
        if missing:
            raise invalid(*(Fault("is missing", name) for name in missing))
        return self._reader.same_rows(given)

    def _from_json(self, reader: InputReader, tensor: Tensor, item: Mapping[str, Any]) -> Array:
        shape, given = self._declared(tensor, item)
        self._reader.check_shape(tensor, shape)
        array = reader.flat(given, item.get("data"), shape)
        return array if given is tensor else self._reader.array(tensor, array)

    def _from_binary(self, tensor: Tensor, item: Mapping[str, Any], data: memoryview) -> Array:
        shape, given = self._declared(tensor, item)
        self._reader.check_shape(tensor, shape)
        count = 1
        for size in shape:
            count *= size
        if given.datatype == "BYTES":
            array = _strings(tensor, data, count).reshape(shape)
        elif len(data) != count * given.dtype.itemsize:
            raise malformed(
                f"{tensor.name}: {given.datatype} of shape {list(shape)} has "
                f"{count * given.dtype.itemsize} bytes, but binary_data_size is {len(data)}"
            )
        else:
            array = np.frombuffer(data, given.dtype).reshape(shape)
            if given.datatype == "BOOL":  # any byte but 0 and 1 would be an invalid numpy bool
                array = array.view(np.uint8) != 0
        return self._reader.array(tensor, array)

    def _declared(self, tensor: Tensor, item: Mapping[str, Any]) -> tuple[list[int], Tensor]:
        """The shape that the request says, and the tensor with the datatype that it says."""
        shape, datatype = item.get("shape"), item.get("datatype")
        if type(shape) is not list or not all(type(size) is int and 0 <= size < 1 << 40 for size in shape):
            raise invalid(Fault("must be a list of whole numbers", f"{tensor.name}.shape"))
        if datatype == tensor.datatype:
            return shape, tensor
        if type(datatype) is not str or datatype not in DTYPES:
            raise invalid(Fault(f"{datatype!r} is not one of {', '.join(DTYPES)}", f"{tensor.name}.datatype"))
        return shape, Tensor(tensor.name, datatype, tensor.shape, tensor.columns)

    def _wanted(self, items: Any, *, all_binary: bool) -> dict[str, bool]:
        """Output name to whether it goes back as bytes."""
        if items is None or items == []:
            return dict.fromkeys(self._outputs, all_binary)
        if type(items) is not list:
            raise invalid(Fault("must be a list of tensors", "outputs"))
        wanted = {}
        for item in items:
            name = _object(item, "outputs").get("name")
            if type(name) is not str or name not in self._outputs:
                raise invalid(
                    Fault(f"is not an output of this model; allowed: {', '.join(self._outputs)}", str(name))
                )
            parameters = _object(item.get("parameters", {}), f"{name}.parameters")
            if parameters.get("classification"):
                raise invalid(Fault("the classification extension is not offered", f"{name}.parameters"))
            wanted[name] = bool(parameters.get("binary_data", all_binary))
        return wanted

    def _render(
        self, outputs: Tensors, wanted: Mapping[str, bool], identity: str
    ) -> tuple[bytes, bytes, bytes]:
        tensors, blobs = [], []
        for name, binary in wanted.items():
            array = outputs[name]
            datatype = datatype_of(array)
            item: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
            if binary:
                blob = _pack_strings(array) if datatype == "BYTES" else np.ascontiguousarray(array).tobytes()
                item["parameters"] = {"binary_data_size": len(blob)}
                blobs.append(blob)
            else:
                item["data"] = array.ravel()
            tensors.append(item)
        body: dict[str, Any] = {"model_name": self._name, "model_version": VERSION, "outputs": tensors}
        if identity:
            body["id"] = identity
        head = dumps(body)
        if not blobs:
            return JSON, head, b""
        return BINARY, head + b"".join(blobs), b"inference-header-content-length: %d\r\n" % len(head)


def _split(request: Request, content: bytes) -> tuple[bytes, memoryview]:
    """The JSON part of a body and the tensors' bytes after it."""
    text = request.headers.get(b"inference-header-content-length")
    if text is None:
        media = request.header(b"content-type").partition(";")[0].strip().lower()
        if media not in ("application/json", ""):
            raise ProblemError(
                415,
                f"Content-Type is {media!r}; allowed: application/json, or application/octet-stream "
                "with Inference-Header-Content-Length",
            )
        return content, memoryview(b"")
    if not text.isdigit() or len(text) > 12 or int(text) > len(content):
        raise malformed(
            f"Inference-Header-Content-Length is {text.decode('latin-1')!r}, "
            f"but the body has {len(content)} bytes"
        )
    size = int(text)
    return content[:size], memoryview(content)[size:]


def _object(value: Any, field: str) -> Mapping[str, Any]:
    if type(value) is not dict:
        raise invalid(Fault("must be an object", field))
    return value


def _strings(tensor: Tensor, data: memoryview, count: int) -> Array:
    """BYTES: each element is its length (4 bytes, little-endian) and then its bytes."""
    values: list[str] = []
    at = 0
    while at + 4 <= len(data) and len(values) < count:
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if size > len(data) - at:
            break
        try:
            values.append(str(data[at : at + size], "utf-8"))
        except UnicodeDecodeError:
            raise invalid(Fault("is not UTF-8", tensor.name, len(values))) from None
        at += size
    if at != len(data) or len(values) != count:
        raise malformed(f"{tensor.name}: its bytes are not {count} strings, each after its length")
    array = np.empty(count, dtype=object)
    array[:] = values
    return array


def _pack_strings(array: Array) -> bytes:
    parts = [str(value).encode() for value in array.ravel()]
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)
