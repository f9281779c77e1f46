"""/openapi.json: the API of one model, from the open routes and the model's signature."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from model_server import __version__
from model_server.chunks import EVENT_STREAM
from model_server.codecs import DECODERS, ENCODERS
from model_server.engines import Engine, RawEngine, StreamingEngine
from model_server.request import Request
from model_server.routes import Route
from model_server.signature import Signature, Tensor

_JSON_TYPES: dict[str, dict[str, Any]] = {
    "BOOL": {"type": ["boolean", "integer"]},
    "BYTES": {"type": "string"},
}
_DOMAIN = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?")
_PATH = re.compile(r"[A-Za-z0-9/._~-]{1,512}")
PROBLEM = {"$ref": "#/components/schemas/Problem"}
FAILURES = {
    400: "The request cannot be read.",
    403: "No valid key or signature, no permission to call this route, or no such route.",
    406: "No answer in a media type that Accept names.",
    413: "The body is too large.",
    415: "The body's media type or encoding is not read here.",
    422: "The body does not fit the model's signature, and `errors` names field and row; or the answer "
    "would be too large.",
    429: "Too many requests; try again after Retry-After seconds.",
    500: "The model failed.",
    502: "The servers behind the API failed.",
    503: "The model is loading or the server is about to stop; try again after Retry-After seconds.",
    504: "No answer in time.",
}
OF_THE_API = (400, 403, 413, 429, 500, 502, 503, 504)  # in front of every route
WAIT = {"description": "Seconds to wait before another try.", "schema": {"type": "integer", "minimum": 0}}


def describe(engine: Engine, name: str, api_auth: str, routes: Sequence[Route]) -> dict[str, Any]:
    """The document for these routes, without the API's address. `api_auth`: as in Settings."""
    contents = _contents(engine)
    paths: dict[str, Any] = {}
    for route in routes:
        if route.public:
            path = route.path.replace("{model}", name)
            paths.setdefault(path, {})[route.method.lower()] = _operation(route, contents, api_auth)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": name,
            "version": __version__,
            "description": f"A {engine.task} model, run by {engine.framework} {engine.framework_version}.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(engine, engine.signature), **_security_schemes(api_auth)},
        **({"security": [{api_auth: []}]} if api_auth else {}),
    }


def public_address(request: Request) -> str:
    """The URL under which callers reach this API, from what the API in front says of it; empty where unknown.

    x-api-domain is its host, x-api-path the path that the caller asked for, stage or base path included.
    """
    domain, path = request.header(b"x-api-domain"), request.header(b"x-api-path")
    if not _DOMAIN.fullmatch(domain) or not path.endswith("/openapi.json") or not _PATH.fullmatch(path):
        return ""
    scheme = "http" if domain.partition(":")[0] in ("127.0.0.1", "localhost") else "https"
    return f"{scheme}://{domain}{path.removesuffix('/openapi.json')}"


def _security_schemes(api_auth: str) -> dict[str, Any]:
    if not api_auth:
        return {}
    scheme = {
        "api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        # As API Gateway's own exports describe SigV4.
        "iam": {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "AWS Signature Version 4, service execute-api",
            "x-amazon-apigateway-authtype": "awsSigv4",
        },
    }[api_auth]
    return {"securitySchemes": {api_auth: scheme}}


def _operation(route: Route, contents: Mapping[str, Any], api_auth: str) -> dict[str, Any]:
    failures = _failures(OF_THE_API if api_auth else ()) | _failures(route.failures)
    answer = {"description": route.summary, "content": _content(route.response, contents)}
    described: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "responses": failures | {"200": answer},
    }
    if route.request is not None:
        described["requestBody"] = {"required": True, "content": _content(route.request, contents)}
    return described


def _content(body: str | Mapping[str, Any], contents: Mapping[str, Any]) -> Any:
    """A body by media type: what a route names, or the JSON schema that it has instead of a name."""
    return contents[body] if isinstance(body, str) else {"application/json": {"schema": dict(body)}}


def _failures(statuses: Iterable[int]) -> dict[str, Any]:
    return {
        str(status): {
            "description": FAILURES[status],
            "content": {"application/problem+json": {"schema": PROBLEM}},
            **({"headers": {"Retry-After": WAIT}} if status in (429, 503) else {}),
        }
        for status in statuses
    }


