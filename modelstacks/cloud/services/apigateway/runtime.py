"""REST APIs of API Gateway, each on a port of this machine, with AWS's own paths: /STAGE/ROUTE.

A request goes through what a deployed API would do with it, in the same order and with the same answers:
stage, route, authorization, API key, usage plan, validation, integration. Where a rule of the network stops
it, the body and the header `x-modelstacks-reason` say which, beside the answer that AWS gives.
"""

from __future__ import annotations

import asyncio
import base64
import fnmatch
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from uuid import uuid4

from modelstacks.cloud import api
from modelstacks.cloud.account import signatures
from modelstacks.cloud.context import Context
from modelstacks.cloud.host.wire import (
    Headers,
    Limits,
    Listener,
    Request,
    Response,
    first,
    listen,
    without,
)
from modelstacks.cloud.network import Refused, policies, security_groups
from modelstacks.cloud.network.reasons import trace_root
from modelstacks.cloud.runtime import Runtime, Runtimes
from modelstacks.cloud.services.apigateway.gateway_responses import GatewayError, answer
from modelstacks.cloud.services.apigateway.snapshot import (
    ApiGatewaySnapshot,
    ApiKey,
    Integration,
    Method,
    Resource,
    RestApi,
    Stage,
    Throttle,
)
from modelstacks.cloud.services.apigateway.usage import Meter
from modelstacks.cloud.services.apigatewayv2.snapshot import ApiGatewayV2Snapshot
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.ec2.snapshot import NetworkInterface
from modelstacks.cloud.services.elbv2.runtime import LoadBalancers
from modelstacks.cloud.services.elbv2.snapshot import ElbSnapshot
from modelstacks.cloud.services.elbv2.snapshot import Listener as BalancerListener
from modelstacks.cloud.services.iam.snapshot import IamSnapshot
from modelstacks.cloud.services.lambda_.outcome import Throttled
from modelstacks.cloud.services.lambda_.runtime import Functions
from modelstacks.cloud.services.lambda_.snapshot import LambdaSnapshot
from modelstacks.cloud.snapshot import Account

__all__ = ["ApiGateways", "listener_of"]

log = logging.getLogger("modelstacks.cloud")
BODY_LIMIT = 10 * 1024 * 1024
#: AWS's quotas for payload, and for request line and header values together. How long AWS waits for a slow
#: caller is not documented.
LIMITS = Limits(body=BODY_LIMIT, head=10_240, seconds=60.0)
LAMBDA_LIMIT = 6 * 1024 * 1024 + 100
CLOCK_SKEW = 300.0  # seconds that a signature may be old
SIGNATURE_ERRORS = {
    signatures.Fault.MISSING: "MissingAuthenticationTokenException",
    signatures.Fault.MALFORMED: "IncompleteSignatureException",
    signatures.Fault.UNSUPPORTED: "IncompleteSignatureException",
    signatures.Fault.UNKNOWN_KEY: "UnrecognizedClientException",
    signatures.Fault.TOKEN: "UnrecognizedClientException",
    signatures.Fault.TOKEN_EXPIRED: "ExpiredTokenException",
}
# Of a backend's answer; they belong to API Gateway's own connection with its caller.
REMAPPED = frozenset(
    {
        "authorization",
        "connection",
        "content-length",
        "content-md5",
        "date",
        "expect",
        "host",
        "max-forwards",
        "server",
        "user-agent",
        "www-authenticate",
    }
)
FUNCTION_URI = re.compile(
    r"arn:[\w-]+:apigateway:[\w-]+:lambda:path/[\d-]+/functions/(.+)/(?:response-streaming-)?invocations"
)
CONCURRENCY: Mapping[Throttled, str] = {
    "function": "its reserved concurrency",
    "account": "the account's concurrency",
}
ACCOUNT_THROTTLE = Throttle(10_000, 5_000)
JSON = "application/json"


class NoSuchStage(GatewayError):
    """The address leads to no deployment of the API."""


INTERNAL = "InternalServerErrorException"


def timed_out(reason: str = "") -> GatewayError:
    return GatewayError(
        504, INTERNAL, "Endpoint request timed out", reason, response_type="INTEGRATION_TIMEOUT"
    )


def broken(reason: str, status: int = 500, response_type: str = "") -> GatewayError:
    return GatewayError(status, INTERNAL, "Internal server error", reason, response_type=response_type)


@dataclass(slots=True)
class _Call:
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


