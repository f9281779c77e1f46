"""REST APIs of API Gateway, each on a port of this machine, with AWS's own paths: /STAGE/ROUTE.

A request goes through what a deployed API would do with it, in the same order and with the same answers:
stage, route, authorization, API key, usage plan, validation, integration. Where a rule of the network stops
it, the body and the header `x-modelstacks-reason` say which, beside the answer that AWS gives.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import time
from typing import Any
from uuid import uuid4

from modelstacks.cloud import api
from modelstacks.cloud.context import Context
from modelstacks.cloud.host.listener import Limits, Listener, listen
from modelstacks.cloud.host.wire import Request, Response
from modelstacks.cloud.network.reasons import trace_root
from modelstacks.cloud.runtime import Runtime, Runtimes
from modelstacks.cloud.services.apigateway.call import BODY_LIMIT, Call
from modelstacks.cloud.services.apigateway.gatekeeper import Gatekeeper
from modelstacks.cloud.services.apigateway.gateway_responses import (
    GatewayError,
    NoSuchStage,
    answer,
    broken,
    timed_out,
)
from modelstacks.cloud.services.apigateway.http_integration import listener_of, through_load_balancer
from modelstacks.cloud.services.apigateway.lambda_integration import function_of, through_lambda
from modelstacks.cloud.services.apigateway.matching import match
from modelstacks.cloud.services.apigateway.snapshot import (
    ApiGatewaySnapshot,
    Integration,
    Method,
    RestApi,
)
from modelstacks.cloud.services.apigateway.validation import validate
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.elbv2.runtime import LoadBalancers
from modelstacks.cloud.services.elbv2.snapshot import ElbSnapshot
from modelstacks.cloud.services.lambda_.runtime import Functions
from modelstacks.cloud.snapshot import Account

__all__ = ["ApiGateways"]

log = logging.getLogger("modelstacks.cloud")

#: AWS's quotas for payload, and for request line and header values together. How long AWS waits for a slow
#: caller is not documented.
LIMITS = Limits(body=BODY_LIMIT, head=10_240, seconds=60.0)


class ApiGateways(Runtime):
    """Every REST API of the account."""

    needs = (LoadBalancers, Functions)

    def __init__(self, context: Context, runtimes: Runtimes) -> None:
        super().__init__(context, runtimes)
        self._balancers, self._functions = runtimes[LoadBalancers], runtimes[Functions]
        self._next_port = context.first_api_port
        self._listeners: dict[str, Listener] = {}
        self._account: Account | None = None  # what was followed last
        self._apis: dict[str, RestApi] = {}
        self._deployed: dict[tuple[str, str], RestApi] = {}  # API and deployment -> the API as it was then
        self._gatekeeper = Gatekeeper(context)

    def _follow_account(self) -> None:
        """Serve the stages of the account from the moment at which the other runtimes see it."""
        account = self._context.account
        if account is self._account:
            return
        self._account = account
        self._apis = {one.id: one for one in account[ApiGatewaySnapshot].apis}
        self._deployed = {
            (one.id, stage.deployment_id): self._deployed.get((one.id, stage.deployment_id), one)
            for one in self._apis.values()
            for stage in one.stages.values()
        }

    async def reconcile(self) -> None:
        """Open a port for each new API, close those of deleted ones."""
        self._follow_account()
        for gone in self._listeners.keys() - self._apis.keys():
            await self._listeners.pop(gone).close()
        for id in self._apis.keys() - self._listeners.keys():
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
        name = function_of(integration)
        return integration.type if name is None else f"lambda {name}"

    # --- a request ------------------------------------------------------------------------------

    async def _handle(self, api_id: str, request: Request) -> Response:
        self._follow_account()
        request_id, extended_id = str(uuid4()), base64.b64encode(secrets.token_bytes(11)).decode()
        root = trace_root(request.header("x-amzn-trace-id"))
        trace = f"Root={root or f'1-{int(time.time()):08x}-{secrets.token_hex(12)}'}"
        one = self._apis.get(api_id)
        if one is None:  # deleted; its port is closed in a moment
            return answer(NoSuchStage(403, "ForbiddenException", "Forbidden"), {}, [], request_id)
        own = [("x-amzn-RequestId", request_id), ("x-amz-apigw-id", extended_id), ("X-Amzn-Trace-Id", trace)]
        with self._context.traffic.passing(f"api {one.name}") as counter:
            try:
                call = self._route(one, request, request_id, extended_id, trace)
                await self._gatekeeper.authorize(call)
                self._gatekeeper.meter(call)
                validate(call)
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

    def _route(self, one: RestApi, request: Request, request_id: str, extended_id: str, trace: str) -> Call:
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
        found = match(one.resources, path, request.method)
        if found is None:
            reason = f"the API has no method {request.method} {path}"
            raise GatewayError(
                403, "MissingAuthenticationTokenException", "Missing Authentication Token", reason
            )
        resource, method, parameters = found
        return Call(one, stage, resource, method, path, parameters, request, request_id, extended_id, trace)

    # --- integrations ---------------------------------------------------------------------------

    async def _integrate(self, call: Call) -> Response:
        integration = call.method.integration
        if integration is None:
            raise broken("the method has no integration")
        try:
            async with asyncio.timeout(integration.timeout_ms / 1000):
                if integration.type == "HTTP_PROXY":
                    return await through_load_balancer(self._context, self._balancers, call, integration)
                name = function_of(integration)
                if integration.type == "AWS_PROXY" and name is not None:
                    return await through_lambda(self._context, self._functions, call, integration, name)
        except TimeoutError as error:
            raise timed_out(f"the integration did not answer within {integration.timeout_ms} ms") from error
        raise GatewayError(
            501,
            "NotImplemented",
            f"the embedded cloud has no {integration.type} integration with {integration.uri or 'no URI'}",
        )


def _authorization(method: Method) -> Any:
    return method.authorization if method.authorization in ("NONE", "AWS_IAM") else "NONE"
