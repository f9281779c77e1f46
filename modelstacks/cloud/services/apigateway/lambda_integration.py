"""Lambda proxy integrations: the event that a function gets, and the answer in what it returns."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from modelstacks.cloud.context import Context
from modelstacks.cloud.host.wire import Headers, Response, first, without
from modelstacks.cloud.network import Refused, policies
from modelstacks.cloud.services.apigateway.call import JSON, Call, is_binary, payload
from modelstacks.cloud.services.apigateway.gateway_responses import GatewayError, broken
from modelstacks.cloud.services.apigateway.http_integration import REMAPPED
from modelstacks.cloud.services.apigateway.snapshot import Integration
from modelstacks.cloud.services.iam.snapshot import IamSnapshot
from modelstacks.cloud.services.lambda_.outcome import Throttled
from modelstacks.cloud.services.lambda_.runtime import Functions
from modelstacks.cloud.services.lambda_.snapshot import Function, LambdaSnapshot
from modelstacks.cloud.snapshot import Account

__all__ = ["function_of", "refused", "through_lambda"]

GATEWAY = "apigateway.amazonaws.com"
LAMBDA_LIMIT = 6 * 1024 * 1024 + 100
FUNCTION_URI = re.compile(
    r"arn:[\w-]+:apigateway:[\w-]+:lambda:path/[\d-]+/functions/(.+)/(?:response-streaming-)?invocations"
)
CONCURRENCY: Mapping[Throttled, str] = {
    "function": "its reserved concurrency",
    "account": "the account's concurrency",
}


def function_of(integration: Integration) -> str | None:
    """The name of the function that an integration invokes; None where it invokes none."""
    found = FUNCTION_URI.fullmatch(integration.uri)
    # The ARN may carry a version or an alias.
    return found[1].split(":function:")[-1].partition(":")[0] if found else None


async def through_lambda(
    context: Context, functions: Functions, call: Call, integration: Integration, name: str
) -> Response:
    """Invoke a function with the proxy event, and read its answer. Raises GatewayError."""
    account = context.account
    function = account[LambdaSnapshot].functions.get(name)
    if function is None:
        raise broken(f"lambda {name} does not exist")
    if why := refused(account, call, integration, function):
        context.refuse(why)
        raise broken(why.reason)
    event = json.dumps(_event(call, integration, account.id)).encode()
    if len(event) > LAMBDA_LIMIT:
        reason = f"the event has {len(event)} bytes, Lambda takes {LAMBDA_LIMIT}"
        raise GatewayError(413, "RequestTooLargeException", "Request Too Long", reason)
    outcome = await functions.invoke(name, event, call.trace)
    if outcome.throttled:
        raise broken(
            f"lambda {name} is throttled: {CONCURRENCY[outcome.throttled]} is used up",
            response_type="INTEGRATION_FAILURE",
        )
    if outcome.error:
        raise broken(f"lambda {name} failed: {_function_error(outcome.payload)}", 502)
    if len(outcome.payload) > LAMBDA_LIMIT:
        raise broken(
            f"lambda {name} answered {len(outcome.payload)} bytes, Lambda allows {LAMBDA_LIMIT}", 502
        )
    return _proxy_answer(call, outcome.payload)


def refused(account: Account, call: Call, integration: Integration, function: Function) -> Refused | None:
    """Why API Gateway may not invoke a function: with the integration's role, or by the function's policy."""
    hop = f"api {call.api.name} -> lambda {function.name}"
    source = call.arn(account).replace(
        f"/{call.request.method}/", f"/{call.method.http_method.replace('ANY', '*')}/"
    )
    conditions = {"aws:SourceArn": source, "aws:SourceAccount": account.id}
    permission = policies.Call("lambda:InvokeFunction", function.arn, conditions)
    if integration.credentials:
        role = account[IamSnapshot].roles.get(integration.credentials)
        if role is None:  # arn:aws:iam::*:user/* asks for the caller's own credentials
            return Refused(hop, f"the integration's credentials {integration.credentials} are no role's")
        trusted = policies.trusts(role, GATEWAY, source=source)
        return trusted or policies.authorize(role, permission, account=account.id)
    principal = policies.service_principal(GATEWAY)
    if function.policy is not None and (
        policies.evaluate([function.policy], permission, principal).decision is policies.Decision.ALLOW
    ):
        return None
    why = f"no resource policy of lambda {function.name} lets {GATEWAY} invoke it from {source}"
    return Refused(hop, why)


def _function_error(payload: bytes) -> str:
    """What a function's error says, without its stack."""
    try:
        error = json.loads(payload)
        return f"{error['errorType']}: {error['errorMessage']}"
    except (ValueError, TypeError, KeyError):
        return "it returned an error that Lambda's runtime does not write"


