"""The network interface through which a container or a Lambda calls AWS.

Every workload has a listener of its own, its AWS_ENDPOINT_URL. A call goes through the hops that it would
go through in AWS and then on to the control plane, or, for SageMaker's runtime, to the replicas. What AWS
would let time out is answered at once, naming the rule that is missing. Here and at the front door, a call is
looked at only after its signature has been verified.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable
from functools import partial

from modelstacks.cloud.account import signatures
from modelstacks.cloud.account.aws_errors import refusal, signature_refusal
from modelstacks.cloud.account.client import OPEN_PATH
from modelstacks.cloud.account.signatures import Scope
from modelstacks.cloud.context import Context
from modelstacks.cloud.host.listener import Listener, listen
from modelstacks.cloud.host.wire import Request, Response
from modelstacks.cloud.network import Refused
from modelstacks.cloud.network.calls import ApiCall, Caller, calls_of, describe, may_call
from modelstacks.cloud.network.identities import Issued
from modelstacks.cloud.runtime import Runtimes

__all__ = ["FrontDoor", "Gateway", "refuse"]

CREDENTIALS_PATH = "/v2/credentials/"
LARGE_BODY = 1 << 20  # bytes; hashing more than that would hold up the loop


class Gateway:
    """One workload's way to AWS."""

    def __init__(self, context: Context, runtimes: Runtimes, caller: Caller) -> None:
        self._context, self._runtimes = context, runtimes
        self.caller = caller
        self._listener: Listener | None = None
        self._token = secrets.token_urlsafe(24)
        self._credentials: Issued | None = None

    async def open(self) -> None:
        """Listen on a free port, with the role's credentials at hand."""
        self._listener = await listen(self._handle)
        if self.caller.role_arn:
            self._credentials = await self._context.identities.issue(
                self.caller.role_arn, self.caller.what.replace(" ", "-")
            )

    async def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            await self._listener.close()

    @property
    def url(self) -> str:
        """The workload's AWS_ENDPOINT_URL."""
        assert self._listener is not None
        return f"http://127.0.0.1:{self._listener.port}"

    @property
    def credentials(self) -> Issued | None:
        """The role's credentials; None without a role."""
        return self._credentials

    def environment(self) -> dict[str, str]:
        """What points an AWS SDK at this gateway; boto3 takes path-style S3 addresses for an IP address."""
        region = self._context.account.region
        return {"AWS_ENDPOINT_URL": self.url, "AWS_REGION": region, "AWS_DEFAULT_REGION": region,
                "AWS_EC2_METADATA_DISABLED": "true"}  # fmt: skip

    def container_credentials(self) -> dict[str, str]:
        """The variables through which ECS hands a task its role's credentials."""
        if self._credentials is None:
            return {}
        where = f"{self.url}{CREDENTIALS_PATH}{self._credentials.access_key_id}"
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": where,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": self._token,
        }

    async def _handle(self, request: Request) -> Response:
        if request.path.startswith(CREDENTIALS_PATH):
            return self._give_credentials(request)
        response = await self._runtimes.receive(request, self.caller) or await self._call(request)
        trace, reason = request.header("x-amzn-trace-id"), response.header("x-modelstacks-reason")
        self._context.reasons.note(trace, reason)
        return response

    async def _call(self, request: Request) -> Response:
        with self._context.traffic.passing(f"{self.caller.what} -> aws") as counter:
            scope = await _signed_by(self._context, request)
            if isinstance(scope, Response):
                counter.refusals += 1
                return scope
            call = describe(scope.service, request, self._context.account)
            if call is None:
                return refuse(
                    self._context,
                    scope.service,
                    Refused(
                        f"{self.caller.what} -> {scope.service}",
                        f"the embedded cloud cannot tell which {scope.service} action {request.method} "
                        f"{request.path} is, so it cannot check the permission for it",
                    ),
                )
            if refused := self._check(scope, call):
                counter.refusals += 1
                return refuse(self._context, scope.service, refused)
            response = await self._forward(request, call)
            if response.status >= 500:
                counter.errors += 1
            return response

    def _check(self, scope: Scope, call: ApiCall) -> Refused | None:
        issued = self._context.identities.issued(scope.access_key_id)
        if issued is None or issued.role_arn != self.caller.role_arn:
            return Refused(
                f"{self.caller.what} -> {call.network_service}",
                f"the access key {scope.access_key_id} is not one of {self.caller.what}'s role's",
            )
        return may_call(self._context.account, self.caller, call)

    async def _forward(self, request: Request, call: ApiCall) -> Response:
        if (answered := await self._runtimes.answer(request, call.service)) is not None:
            return answered
        response = await self._context.control_plane.send(request)
        on_behalf = calls_of(call.service).on_behalf
        further = on_behalf(call, response, self._context.account) if on_behalf is not None else None
        if further is not None:
            # The service asks: neither the caller's route nor the endpoint's policy is in its way.
            elsewhere = Caller(self.caller.what, self.caller.role_arn)
            if refused := may_call(self._context.account, elsewhere, further):
                await response.read()
                return refuse(self._context, call.service, refused)
        return response

    def _give_credentials(self, request: Request) -> Response:
        given = self._credentials
        presented = (request.header("authorization") or "").encode()
        if given is None or not hmac.compare_digest(presented, self._token.encode()):
            return Response(401, [("content-type", "application/json")], b'{"message":"unauthorized"}')
        body = {
            "RoleArn": given.role_arn,
            "AccessKeyId": given.access_key_id,
            "SecretAccessKey": given.secret_access_key,
            "Token": given.session_token,
            "Expiration": given.expires,
        }
        return Response(200, [("content-type", "application/json")], json.dumps(body).encode())