class ApiGateways(Runtime):
    """Every REST API of the account."""

    needs = (LoadBalancers, Functions)

    def __init__(self, context: Context, runtimes: Runtimes) -> None:
        super().__init__(context, runtimes)
        self._balancers, self._functions = runtimes[LoadBalancers], runtimes[Functions]
        self._next_port = context.first_api_port
        self._listeners: dict[str, Listener] = {}
        self._apis: dict[str, RestApi] = {}
        self._deployed: dict[tuple[str, str], RestApi] = {}  # API and deployment -> the API as it was then
        self._meter = Meter()

    async def reconcile(self) -> None:
        """Open a port for each new API, close those of deleted ones."""
        self._apis = {one.id: one for one in self._context.account[ApiGatewaySnapshot].apis}
        self._deployed = {
            (one.id, stage.deployment_id): self._deployed.get((one.id, stage.deployment_id), one)
            for one in self._apis.values()
            for stage in one.stages.values()
        }
        for gone in self._listeners.keys() - self._apis.keys():
            await self._listeners.pop(gone).close()
        for id in self._apis.keys() - self._listeners.keys():  # noqa: A001  AWS's own word
            self._listeners[id] = await self._listen(id)

    async def _listen(self, api_id: str) -> Listener:
        async def handle(request: Request) -> Response:
            return await self._handle(api_id, request)

        port, self._next_port = self._next_port, self._next_port + 1 if self._next_port else 0
        return await listen(handle, port=port, limits=LIMITS, browsers=True)

    async def close(self) -> None:
        """Close every port."""
        await asyncio.gather(*(listener.close() for listener in self._listeners.values()))
        self._listeners.clear()

    def apis(self) -> list[api.Api]:
        """For `status`."""
        account = self._context.account
        return [
            api.Api(
                id=one.id,
                name=one.name,
                stack=account[CloudFormationSnapshot].owner(one.id),
                stage=stage.name,
                url=f"http://127.0.0.1:{self._listeners[one.id].port}/{stage.name}",
                api_keys=tuple(
                    api.ApiKey(id=key.id, name=key.name, value=key.value)
                    for key in account[ApiGatewaySnapshot].api_keys.values()
                    if any(
                        key.id in plan.key_ids and (one.id, stage.name) in plan.stages
                        for plan in account[ApiGatewaySnapshot].usage_plans
                    )
                ),
                routes=tuple(
                    api.ApiRoute(
                        method=method.http_method,
                        path=resource.path,
                        authorization="API_KEY" if method.api_key_required else _authorization(method),
                        target=self._behind(method.integration),
                    )
                    for resource in sorted(
                        self._deployed[one.id, stage.deployment_id].resources, key=lambda found: found.path
                    )
                    for method in resource.methods.values()
                ),
            )
            for one in self._apis.values()
            if one.id in self._listeners
            for stage in one.stages.values()
        ]

    def _behind(self, integration: Integration | None) -> str:
        if integration is None:
            return "nothing"
        if listener := listener_of(self._context.account, integration):
            balancers = self._context.account[ElbSnapshot].load_balancers
            return f"load balancer {balancers[listener.load_balancer_arn].name}"
        found = FUNCTION_URI.fullmatch(integration.uri)
        return f"lambda {_function_name(found[1])}" if found else integration.type

    # --- a request ------------------------------------------------------------------------------

    async def _handle(self, api_id: str, request: Request) -> Response:
        one = self._apis[api_id]
        request_id, extended_id = str(uuid4()), base64.b64encode(secrets.token_bytes(11)).decode()
        root = trace_root(request.header("x-amzn-trace-id"))
        trace = f"Root={root or f'1-{int(time.time()):08x}-{secrets.token_hex(12)}'}"
        own = [("x-amzn-RequestId", request_id), ("x-amz-apigw-id", extended_id), ("X-Amzn-Trace-Id", trace)]
        with self._context.traffic.passing(f"api {one.name}") as counter:
            try:
                call = self._route(one, request, request_id, extended_id, trace)
                await self._authorize(call)
                self._meter_use(call)
                _validate(call)
                response = await self._integrate(call)
            except NoSuchStage as error:  # no stage, and so nothing of the API's that could answer
                counter.refusals += 1
                return answer(error, {}, own, request_id)
            except GatewayError as error:
                counter.refusals += error.status < 500
                counter.errors += error.status >= 500
                error.reason = error.reason or self._context.reasons.take(trace)
                return answer(error, one.gateway_responses, own, request_id)
            except Exception:  # ours, not the caller's: it must not look like AWS's, nor show our insides
                log.exception("%s %s failed, request %s", request.method, request.path, request_id)
                counter.errors += 1
                fault = broken(f"the embedded cloud itself failed; its log has request {request_id}")
                return answer(fault, one.gateway_responses, own, request_id)
            counter.errors += response.status >= 500
            response.headers = own + response.headers
            reason = self._context.reasons.take(trace)
            if response.status >= 400 and reason:
                response.headers.append(("x-modelstacks-reason", reason))
            return response

    def _route(self, one: RestApi, request: Request, request_id: str, extended_id: str, trace: str) -> _Call:
        name, _, rest = request.path.lstrip("/").partition("/")
        stage = one.stages.get(name)
        if stage is None or not stage.deployment_id:
            raise NoSuchStage(403, "ForbiddenException", "Forbidden")
        if request.oversize:
            reason = f"the body is larger than API Gateway's {BODY_LIMIT} bytes"
            raise GatewayError(413, "RequestTooLargeException", "Request Too Long", reason)
        # A stage serves its deployment: what has changed since then is not there before the next one.
        one = self._deployed[one.id, stage.deployment_id]
        path = "/" + rest
        found = _match(one.resources, path, request.method)
        if found is None:
            reason = f"the API has no method {request.method} {path}"
            raise GatewayError(
                403, "MissingAuthenticationTokenException", "Missing Authentication Token", reason
            )
        resource, method, parameters = found
        return _Call(one, stage, resource, method, path, parameters, request, request_id, extended_id, trace)

    async def _authorize(self, call: _Call) -> None:
        if call.method.authorization == "AWS_IAM":
            await self._check_signature(call)
        elif call.method.authorization != "NONE":
            raise GatewayError(
                501, "NotImplemented", f"the embedded cloud has no {call.method.authorization} authorizer"
            )
        self._check_resource_policy(call)
        if not call.method.api_key_required:
            return
        value = call.request.header("x-api-key") or ""
        account = self._context.account
        stage = (call.api.id, call.stage.name)
        known = {
            key.id
            for key in account[ApiGatewaySnapshot].api_keys.values()
            if key.enabled and key.value == value
        }
        plan = next(
            (
                one
                for one in account[ApiGatewaySnapshot].usage_plans
                if stage in one.stages and known & one.key_ids
            ),
            None,
        )
        if not value or plan is None:
            reason = "the request has no x-api-key"
            if value:
                reason = "the key in x-api-key belongs to no usage plan of this stage, or is disabled"
            raise GatewayError(403, "ForbiddenException", "Forbidden", reason)
        call.key = account[ApiGatewaySnapshot].api_keys[next(iter(known & plan.key_ids))]

    async def _check_signature(self, call: _Call) -> None:
        context = self._context
        try:
            signed = signatures.read(call.request)
            if signed.scope.service != "execute-api":
                text = "Credential should be scoped to correct service: 'execute-api'."
                raise signatures.Refusal(signatures.Fault.SCOPE, text)
            key = await context.identities.key(signed.scope.access_key_id)
            signatures.verify(call.request, signed, key, region=context.clients.region, skew=CLOCK_SKEW)
        except signatures.Refusal as error:
            kind = SIGNATURE_ERRORS.get(error.fault, "InvalidSignatureException")
            missing = error.fault is signatures.Fault.MISSING
            text = "Missing Authentication Token" if missing else error.message
            reason = "the request is not signed, and the method asks for AWS_IAM" if missing else text
            raise GatewayError(403, kind, text, reason) from error
        if context.identities.administrator(signed.scope.access_key_id):
            return
        call.caller_arn = key.role_arn or "" if key else ""
        role = context.account[IamSnapshot].roles.get(call.caller_arn)
        if role is None:
            what = f"role {call.caller_arn} is gone" if call.caller_arn else "an IAM user's policies"
            reason = f"{what}: the embedded cloud evaluates the policies of roles"
            raise GatewayError(403, "AccessDeniedException", "Forbidden", reason)
        invoke = policies.Call("execute-api:Invoke", self._arn(call))
        refused = policies.authorize(role, invoke, account=context.account.id, resource=call.api.policy)
        if refused:
            raise GatewayError(403, "AccessDeniedException", refused.reason, refused.reason)

    def _check_resource_policy(self, call: _Call) -> None:
        if call.api.policy is None or call.method.authorization == "AWS_IAM":
            return
        anyone = policies.Principal(arn="*", account="")
        invoke = policies.Call("execute-api:Invoke", self._arn(call), {"aws:SourceIp": call.request.client})
        verdict = policies.evaluate([call.api.policy], invoke, anyone)
        if verdict.decision is not policies.Decision.ALLOW:
            arn = self._arn(call)
            text = f"User: anonymous is not authorized to perform: execute-api:Invoke on resource: {arn}"
            reason = "the API's resource policy does not allow it"
            raise GatewayError(403, "AccessDeniedException", text, reason)

    def _arn(self, call: _Call) -> str:
        account = self._context.account
        return (
            f"arn:aws:execute-api:{account.region}:{account.id}:{call.api.id}/{call.stage.name}/"
            f"{call.request.method}{call.resource.path}"
        )

    def _meter_use(self, call: _Call) -> None:
        settings = call.stage.throttles
        method_key = f"{call.resource.path.replace('/', '~1')}/{call.request.method}"
        limit = settings.get(method_key) or settings.get("*/*") or ACCOUNT_THROTTLE
        plans = [
            plan
            for plan in self._context.account[ApiGatewaySnapshot].usage_plans
            if call.key is not None
            and call.key.id in plan.key_ids
            and (call.api.id, call.stage.name) in plan.stages
        ]
        who = (call.api.id, call.stage.name)
        key = call.key.id if call.key else ""
        if not self._meter.within_rate(limit, *who, call.resource.path, call.request.method):
            reason = f"the stage allows {limit.rate:g} requests a second and {limit.burst} at once"
            raise GatewayError(429, "TooManyRequestsException", "Too Many Requests", reason)
        for plan in plans:
            if not self._meter.within_rate(plan.throttle, *who, plan.id, key):
                reason = f"usage plan {plan.id} allows the key no more requests in this second"
                raise GatewayError(429, "TooManyRequestsException", "Too Many Requests", reason)
        for plan in plans:
            if not self._meter.within_quota(plan, key):
                reason = f"usage plan {plan.id} allows the key no more requests in its period"
                raise GatewayError(429, "LimitExceededException", "Limit Exceeded", reason)

    # --- integrations ---------------------------------------------------------------------------

    async def _integrate(self, call: _Call) -> Response:
        integration = call.method.integration
        if integration is None:
            raise broken("the method has no integration")
        try:
            async with asyncio.timeout(integration.timeout_ms / 1000):
                if integration.type == "HTTP_PROXY":
                    return await self._through_load_balancer(call, integration)
                found = FUNCTION_URI.fullmatch(integration.uri)
                if integration.type == "AWS_PROXY" and found:
                    return await self._through_lambda(call, _function_name(found[1]))
        except TimeoutError as error:
            raise timed_out(f"the integration did not answer within {integration.timeout_ms} ms") from error
        raise GatewayError(
            501,
            "NotImplemented",
            f"the embedded cloud has no {integration.type} integration with {integration.uri or 'no URI'}",
        )

    async def _through_load_balancer(self, call: _Call, integration: Integration) -> Response:
        listener = listener_of(self._context.account, integration)
        if listener is None:
            raise broken(
                f"no load balancer {integration.target or integration.uri} with a listener on the port of "
                f"{integration.uri}"
            )
        self._reach(integration, listener)
        response = await self._balancers.serve(listener, _outgoing(call, integration, self._context.settings))
        headers: Headers = [
            (f"x-amzn-Remapped-{key}" if key.lower() in REMAPPED else key, value)
            for key, value in without(response.headers)
        ]
        if integration.streams:
            return Response(response.status, headers, response.body)
        body = await response.read()
        if len(body) > BODY_LIMIT:
            raise broken(f"the answer has {len(body)} bytes, API Gateway passes on {BODY_LIMIT}")
        return Response(response.status, headers, body)

    def _reach(self, integration: Integration, listener: BalancerListener) -> None:
        """Whether API Gateway gets to the load balancer: over the VPC link, or over the internet."""
        account = self._context.account
        balancer = account[ElbSnapshot].load_balancers[listener.load_balancer_arn]
        scheme = urlsplit(integration.uri).scheme
        if (scheme == "https") != (listener.protocol == "HTTPS"):
            raise broken(
                f"the URI says {scheme}, the listener on port {listener.port} speaks {listener.protocol}", 502
            )
        if integration.connection_type != "VPC_LINK":
            if balancer.scheme == "internet-facing":
                return
            raise timed_out(f"load balancer {balancer.name} is internal, and the integration has no VPC link")
        link = account[ApiGatewayV2Snapshot].vpc_links.get(integration.connection_id)
        if link is None:
            raise broken(f"VPC link {integration.connection_id} does not exist")
        source = NetworkInterface(f"vpc link {link.name}", link.subnet_ids, link.security_group_ids, index=2)
        target = NetworkInterface(
            f"load balancer {balancer.name}", balancer.subnet_ids, balancer.security_group_ids, index=1
        )
        if refused := security_groups.connect(account, source, target, listener.port):
            self._context.refuse(refused)
            raise timed_out(str(refused))

    async def _through_lambda(self, call: _Call, name: str) -> Response:
        account = self._context.account
        function = account[LambdaSnapshot].functions.get(name)
        if function is None:
            raise broken(f"lambda {name} does not exist")
        source = self._arn(call).replace(
            f"/{call.request.method}/", f"/{call.method.http_method.replace('ANY', '*')}/"
        )
        context = {"aws:SourceArn": source, "aws:SourceAccount": account.id}
        permission = policies.Call("lambda:InvokeFunction", function.arn, context)
        gateway = policies.service_principal("apigateway.amazonaws.com")
        allowed = function.policy is not None and (
            policies.evaluate([function.policy], permission, gateway).decision is policies.Decision.ALLOW
        )
        if not allowed:
            reason = (
                f"no resource policy of lambda {name} lets apigateway.amazonaws.com invoke it from {source}"
            )
            self._context.refuse(Refused(f"api {call.api.name} -> lambda {name}", reason))
            raise broken(reason)
        payload = json.dumps(_event(call, account.id)).encode()
        if len(payload) > LAMBDA_LIMIT:
            reason = f"the event has {len(payload)} bytes, Lambda takes {LAMBDA_LIMIT}"
            raise GatewayError(413, "RequestTooLargeException", "Request Too Long", reason)
        outcome = await self._functions.invoke(name, payload, call.trace)
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


