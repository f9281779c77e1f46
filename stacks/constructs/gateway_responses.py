"""What API Gateway answers by itself, in the form in which the model server answers: problem+json.

https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, NamedTuple

from aws_cdk import aws_apigateway as apigateway
from constructs import Construct

__all__ = ["gateway_responses"]

# API Gateway's own words, which come with their quotes.
ITS_OWN = "$context.error.messageString"
HEADERS = {
    "gatewayresponse.header.Content-Type": "'application/problem+json'",
    "gatewayresponse.header.X-Request-Id": "context.requestId",
}
RETRY = {**HEADERS, "gatewayresponse.header.Retry-After": "'1'"}


class Problem(NamedTuple):
    """One kind of answer. `retry`: the caller may try again in a second."""

    status: int
    title: str
    detail: str = ITS_OWN
    retry: bool = False


# Every type that API Gateway has; a test compares the list with its service model. Each names its status,
# because a response template has no variable for it. Types of authorizers and mapping templates are here for
# the API that somebody adds one to. docs/verified.md says which type the failures of an integration have.
PROBLEMS: Mapping[str, Problem] = {
    "ACCESS_DENIED": Problem(403, "Forbidden"),
    "API_CONFIGURATION_ERROR": Problem(500, "Internal Server Error"),
    "AUTHORIZER_CONFIGURATION_ERROR": Problem(500, "Internal Server Error"),
    "AUTHORIZER_FAILURE": Problem(500, "Internal Server Error"),
    "BAD_REQUEST_BODY": Problem(400, "Bad Request"),
    "BAD_REQUEST_PARAMETERS": Problem(400, "Bad Request"),
    "EXPIRED_TOKEN": Problem(403, "Forbidden"),
    "INTEGRATION_FAILURE": Problem(502, "Bad Gateway", "the servers behind the API cannot be reached"),
    "INTEGRATION_TIMEOUT": Problem(504, "Gateway Timeout", "the model did not answer in time"),
    "INVALID_API_KEY": Problem(403, "Forbidden", "no valid API key in the header x-api-key"),
    "INVALID_SIGNATURE": Problem(403, "Forbidden"),
    "MISSING_AUTHENTICATION_TOKEN": Problem(403, "Forbidden"),
    "QUOTA_EXCEEDED": Problem(429, "Too Many Requests", "the API key's quota is used up"),
    "RESOURCE_NOT_FOUND": Problem(404, "Not Found"),
    "THROTTLED": Problem(429, "Too Many Requests", "too many requests; try again", retry=True),
    "UNAUTHORIZED": Problem(401, "Unauthorized"),
    "UNSUPPORTED_MEDIA_TYPE": Problem(415, "Unsupported Media Type"),
    "WAF_FILTERED": Problem(403, "Forbidden"),
}
# A function that is throttled is an integration that fails (docs/verified.md).
OVERLOAD = Problem(429, "Too Many Requests", "the servers behind the API are busy; try again", retry=True)


def gateway_responses(
    scope: Construct,
    api_id: str,
    *,
    auth: Literal["api-key", "iam"],
    max_body_bytes: int,
    throttles: bool,
) -> list[apigateway.CfnGatewayResponse]:
    """One response for each type of error, and the two defaults for types that AWS may add."""
    problems = dict(PROBLEMS)
    problems["REQUEST_TOO_LARGE"] = Problem(
        413, "Content Too Large", f"the body is larger than {max_body_bytes} bytes; send fewer rows at once"
    )
    # API Gateway says that a token is missing where it means that there is no such route.
    problems["MISSING_AUTHENTICATION_TOKEN"] = Problem(
        403,
        "Forbidden",
        "no such route" if auth == "api-key" else "no such route, or the request is not signed",
    )
    if throttles:
        problems["INTEGRATION_FAILURE"] = OVERLOAD
    made = [
        _response(
            scope, api_id, kind, _template(problem), RETRY if problem.retry else HEADERS, problem.status
        )
        for kind, problem in sorted(problems.items())
    ]
    fallback = _template(Problem(0, "$context.error.responseType"))
    made += [_response(scope, api_id, kind, fallback, HEADERS) for kind in ("DEFAULT_4XX", "DEFAULT_5XX")]
    return made


def _template(problem: Problem) -> str:
    document = {
        "type": "about:blank",
        "title": problem.title,
        **({"status": problem.status} if problem.status else {}),
        "detail": problem.detail,
        "instance": "$context.requestId",
        "error": problem.detail,
        **({"retry_after": 1} if problem.retry else {}),
    }
    return json.dumps(document).replace(f'"{ITS_OWN}"', ITS_OWN)


def _response(
    scope: Construct,
    api_id: str,
    kind: str,
    template: str,
    headers: Mapping[str, str],
    status: int | None = None,
) -> apigateway.CfnGatewayResponse:
    return apigateway.CfnGatewayResponse(
        scope,
        f"Problem{kind.title().replace('_', '')}",
        rest_api_id=api_id,
        response_type=kind,
        status_code=str(status) if status else None,
        response_parameters=dict(headers),
        response_templates={"application/json": template},
    )
