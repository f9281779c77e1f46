"""A request on its way through one REST API."""

from __future__ import annotations

import base64
import fnmatch
from dataclasses import dataclass
from urllib.parse import parse_qsl

from modelstacks.cloud.host.wire import Request
from modelstacks.cloud.services.apigateway.gateway_responses import GatewayError
from modelstacks.cloud.services.apigateway.snapshot import (
    ApiKey,
    Integration,
    Method,
    Resource,
    RestApi,
    Stage,
)
from modelstacks.cloud.snapshot import Account

__all__ = ["BODY_LIMIT", "JSON", "Call", "is_binary", "payload"]

JSON = "application/json"
BODY_LIMIT = 10 * 1024 * 1024  # bytes, of a request and of an answer


@dataclass(slots=True)
class Call:
    """A request on its way through one API."""

    api: RestApi
    stage: Stage
    resource: Resource
    method: Method
    path: str  # without the stage
    parameters: dict[str, str]
    request: Request
    id: str
    extended_id: str
    trace: str
    key: ApiKey | None = None
    caller_arn: str = ""

    def arn(self, account: Account) -> str:
        """What a policy has to allow."""
        return (
            f"arn:aws:execute-api:{account.region}:{account.id}:{self.api.id}/{self.stage.name}/"
            f"{self.request.method}{self.resource.path}"
        )

    def value(self, name: str) -> str | None:
        """The value of method.request.PLACE.NAME, context.NAME, stageVariables.NAME or a literal."""
        if name.startswith("'"):
            return name.strip("'")
        if name.startswith("stageVariables."):
            return self.stage.variables.get(name.partition(".")[2])
        if name.startswith("context."):
            known = {
                "requestId": self.id,
                "extendedRequestId": self.extended_id,
                "stage": self.stage.name,
                "apiId": self.api.id,
                "domainName": self.request.header("host") or "",
                "httpMethod": self.request.method,
                "identity.sourceIp": self.request.client,
                "path": f"/{self.stage.name}{self.path}",
            }
            return known.get(name.partition(".")[2])
        where, _, key = name.removeprefix("method.request.").partition(".")
        if where == "path":
            return self.parameters.get(key)
        if where == "header":
            return self.request.header(key.lower())
        if where == "querystring":
            return dict(parse_qsl(self.request.query, keep_blank_values=True)).get(key)
        return None


def is_binary(one: RestApi, content_type: str) -> bool:
    """Whether an API handles a content type as binary; without one it is JSON."""
    kind = content_type.partition(";")[0].strip().lower() or JSON
    return any(fnmatch.fnmatchcase(kind, pattern.lower()) for pattern in one.binary_media_types)


def payload(call: Call, integration: Integration) -> tuple[bytes, bool]:
    """The body as the integration gets it, and whether it is binary.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-payload-encodings-workflow.html
    Raises GatewayError for a text that is to become binary and is not base64.
    """
    body = call.request.body
    binary = bool(body) and is_binary(call.api, call.request.header("content-type") or "")
    if integration.content_handling == "CONVERT_TO_TEXT" and binary:
        return base64.b64encode(body), False
    if integration.content_handling == "CONVERT_TO_BINARY" and body and not binary:
        try:
            return base64.b64decode(body, validate=True), True
        except ValueError as error:
            reason = "the integration converts the body to binary, and the body is not base64"
            raise GatewayError(400, "BadRequestException", "Invalid request body", reason) from error
    return body, binary
