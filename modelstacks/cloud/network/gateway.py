"""The network interface through which a container or a Lambda calls AWS.

Every workload has a listener of its own, its AWS_ENDPOINT_URL. A call goes through the hops that it would
go through in AWS and then on to the control plane, or, for SageMaker's runtime, to the replicas. What AWS
would let time out is answered at once, naming the rule that is missing. Here and at the front door, a call is
looked at only after its signature has been verified.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Callable
from functools import partial
from urllib.parse import unquote

from modelstacks.cloud.account import signatures
from modelstacks.cloud.account.aws_errors import refusal, signature_refusal
from modelstacks.cloud.account.client import OPEN_PATH
from modelstacks.cloud.account.signatures import Scope
from modelstacks.cloud.context import Context, Issued
from modelstacks.cloud.host.wire import ConnectionLost, Listener, Request, Response, listen, without
from modelstacks.cloud.network import Refused
from modelstacks.cloud.network.calls import ApiCall, Caller, decrypt_call, describe, may_call
from modelstacks.cloud.services.lambda_.snapshot import LambdaSnapshot

__all__ = ["RESPONSE_PATH", "FrontDoor", "Gateway"]

CREDENTIALS_PATH = "/v2/credentials/"
RESPONSE_PATH = "/custom-resource-response/"
LONGEST_RESPONSE = 4096  # bytes, as CloudFormation takes them
INVOCATION = re.compile(r"/endpoints/([^/]+)/invocations")
FUNCTION_INVOCATION = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")
LARGE_BODY = 1 << 20  # bytes; hashing more than that would hold up the loop


class Gateway:
    """One workload's way to AWS."""

    def __init__(self, context: Context, caller: Caller) -> None:
        self._context = context
        self.caller = caller
        self._listener: Listener | None = None
        self._token = secrets.token_urlsafe(24)
        self._credentials: Issued | None = None

    async def open(self) -> None:
        """Listen on a free port, with the role's credentials at hand."""
        self._listener = await listen(self._handle)
        if self.caller.role_arn:
            self._credentials = await self._context.issue(
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
        if request.path.startswith(RESPONSE_PATH):
            return self._take_response(request)
        response = await self._call(request)
        trace, reason = request.header("x-amzn-trace-id"), response.header("x-modelstacks-reason")
        self._context.reasons.note(trace, reason)
        return response

    async def _call(self, request: Request) -> Response:
        with self._context.traffic.passing(f"{self.caller.what} -> aws") as counter:
            scope = await _signed_by(self._context, request)
            if isinstance(scope, Response):
                counter.refusals += 1
                return scope
            call = _describe(self._context, request, scope)
            if call is None:
                return self._refuse(
                    scope.service,
                    Refused(
                        f"{self.caller.what} -> {scope.service}",
                        f"the embedded cloud cannot tell which {scope.service} action {request.method} "
                        f"{request.path} is, so it cannot check the permission for it",
                    ),
                )
            if refused := self._check(scope, call):
                counter.refusals += 1
                return self._refuse(scope.service, refused)
            response = await self._forward(request, call)
            if response.status >= 500:
                counter.errors += 1
            return response

    def _check(self, scope: Scope, call: ApiCall) -> Refused | None:
        issued = self._context.issued(scope.access_key_id)
        if issued is None or issued.role_arn != self.caller.role_arn:
            return Refused(
                f"{self.caller.what} -> {call.network_service}",
                f"the access key {scope.access_key_id} is not one of {self.caller.what}'s role's",
            )
        return may_call(self._context.account, self.caller, call)

    async def _forward(self, request: Request, call: ApiCall) -> Response:
        invocation = INVOCATION.fullmatch(request.path)
        if call.network_service == "sagemaker.runtime" and invocation:
            return await self._context.invoke_endpoint(request, invocation[1])
        response = await to_control_plane(self._context, request)
        key = response.header("x-amz-server-side-encryption-aws-kms-key-id")
        if call.action in ("s3:GetObject", "s3:GetObjectVersion") and key and response.status < 300:
            decrypt = decrypt_call(self._context.account, key)
            # S3 asks KMS on the caller's behalf: neither the caller's route nor the endpoint's policy is in
            # its way.
            elsewhere = Caller(self.caller.what, self.caller.role_arn)
            if refused := may_call(self._context.account, elsewhere, decrypt):
                await response.read()
                return self._refuse("s3", refused)
        return response

    def _refuse(self, service: str, refused: Refused) -> Response:
        self._context.refuse(refused)
        if (
            "no route" in refused.reason
            or "security group" in refused.reason
            or "isolation" in refused.reason
        ):
            return refusal(service, "ConnectTimeout", str(refused), 400)  # 400: an SDK would retry a 5xx
        return refusal(service, "AccessDenied", refused.reason, 403)

    def _take_response(self, request: Request) -> Response:
        """What a custom resource's function tells CloudFormation, at a URL that only it was given."""
        bucket = ApiCall(
            "s3", "s3", "", "*"
        )  # where the URL leads in AWS; its signature is all the permission
        if refused := may_call(self._context.account, self.caller, bucket):
            return self._refuse("s3", refused)
        waiting = self._context.responses.get(request.path.removeprefix(RESPONSE_PATH))
        if request.method != "PUT" or waiting is None or waiting.done():
            return refusal("s3", "AccessDenied", "Access Denied", 403)
        if len(request.body) > LONGEST_RESPONSE:
            return refusal(
                "s3", "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size", 400
            )
        waiting.set_result(request.body)
        return Response(200, [])

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


class FrontDoor:
    """The account's public endpoint, for whoever holds the administrator's keys: the CDK CLI, an SDK, a test.

    Everything goes to the control plane, except what the data plane itself serves: SageMaker's runtime and
    the invocation of functions.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def handle(self, request: Request) -> Response:
        """Serve one API call. Nothing happens to a request whose signature does not hold."""
        if request.path.startswith(OPEN_PATH) and request.method == "GET":  # its path is the secret
            return await to_control_plane(self._context, request)
        scope = await _signed_by(self._context, request)
        if isinstance(scope, Response):
            return scope
        if refused := self._beyond_its_role(request, scope):
            return refused
        if scope.service == "sagemaker" and request.path.startswith("/endpoints/"):
            invocation = INVOCATION.fullmatch(request.path)
            if invocation is None:
                return refusal(
                    "sagemaker",
                    "ValidationError",
                    f"the embedded cloud serves InvokeEndpoint, not {request.path}",
                    400,
                )
            return await self._context.invoke_endpoint(request, invocation[1])
        function = FUNCTION_INVOCATION.fullmatch(request.path)
        if function and request.method == "POST":
            return await self._invoke_function(request, unquote(function[1]))
        return await to_control_plane(self._context, request)

    def _beyond_its_role(self, request: Request, scope: Scope) -> Response | None:
        """A workload's own keys can do here what its role allows, as they could from anywhere in AWS."""
        issued = self._context.issued(scope.access_key_id)
        if issued is None:
            return None
        caller = Caller(f"role {issued.role_arn}", issued.role_arn)
        call = _describe(self._context, request, scope)
        refused = (
            Refused(caller.what, f"the embedded cloud cannot tell which action {request.path} is")
            if call is None
            else may_call(self._context.account, caller, call)
        )
        if refused is None:
            return None
        self._context.refuse(refused)
        return refusal(scope.service, "AccessDenied", refused.reason, 403)

    async def _invoke_function(self, request: Request, name: str) -> Response:
        """Lambda's Invoke, of the synchronous kind."""
        kind = request.header("x-amz-invocation-type") or "RequestResponse"
        if kind != "RequestResponse":
            text = f"the embedded cloud invokes functions with RequestResponse, not {kind}"
            return refusal("lambda", "InvalidParameterValueException", text, 400)
        name = name.split(":function:")[-1].partition(":")[0]
        if name not in self._context.account[LambdaSnapshot].functions:
            region, account = self._context.account.region, self._context.account.id
            text = f"Function not found: arn:aws:lambda:{region}:{account}:function:{name}"
            return refusal("lambda", "ResourceNotFoundException", text, 404)
        outcome = await self._context.invoke_function(name, request.body)
        if outcome.throttled:
            return refusal("lambda", "TooManyRequestsException", "Rate Exceeded.", 429)
        headers = [("content-type", "application/json"), ("x-amz-executed-version", "$LATEST")]
        headers += [("x-amz-function-error", "Unhandled")] if outcome.error else []
        return Response(200, headers, outcome.payload)


async def _signed_by(context: Context, request: Request) -> Scope | Response:
    """The scope of a signature that holds; else the answer that AWS gives to one that does not."""
    service = ""
    try:
        signed = signatures.read(request)
        service = signed.scope.service
        if request.path.startswith("/_modelstacks/") or service == "execute-api":
            text = f"Credential should be scoped to the service that serves {request.path}"
            raise signatures.Refusal(signatures.Fault.SCOPE, text)
        key = await context.access_key(signed.scope.access_key_id)
        check = partial(signatures.verify, request, signed, key, region=context.clients.region)
        await (context.blocking(check) if len(request.body) > LARGE_BODY else _now(check))
    except signatures.Refusal as refused:
        return signature_refusal(request, service, refused)
    return signed.scope


async def _now(work: Callable[[], None]) -> None:
    work()


def _describe(context: Context, request: Request, scope: Scope) -> ApiCall | None:
    headers = {key.lower(): value for key, value in request.headers}
    return describe(
        scope.service,
        request.method,
        request.path,
        request.query,
        headers,
        request.body,
        context.account,
    )


async def to_control_plane(context: Context, request: Request) -> Response:
    """Hand a call on to moto, which reads S3's bucket from a host name in front of localhost."""
    host = (request.header("host") or "localhost").replace("127.0.0.1", "localhost")
    headers = [("host", host), *without(request.headers, "host", "expect")]
    forwarded = Request(request.method, request.path, request.query, headers, request.body)
    try:
        response = await context.pool.send(forwarded, 0, host=str(context.control_plane), timeout=300)
    except (ConnectionLost, TimeoutError) as error:
        return refusal("s3", "ServiceUnavailable", f"the control plane does not answer: {error}", 503)
    # A bucket's CORS rules are for browsers, and no browser has business here.
    response.headers = [one for one in response.headers if not one[0].lower().startswith("access-control-")]
    return response
