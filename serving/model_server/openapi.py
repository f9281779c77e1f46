"""/openapi.json: the API of one model, from its signature."""

from __future__ import annotations

import re
from typing import Any

from model_server import __version__
from model_server.codecs import DECODERS, ENCODERS
from model_server.engines import Engine, RawEngine
from model_server.http import Request
from model_server.signature import Signature, Tensor

_JSON_TYPES: dict[str, dict[str, Any]] = {
    "BOOL": {"type": ["boolean", "integer"]},
    "BYTES": {"type": "string"},
}
_DOMAIN = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?")
_PATH = re.compile(r"[A-Za-z0-9/._~-]{1,512}")
PROBLEM = {"$ref": "#/components/schemas/Problem"}
FAILURES = {
    "400": "The request cannot be read.",
    "403": "No valid key or signature, no permission to call this route, or no such route.",
    "406": "No answer in a media type that Accept names.",
    "413": "The body is too large.",
    "415": "The body's media type or encoding is not read here.",
    "422": "The body does not fit the model's signature, and `errors` names field and row; or the answer "
    "would be too large.",
    "429": "Too many requests; try again after Retry-After seconds.",
    "500": "The model failed.",
    "502": "The servers behind the API failed.",
    "503": "The model is loading or the server is about to stop; try again after Retry-After seconds.",
    "504": "No answer in time.",
}
OF_PREDICTIONS = ("400", "406", "413", "415", "422", "429", "500", "503")
OF_THE_API = ("400", "403", "413", "429", "500", "502", "503", "504")  # in front of every route
WAIT = {"description": "Seconds to wait before another try.", "schema": {"type": "integer", "minimum": 0}}


def describe(engine: Engine, name: str, api_auth: str) -> dict[str, Any]:
    """The document, but for the API's address. `api_auth`: as in Settings."""
    signature = engine.signature
    paths: dict[str, Any] = {
        "/ping": _get("ready", "Whether the model answers.", {"type": "object"}, failures=("503",)),
        "/invocations": {"post": _invocations(engine)},
        "/v2": _get("serverMetadata", "The server and its extensions.", {"type": "object"}),
        "/v2/health/live": _get("serverLive", "Whether the process runs.", {"type": "object"}),
        "/v2/health/ready": _get(
            "serverReady", "Whether the model answers.", {"type": "object"}, failures=("503",)
        ),
        "/openapi.json": _get("openapi", "This document.", {"type": "object"}),
    }
    if not isinstance(engine, RawEngine):
        model = f"/v2/models/{name}"
        paths[model] = _get(
            "modelMetadata", "Inputs and outputs.", {"$ref": "#/components/schemas/ModelMetadata"}
        )
        paths[f"{model}/ready"] = _get(
            "modelReady", "Whether the model answers.", {"type": "object"}, failures=("503",)
        )
        paths[f"{model}/infer"] = {"post": _infer()}
    if api_auth:
        for operations in paths.values():
            for operation in operations.values():
                operation["responses"] = _failures(OF_THE_API) | operation["responses"]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": name,
            "version": __version__,
            "description": f"A {engine.task} model, run by {engine.framework} {engine.framework_version}.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(engine, signature), **_security_schemes(api_auth)},
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


def _get(
    operation: str, summary: str, schema: dict[str, Any], failures: tuple[str, ...] = ()
) -> dict[str, Any]:
    responses: dict[str, Any] = {
        "200": {"description": summary, "content": {"application/json": {"schema": schema}}}
    }
    return {
        "get": {"operationId": operation, "summary": summary, "responses": responses | _failures(failures)}
    }


def _failures(statuses: tuple[str, ...]) -> dict[str, Any]:
    return {
        status: {
            "description": FAILURES[status],
            "content": {"application/problem+json": {"schema": PROBLEM}},
            **({"headers": {"Retry-After": WAIT}} if status in ("429", "503") else {}),
        }
        for status in statuses
    }


def _invocations(engine: Engine) -> dict[str, Any]:
    if isinstance(engine, RawEngine):
        anything: dict[str, Any] = {"*/*": {"schema": {}}}
        return {
            "operationId": "invoke",
            "summary": "A prediction, by the model's own code.",
            "requestBody": {"required": True, "content": anything},
            "responses": {"200": {"description": "The answer.", "content": anything}}
            | _failures(OF_PREDICTIONS),
        }
    binary = {"schema": {"type": "string", "format": "binary", "minLength": 1}}
    text = {"schema": {"type": "string", "minLength": 1}}
    takes_images = engine.signature.inputs[0].image is not None
    bodies = {
        media: binary if "x-np" in media or "image" in media or "octet" in media else text
        for media in DECODERS
        if takes_images or not ("image" in media or "octet" in media)
    }
    bodies["application/json"] = {"schema": {"$ref": "#/components/schemas/Invocation"}}
    answers = {media: binary if "x-np" in media else text for media in ENCODERS}
    answers["application/json"] = {"schema": {"$ref": "#/components/schemas/Predictions"}}
    return {
        "operationId": "invoke",
        "summary": "Predictions, an entry a row.",
        "requestBody": {"required": True, "content": bodies},
        "responses": {"200": {"description": "Predictions.", "content": answers}} | _failures(OF_PREDICTIONS),
    }


def _infer() -> dict[str, Any]:
    return {
        "operationId": "infer",
        "summary": "Open Inference Protocol v2.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}}},
        },
        "responses": {
            "200": {
                "description": "Output tensors.",
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/InferResponse"}},
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                },
            }
        }
        | _failures(tuple(status for status in OF_PREDICTIONS if status != "406")),
    }


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
        "Predictions": _object({"predictions": {"type": "array"}}, ["predictions"]),
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