def _contents(engine: Engine) -> dict[str, Any]:
    """The bodies that routes name in `request` and `response`, each by media type."""
    if isinstance(engine, RawEngine):
        anything: dict[str, Any] = {"*/*": {"schema": {}}}
        return {"Object": _json({"type": "object"}), "Invocation": anything, "Predictions": anything}
    binary = {"schema": {"type": "string", "format": "binary", "minLength": 1}}
    text = {"schema": {"type": "string", "minLength": 1}}
    takes_images = engine.signature.inputs[0].image is not None
    requests = {
        media: binary if "x-np" in media or "image" in media or "octet" in media else text
        for media in DECODERS
        if takes_images or not ("image" in media or "octet" in media)
    }
    answers = {media: binary if "x-np" in media else text for media in ENCODERS}
    if isinstance(engine, StreamingEngine):
        answers[EVENT_STREAM] = text
    tensors = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {
        "Object": _json({"type": "object"}),
        "Invocation": requests | _json(_component("Invocation")),
        "Predictions": answers | _json(_component("Predictions")),
        "ModelMetadata": _json(_component("ModelMetadata")),
        "InferRequest": _json(_component("InferRequest")),
        "InferResponse": _json(_component("InferResponse")) | tensors,
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _component(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(engine: Engine, signature: Signature) -> dict[str, Any]:
    rows = _rows(signature)
    invocation: list[dict[str, Any]] = [
        _exactly({"instances": rows, "parameters": {"type": "object"}}, ["instances"]),
        _exactly({"inputs": rows, "parameters": {"type": "object"}}, ["inputs"]),
        rows,
    ]
    shared = {
        "Problem": _object(
            {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "instance": {"type": "string"},
                "error": {"type": "string"},
                "retry_after": {"type": "integer", "minimum": 0},
                "errors": {"type": "array", "items": {"type": "object"}},
            },
            ["type", "title", "status", "detail", "instance", "error"],
        ),
    }
    if isinstance(engine, RawEngine):
        return shared
    return shared | {
        "Invocation": {"anyOf": invocation},
        "Predictions": _object({"predictions": _predictions(signature)}, ["predictions"]),
        "ModelMetadata": {
            "type": "object",
            "required": ["name", "versions", "platform", "inputs", "outputs"],
        },
        "InferRequest": _object(
            {
                "id": {"type": "string"},
                "inputs": {
                    "type": "array",
                    "minItems": len(signature.inputs),
                    "maxItems": len(signature.inputs),
                    "items": {"anyOf": [_tensor(tensor) for tensor in signature.inputs]},
                },
                "outputs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"enum": [tensor.name for tensor in signature.outputs]}},
                    },
                },
                "parameters": {"type": "object"},
            },
            ["inputs"],
        ),
        "InferResponse": {"type": "object", "required": ["model_name", "outputs"]},
    }


def _predictions(signature: Signature) -> dict[str, Any]:
    """An entry a row; of a classifier whose labels are known, with the order of its classes."""
    classes = next((named for output in signature.outputs if (named := signature.classes_of(output))), ())
    if not classes:
        return {"type": "array"}
    return {
        "type": "array",
        "description": "The probabilities of each row are in the order of x-classes.",
        "x-classes": list(classes),
    }


def _rows(signature: Signature) -> dict[str, Any]:
    """Rows, all of one form."""
    forms: list[dict[str, Any]] = [
        {"type": "array", "minItems": 1, "items": row} for row in _row_forms(signature)
    ]
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _row_forms(signature: Signature) -> list[dict[str, Any]]:
    if len(signature.inputs) > 1:
        fields = {tensor.name: _values(tensor.shape[1:], tensor) for tensor in signature.inputs}
        return [_exactly(fields, list(fields))]
    tensor = signature.inputs[0]
    plain = _values(tensor.shape[1:], tensor)
    if not tensor.columns:
        return [plain]
    named = _exactly({column: _scalar(tensor) for column in tensor.columns}, list(tensor.columns))
    return [plain, named]


def _values(shape: tuple[int, ...], tensor: Tensor) -> dict[str, Any]:
    if not shape:
        return _scalar(tensor)
    size = {"minItems": shape[0], "maxItems": shape[0]} if shape[0] > 0 else {}
    return {"type": "array", "items": _values(shape[1:], tensor), **size}


def _scalar(tensor: Tensor) -> dict[str, Any]:
    if tensor.datatype == "BYTES" and tensor.nullable:
        return {"type": ["string", "null"]}
    if tensor.datatype in _JSON_TYPES:
        return dict(_JSON_TYPES[tensor.datatype])
    if tensor.datatype.startswith("FP"):
        return {"type": ["number", "null"]} if tensor.nan else {"type": "number"}
    return {"type": "integer"}


def _tensor(tensor: Tensor) -> dict[str, Any]:
    dimensions = [{"const": size} if size > 0 else {"type": "integer", "minimum": 1} for size in tensor.shape]
    described = _object(
        {
            "name": {"const": tensor.name},
            "datatype": {"const": tensor.datatype},
            "shape": {
                "type": "array",
                "prefixItems": dimensions,
                "minItems": len(dimensions),
                "maxItems": len(dimensions),
            },
            "data": {"type": "array"},
            "parameters": {"type": "object"},
        },
        ["name", "datatype", "shape"],
    )
    # In JSON, or as bytes behind it.
    sized = {"required": ["binary_data_size"], "properties": {"binary_data_size": {"type": "integer"}}}
    binary = {"required": ["parameters"], "properties": {"parameters": sized}}
    return described | {"anyOf": [{"required": ["data"]}, binary]}


def _exactly(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {**_object(properties, required), "additionalProperties": False}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}