def listener_of(account: Account, integration: Integration) -> BalancerListener | None:
    """The listener on the port of the integration's URI.

    The load balancer is the one that `integrationTarget` names by its ARN, or the URI's host without it.
    """
    parts = urlsplit(integration.uri)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    for listener in account[ElbSnapshot].listeners.values():
        balancer = account[ElbSnapshot].load_balancers[listener.load_balancer_arn]
        named = balancer.arn == integration.target or (
            not integration.target and balancer.dns_name.lower() == (parts.hostname or "").lower()
        )
        if named and listener.port == port:
            return listener
    return None


def _function_error(payload: bytes) -> str:
    """What a function's error says, without its stack."""
    try:
        error = json.loads(payload)
        return f"{error['errorType']}: {error['errorMessage']}"
    except (ValueError, TypeError, KeyError):
        return "it returned an error that Lambda's runtime does not write"


def _authorization(method: Method) -> Any:
    return method.authorization if method.authorization in ("NONE", "AWS_IAM") else "NONE"


def _function_name(arn: str) -> str:
    """The function's name out of an ARN, which may carry a version or an alias."""
    return arn.split(":function:")[-1].partition(":")[0]


def _match(
    resources: tuple[Resource, ...], path: str, method: str
) -> tuple[Resource, Method, dict[str, str]] | None:
    """The most specific resource that has the method: literals before {parameters} before {greedy+}."""
    wanted = [unquote(part) for part in path.strip("/").split("/")] if path != "/" else []
    best: tuple[tuple[int, ...], Resource, Method, dict[str, str]] | None = None
    for resource in resources:
        found = resource.methods.get(method) or resource.methods.get("ANY")
        pattern = [part for part in resource.path.split("/") if part]
        fit = _fit(pattern, wanted)
        if found is None or fit is None:
            continue
        rank, parameters = fit
        if best is None or rank < best[0]:
            best = (rank, resource, found, parameters)
    return best[1:] if best else None


