"""The HTTP contract that every deployment answers, and the settings that reach its model server.

The routes are data, serving/model_server/routes.json: both architectures' REST API is made from it here;
the model server derives its dispatch, its metrics and /openapi.json from it. Neither imports the other.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from modelstacks.core.bundle import serving

__all__ = [
    "API_PAYLOAD",
    "CUSTOM_ATTRIBUTES_HEADER",
    "LAMBDA_BODY",
    "PREDICTIVE_ROUTES",
    "ROUTE_ATTRIBUTE",
    "SERVER_ENVIRONMENT_PREFIX",
    "SERVER_PORT",
    "STAGE",
    "Route",
    "answer_bytes",
    "answer_seconds",
    "groups",
    "routes",
]

STAGE = "live"
SERVER_PORT = 8080
SERVER_ENVIRONMENT_PREFIX = "MODEL_SERVER_"

# SageMaker forwards GET /ping and POST /invocations to a container and nothing else. Every other route
# travels inside an invocation, named in this header as `modelstacks-route=POST /v2/models/m/infer`
# (docs/contract.md).
CUSTOM_ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Custom-Attributes"
ROUTE_ATTRIBUTE = "modelstacks-route"


def answer_seconds(api_seconds: int, architecture: Literal["self-hosted", "managed"]) -> int:
    """How long whoever calls the model server waits for it, when the API's callers wait `api_seconds`.

    The managed architecture's function gives up two seconds before the API does, so that it can say why.

    >>> answer_seconds(29, "self-hosted"), answer_seconds(29, "managed")
    (29, 27)
    """
    return api_seconds if architecture == "self-hosted" else max(1, api_seconds - 2)


# What the services carry, in bytes (docs/verified.md has the evidence). API Gateway takes and returns 10 MB.
API_PAYLOAD = 10_485_760
# A synchronous invocation of a function has 6 MB for the whole event. API Gateway's limit of 10,240 bytes for
# the request line and headers bounds what is beside the body: each value is there twice, and JSON may take
# six bytes for one.
LAMBDA_PAYLOAD = 6_291_456
EVENT_BESIDE_BODY = 131_072
# The largest body that is still a valid event once it is base64. SageMaker takes more.
LAMBDA_BODY = (LAMBDA_PAYLOAD - EVENT_BESIDE_BODY) * 3 // 4


def answer_bytes(max_body_bytes: int) -> int:
    """The largest answer of a model server.

    It is the same on both architectures wherever both can carry the requests, so that no caller notices a
    change of architecture.
    """
    return LAMBDA_BODY if max_body_bytes <= LAMBDA_BODY else API_PAYLOAD


# The group that every API has.
COMMON = "common"


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path; `{name}` is a path parameter. A request without one of `headers` is refused."""

    method: Literal["GET", "POST"]
    path: str
    summary: str
    headers: tuple[str, ...] = ()
    # Headers that the API sets for what is behind it, each from a variable of API Gateway's `$context`.
    context: tuple[tuple[str, str], ...] = ()
    group: str = "common"
    # The id in /openapi.json.
    operation: str = ""
    # The answer may be sent in chunks while it is made.
    streams: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the path's parameters."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))


@cache
def _routes_file() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((serving() / "model_server" / "routes.json").read_bytes())
    return content


def groups() -> dict[str, str]:
    """The groups of routes that a deployment can choose, and what each is for."""
    return {name: about for name, about in _routes_file()["groups"].items() if name != COMMON}


def routes(chosen: Collection[str]) -> tuple[Route, ...]:
    """The API's routes for these groups, with those that every API has, in the list's order.

    >>> [f"{route.method} {route.path}" for route in routes(["predictive"])][:2]
    ['GET /ping', 'POST /invocations']
    """
    return tuple(
        Route(
            method=entry["method"],
            path=entry["path"],
            summary=entry["summary"],
            headers=tuple(entry.get("headers", ())),
            context=tuple(entry.get("context", {}).items()),
            group=entry["group"],
            operation=entry["operation"],
            streams=entry.get("streams", False),
        )
        for entry in _routes_file()["routes"]
        if entry.get("public", True) and entry["group"] in {COMMON, *chosen}
    )


PREDICTIVE_ROUTES: tuple[Route, ...] = routes(["predictive"])
