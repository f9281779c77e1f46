"""Who may call a REST API, and how often."""

from __future__ import annotations

from modelstacks.cloud.account import signatures
from modelstacks.cloud.context import Context
from modelstacks.cloud.network import policies
from modelstacks.cloud.services.apigateway.call import Call
from modelstacks.cloud.services.apigateway.gateway_responses import GatewayError
from modelstacks.cloud.services.apigateway.snapshot import ApiGatewaySnapshot, Throttle
from modelstacks.cloud.services.apigateway.usage import Meter
from modelstacks.cloud.services.iam.snapshot import IamSnapshot

__all__ = ["Gatekeeper"]

CLOCK_SKEW = 300.0  # seconds that a signature may be old
SIGNATURE_ERRORS = {
    signatures.Fault.MISSING: "MissingAuthenticationTokenException",
    signatures.Fault.MALFORMED: "IncompleteSignatureException",
    signatures.Fault.UNSUPPORTED: "IncompleteSignatureException",
    signatures.Fault.UNKNOWN_KEY: "UnrecognizedClientException",
    signatures.Fault.TOKEN: "UnrecognizedClientException",
    signatures.Fault.TOKEN_EXPIRED: "ExpiredTokenException",
}
ACCOUNT_THROTTLE = Throttle(10_000, 5_000)


class Gatekeeper:
    """Lets a request in, or not: signature, resource policy, API key, throttles and quotas."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._meter = Meter()

    async def authorize(self, call: Call) -> None:
        """Check who calls. Raises GatewayError."""
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

    async def _check_signature(self, call: Call) -> None:
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
        invoke = policies.Call("execute-api:Invoke", call.arn(context.account))
        refused = policies.authorize(role, invoke, account=context.account.id, resource=call.api.policy)
        if refused:
            raise GatewayError(403, "AccessDeniedException", refused.reason, refused.reason)

    def _check_resource_policy(self, call: Call) -> None:
        if call.api.policy is None or call.method.authorization == "AWS_IAM":
            return
        anyone = policies.Principal(arn="*", account="")
        invoke = policies.Call(
            "execute-api:Invoke", call.arn(self._context.account), {"aws:SourceIp": call.request.client}
        )
        verdict = policies.evaluate([call.api.policy], invoke, anyone)
        if verdict.decision is not policies.Decision.ALLOW:
            arn = call.arn(self._context.account)
            text = f"User: anonymous is not authorized to perform: execute-api:Invoke on resource: {arn}"
            reason = "the API's resource policy does not allow it"
            raise GatewayError(403, "AccessDeniedException", text, reason)

    def meter(self, call: Call) -> None:
        """Count a request. Raises GatewayError where it is one too many."""
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
                reason = f"usage plan {plan.name} allows the key no more requests in this second"
                raise GatewayError(429, "TooManyRequestsException", "Too Many Requests", reason)
        for plan in plans:
            if not self._meter.within_quota(plan, key):
                reason = f"usage plan {plan.name} allows the key no more requests in its period"
                raise GatewayError(429, "LimitExceededException", "Limit Exceeded", reason)