def _event(call: Call, integration: Integration, account: str) -> dict[str, Any]:
    """The Lambda proxy event, payload version 1.0."""
    request = call.request
    headers = [
        *without(request.headers, "x-amzn-trace-id"),
        ("X-Amzn-Trace-Id", call.trace),
        ("X-Forwarded-For", request.client),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Port", "443"),
    ]
    query = parse_qsl(request.query, keep_blank_values=True)
    content, binary = payload(call, integration)
    body = base64.b64encode(content).decode() if binary else content.decode("utf-8", "replace")
    now = datetime.now(UTC)
    return {
        "resource": call.resource.path,
        "path": unquote(call.path),
        "httpMethod": request.method,
        "headers": dict(headers),
        "multiValueHeaders": _grouped(headers),
        "queryStringParameters": dict(query) or None,
        "multiValueQueryStringParameters": _grouped(query) or None,
        "pathParameters": call.parameters or None,
        "stageVariables": dict(call.stage.variables) or None,
        "requestContext": {
            "accountId": account,
            "apiId": call.api.id,
            "domainName": request.header("host") or "",
            "domainPrefix": call.api.id,
            "extendedRequestId": call.extended_id,
            "httpMethod": request.method,
            "identity": {
                "apiKey": call.key.value if call.key else None,
                "apiKeyId": call.key.id if call.key else None,
                "sourceIp": request.client,
                "userAgent": request.header("user-agent"),
                "userArn": call.caller_arn or None,
            },
            "path": f"/{call.stage.name}{call.path}",
            "protocol": "HTTP/1.1",
            "requestId": call.id,
            "requestTime": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "requestTimeEpoch": int(now.timestamp() * 1000),
            "resourceId": call.resource.id,
            "resourcePath": call.resource.path,
            "stage": call.stage.name,
        },
        "body": body if request.body else None,
        "isBase64Encoded": binary,
    }


def _grouped(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for key, value in pairs:
        grouped.setdefault(key, []).append(value)
    return grouped


def _proxy_answer(call: Call, payload: bytes) -> Response:
    """The HTTP answer in what a Lambda returned; anything malformed is a 502."""

    def malformed(why: str) -> GatewayError:
        return broken(f"malformed Lambda proxy response: {why}", 502)

    try:
        answer = json.loads(payload)
    except ValueError as error:
        raise malformed("it is not JSON") from error
    if not isinstance(answer, Mapping):
        raise malformed("it is not an object")
    unknown = answer.keys() - {"statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"}
    if unknown:
        raise malformed(f"unknown field {', '.join(sorted(unknown))}")
    try:
        status = int(answer.get("statusCode", 200))
    except (TypeError, ValueError) as error:
        raise malformed("statusCode is not an integer") from error
    body = answer.get("body")
    if body is not None and not isinstance(body, str):
        raise malformed("body is not a string")
    headers: Headers = []
    single, many = answer.get("headers") or {}, answer.get("multiValueHeaders") or {}
    if not isinstance(single, Mapping) or not isinstance(many, Mapping):
        raise malformed("headers are not an object")
    repeated = {key.lower() for key in many}
    pairs = [(key, value) for key, value in single.items() if key.lower() not in repeated]
    pairs += [
        (key, value)
        for key, values in many.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    for key, value in pairs:
        if not isinstance(value, (str, int, float, bool)):
            raise malformed(f"header {key} is not a string")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        headers.append((f"x-amzn-Remapped-{key}" if key.lower() in REMAPPED else key, text))
    if first(headers, "content-type") is None:
        headers.append(("Content-Type", JSON))
    content = (body or "").encode()
    if answer.get("isBase64Encoded"):
        accept = (call.request.header("accept") or "*/*").partition(",")[0]
        if is_binary(call.api, accept) or "*/*" in call.api.binary_media_types:
            try:
                content = base64.b64decode(content, validate=True)
            except ValueError as error:
                raise malformed("body is not base64") from error
    return Response(status, headers, content)
