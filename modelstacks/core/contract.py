"""The HTTP contract that every deployment answers, and the settings that reach its model server.

This is the one list from which the API's routes are made in both architectures; serving/ implements it on the
other side without importing it, and tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "CUSTOM_ATTRIBUTES_HEADER",
    "PREDICTIVE_ROUTES",
    "ROUTE_ATTRIBUTE",
    "SERVER_ENVIRONMENT_PREFIX",
    "SERVER_PORT",
    "STAGE",
    "Route",
    "answer_seconds",
    "image_arguments",
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


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path; `{name}` is a path parameter. A request without one of `headers` is refused."""

    method: Literal["GET", "POST"]
    path: str
    summary: str
    headers: tuple[str, ...] = ()
    # Headers that the API sets for what is behind it, each from a variable of API Gateway's `$context`.
    context: tuple[tuple[str, str], ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the path's parameters."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))


PREDICTIVE_ROUTES: tuple[Route, ...] = (
    Route("GET", "/ping", "200 when the model is ready, 503 while it loads or drains"),
    Route("POST", "/invocations", "predict, in the content type of the request", headers=("Content-Type",)),
    Route("GET", "/v2", "Open Inference Protocol: server metadata"),
    Route("GET", "/v2/health/live", "Open Inference Protocol: liveness"),
    Route("GET", "/v2/health/ready", "Open Inference Protocol: readiness"),
    Route("GET", "/v2/models/{model}", "Open Inference Protocol: model metadata"),
    Route("GET", "/v2/models/{model}/ready", "Open Inference Protocol: model readiness"),
    Route("POST", "/v2/models/{model}/infer", "Open Inference Protocol: predict, JSON or binary tensors"),
    Route(
        "GET",
        "/openapi.json",
        "the API's own schema, made from the model's signature",
        context=(("x-api-domain", "domainName"), ("x-api-path", "path")),
    ),
)

TORCH_VERSION = "2.13.0"


def image_arguments(engine: str, *, torch: bool) -> dict[str, str]:
    """The build arguments of serving/Dockerfile.

    PyTorch is larger than all the rest of the image: it comes only where the weights run in nothing else.
    """
    return {"ENGINE": engine} | ({"TORCH": TORCH_VERSION} if torch else {})