def _fit(pattern: list[str], wanted: list[str]) -> tuple[tuple[int, ...], dict[str, str]] | None:
    rank: list[int] = []
    parameters: dict[str, str] = {}
    for index, part in enumerate(pattern):
        if part.startswith("{") and part.endswith("+}"):
            if index >= len(wanted):
                return None
            return (*rank, 2), {**parameters, part[1:-2]: "/".join(wanted[index:])}
        if index >= len(wanted):
            return None
        if part.startswith("{") and part.endswith("}"):
            parameters[part[1:-1]] = wanted[index]
            rank.append(1)
        elif part == wanted[index]:
            rank.append(0)
        else:
            return None
    return (tuple(rank), parameters) if len(pattern) == len(wanted) else None


def _validate(call: _Call) -> None:
    validator = call.method.validator
    if validator is None:
        return
    if validator.parameters:
        missing = [name for name in call.method.required_parameters if not _parameter(call, name)]
        if missing:
            names = ", ".join(name.split(".", 3)[-1] for name in missing)
            raise GatewayError(400, "BadRequestException", f"Missing required request parameters: [{names}]")
    if validator.body and call.method.models:
        _validate_body(call)


def _validate_body(call: _Call) -> None:
    import jsonschema  # most APIs have no body models

    kind = (call.request.header("content-type") or JSON).partition(";")[0].strip().lower()
    schema = call.method.models.get(kind) or call.method.models.get("$default")
    if schema is None:
        return
    try:
        jsonschema.validate(json.loads(call.request.body or b"null"), schema)
    except (ValueError, jsonschema.ValidationError) as error:
        raise GatewayError(400, "BadRequestException", "Invalid request body") from error