def refuse(context: Context, service: str, refused: Refused) -> Response:
    """Keep a refusal for `status`, and answer it as the SDK of the caller understands it."""
    context.refuse(refused)
    if refused.kind == "network":
        return refusal(service, "ConnectTimeout", str(refused), 400)  # 400: an SDK would retry a 5xx
    return refusal(service, "AccessDenied", refused.reason, 403)


class FrontDoor:
    """The account's public endpoint, for whoever holds the administrator's keys: the CDK CLI, an SDK, a test.

    Everything goes to the control plane, except what a service's runtime answers itself, as SageMaker's does
    for the invocation of an endpoint.
    """

    def __init__(self, context: Context, runtimes: Runtimes) -> None:
        self._context, self._runtimes = context, runtimes

    async def handle(self, request: Request) -> Response:
        """Serve one API call. Nothing happens to a request whose signature does not hold."""
        if request.path.startswith(OPEN_PATH) and request.method == "GET":  # its path is the secret
            return await self._context.control_plane.send(request)
        scope = await _signed_by(self._context, request)
        if isinstance(scope, Response):
            return scope
        if refused := self._beyond_its_role(request, scope):
            return refused
        answered = await self._runtimes.answer(request, scope.service)
        return answered if answered is not None else await self._context.control_plane.send(request)

    def _beyond_its_role(self, request: Request, scope: Scope) -> Response | None:
        """A workload's own keys can do here what its role allows, as they could from anywhere in AWS."""
        issued = self._context.identities.issued(scope.access_key_id)
        if issued is None:
            return None
        caller = Caller(f"role {issued.role_arn}", issued.role_arn)
        call = describe(scope.service, request, self._context.account)
        refused = (
            Refused(caller.what, f"the embedded cloud cannot tell which action {request.path} is")
            if call is None
            else may_call(self._context.account, caller, call)
        )
        if refused is None:
            return None
        self._context.refuse(refused)
        return refusal(scope.service, "AccessDenied", refused.reason, 403)


async def _signed_by(context: Context, request: Request) -> Scope | Response:
    """The scope of a signature that holds; else the answer that AWS gives to one that does not."""
    service = ""
    try:
        signed = signatures.read(request)
        service = signed.scope.service
        if request.path.startswith("/_modelstacks/") or service == "execute-api":
            text = f"Credential should be scoped to the service that serves {request.path}"
            raise signatures.Refusal(signatures.Fault.SCOPE, text)
        key = await context.identities.key(signed.scope.access_key_id)
        check = partial(signatures.verify, request, signed, key, region=context.clients.region)
        await (context.blocking(check) if len(request.body) > LARGE_BODY else _now(check))
    except signatures.Refusal as refused:
        return signature_refusal(request, service, refused)
    return signed.scope


async def _now(work: Callable[[], None]) -> None:
    work()
