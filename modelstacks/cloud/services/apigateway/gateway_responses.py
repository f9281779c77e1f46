"""What API Gateway answers by itself: its own words, or the API's, where a gateway response was deployed.

https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from modelstacks.cloud.host.wire import Headers, Response
from modelstacks.cloud.services.apigateway.snapshot import GatewayResponse

__all__ = ["GatewayError", "NoSuchStage", "answer", "broken", "timed_out"]

INTERNAL = "InternalServerErrorException"

JSON = "application/json"

# x-amzn-ErrorType -> the gateway response that an API can put in its place, where an error does not name it
# itself. What is not here has none of its own.
TYPES = {
    "AccessDeniedException": "ACCESS_DENIED",
    "BadRequestException": "BAD_REQUEST_PARAMETERS",
    "ForbiddenException": "INVALID_API_KEY",
    "IncompleteSignatureException": "INVALID_SIGNATURE",
    "InvalidSignatureException": "INVALID_SIGNATURE",
    "LimitExceededException": "QUOTA_EXCEEDED",
    "MissingAuthenticationTokenException": "MISSING_AUTHENTICATION_TOKEN",
    "RequestTooLargeException": "REQUEST_TOO_LARGE",
    "TooManyRequestsException": "THROTTLED",
}
# The status that a response of this type has once an API customizes it; without, the error keeps its own. A
# throttled function is an INTEGRATION_FAILURE, answered 500 until the API says otherwise (docs/verified.md).
CUSTOMIZED = {"INTEGRATION_FAILURE": 504}
VARIABLE = re.compile(r"\$context\.([A-Za-z.]+)")


class GatewayError(Exception):
    """An answer that API Gateway gives by itself.

    `reason` says what AWS does not: which rule is missing. `response_type` is the gateway response that an
    API can put in its place; without one, it is that of the error's kind.
    """

    def __init__(
        self, status: int, kind: str, message: str, reason: str = "", *, response_type: str = ""
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.reason = status, kind, message, reason
        default = "DEFAULT_4XX" if status < 500 else "DEFAULT_5XX"
        self.response_type = response_type or TYPES.get(kind, default)


class NoSuchStage(GatewayError):
    """The address leads to no deployment of the API."""


def timed_out(reason: str = "") -> GatewayError:
    """The answer where an integration does not answer in time."""
    return GatewayError(
        504, INTERNAL, "Endpoint request timed out", reason, response_type="INTEGRATION_TIMEOUT"
    )


def broken(reason: str, status: int = 500, response_type: str = "") -> GatewayError:
    """The answer where an integration, or what is configured of it, is broken."""
    return GatewayError(status, INTERNAL, "Internal server error", reason, response_type=response_type)


def answer(
    error: GatewayError, responses: Mapping[str, GatewayResponse], own: Headers, request_id: str
) -> Response:
    """The error as the caller sees it. `own` are the headers that API Gateway always sends."""
    headers = [*own, ("x-amzn-ErrorType", error.kind)]
    if error.reason:
        headers.append(("x-modelstacks-reason", " ".join(error.reason.split())))
    default = "DEFAULT_4XX" if error.status < 500 else "DEFAULT_5XX"
    kind = error.response_type
    own_status = CUSTOMIZED.get(kind, error.status) if kind in responses else error.status
    chosen = responses.get(kind) or responses.get(default)
    if chosen is None:
        failed = error.reason and error.status >= 500
        body = {"message": error.message} | ({"reason": error.reason} if failed else {})
        return Response(error.status, [*headers, ("content-type", JSON)], json.dumps(body).encode())
    context = {
        "error.message": error.message,
        "error.messageString": json.dumps(error.message),
        "error.responseType": kind,
        "requestId": request_id,
    }
    sent = {
        name.removeprefix("gatewayresponse.header."): _value(source, context)
        for name, source in chosen.parameters.items()
        if name.startswith("gatewayresponse.header.")
    }
    if not any(name.lower() == "content-type" for name in sent):
        sent["content-type"] = JSON
    template = chosen.templates.get(JSON, '{"message":$context.error.messageString}')
    body_text = VARIABLE.sub(lambda found: context.get(found[1], ""), template)
    return Response(chosen.status or own_status, [*headers, *sent.items()], body_text.encode())


def _value(source: str, context: Mapping[str, str]) -> str:
    """A mapping's source: 'a literal in quotes', or context.variable."""
    if source.startswith("'"):
        return source.strip("'")
    return context.get(source.removeprefix("context."), "")