def _parameter(call: _Call, name: str) -> str | None:
    """The value of method.request.PLACE.NAME, context.NAME, stageVariables.NAME or a literal."""
    if name.startswith("'"):
        return name.strip("'")
    if name.startswith("stageVariables."):
        return call.stage.variables.get(name.partition(".")[2])
    if name.startswith("context."):
        known = {
            "requestId": call.id,
            "extendedRequestId": call.extended_id,
            "stage": call.stage.name,
            "apiId": call.api.id,
            "domainName": call.request.header("host") or "",
            "httpMethod": call.request.method,
            "identity.sourceIp": call.request.client,
            "path": f"/{call.stage.name}{call.path}",
        }
        return known.get(name.partition(".")[2])
    where, _, key = name.removeprefix("method.request.").partition(".")
    if where == "path":
        return call.parameters.get(key)
    if where == "header":
        return call.request.header(key.lower())
    if where == "querystring":
        return dict(parse_qsl(call.request.query, keep_blank_values=True)).get(key)
    return None


def _outgoing(call: _Call, integration: Integration, settings: api.Settings) -> Request:
    """What API Gateway sends to an HTTP integration."""
    parts = urlsplit(integration.uri)
    path = parts.path or "/"
    extra: Headers = []
    query = [call.request.query] if call.request.query else []
    for name, source in integration.parameters.items():
        value = _parameter(call, source)
        where, _, key = name.removeprefix("integration.request.").partition(".")
        if value is None:
            continue
        if where == "path":
            path = path.replace(f"{{{key}}}", quote(value, safe="")).replace(f"{{{key}+}}", quote(value))
        elif where == "header":
            extra.append((key, value))
        elif where == "querystring":
            query.append(f"{quote(key)}={quote(value)}")
    if integration.connection_type == "VPC_LINK" and settings.stage_in_path:
        path = f"/{call.stage.name}{path}"
    dropped = ["host", "x-amzn-trace-id", "expect", "content-length", *(key.lower() for key, _ in extra)]
    if call.method.authorization == "AWS_IAM":
        dropped.append("authorization")
    forwarded_for = ", ".join(filter(None, (call.request.header("x-forwarded-for"), call.request.client)))
    headers = [
        ("Host", parts.netloc),
        *without(call.request.headers, "x-forwarded-for", "x-forwarded-proto", "x-forwarded-port", *dropped),
        *extra,
        ("X-Forwarded-For", forwarded_for),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Port", "443"),
        ("X-Amzn-Trace-Id", call.trace),
        ("x-amzn-apigateway-api-id", call.api.id),
        ("Content-Length", str(len(call.request.body))),  # API Gateway sends one with a GET too
    ]
    method = call.request.method if integration.http_method == "ANY" else integration.http_method
    return Request(method, path, "&".join(query), headers, call.request.body, call.request.client)


def _is_binary(one: RestApi, content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower() or JSON
    return any(fnmatch.fnmatchcase(kind, pattern.lower()) for pattern in one.binary_media_types)


def _event(call: _Call, account: str) -> dict[str, Any]:
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
    binary = bool(request.body) and _is_binary(call.api, request.header("content-type") or "")
    body = base64.b64encode(request.body).decode() if binary else request.body.decode("utf-8", "replace")
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


def _proxy_answer(call: _Call, payload: bytes) -> Response:
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
        if _is_binary(call.api, accept) or "*/*" in call.api.binary_media_types:
            try:
                content = base64.b64decode(content, validate=True)
            except ValueError as error:
                raise malformed("body is not base64") from error
    return Response(status, headers, content)
