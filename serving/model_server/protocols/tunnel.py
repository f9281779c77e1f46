"""Every route through SageMaker, which forwards nothing but POST /invocations.

The caller names the route in the one header that SageMaker passes on,

    X-Amzn-SageMaker-Custom-Attributes: modelstacks-route=POST /v2/models/churn/infer;request-id=...;
                                        inference-header-content-length=<n>

and the answer's request id and binary header length go back in the same header.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from model_server.problems import ProblemError
from model_server.request import Request, valid_id
from model_server.routes import ROUTES

HEADER = b"x-amzn-sagemaker-custom-attributes"
ROUTE = b"modelstacks-route"
# Headers that SageMaker does not forward: those of a body, and those that the API sets for its routes.
CARRIED = (
    b"inference-header-content-length",
    b"content-encoding",
    *(name.encode() for route in ROUTES for name in route.context or {}),
)
# Whether the caller sent no body: SageMaker requires one of every invocation.
EMPTY = b"modelstacks-body"
METHODS = (b"GET", b"POST")
PRIVATE = frozenset(path.encode() for route in ROUTES if not route.public for path in route.paths(""))


def _path(target: bytes) -> bytes:
    return unquote_to_bytes(target.partition(b"?")[0])


def open_tunnel(request: Request) -> bool:
    """Replaces the request by the one that it carries. False where the header is the caller's own."""
    parts = (part.strip().partition(b"=") for part in request.headers[HEADER].split(b";"))
    attributes = {key.strip().lower(): value.strip() for key, _, value in parts}
    if ROUTE not in attributes:
        return False
    method, _, target = attributes[ROUTE].partition(b" ")
    target = target.strip()
    if method not in METHODS or not target.startswith(b"/") or _path(target) in PRIVATE:
        raise ProblemError(404, "the tunnelled route must be `<GET or POST> <path>`, with a path of the API")
    request.headers = dict(request.headers)  # others may share them
    identity = attributes.get(b"request-id", b"")
    if valid_id(identity):
        request.id = identity
    for name in CARRIED:
        if name in attributes:
            request.headers[name] = unquote_to_bytes(attributes[name])
    if attributes.get(EMPTY) == b"none":
        request.body = b""
    request.method, request.target = method, target
    request.attributes = b""  # answered in kind
    del request.headers[HEADER]  # not a tunnel within the tunnel
    return True
