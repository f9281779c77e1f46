"""API Gateway: APIs that remember their media types, integrations their connection; logging needs a role."""

from __future__ import annotations

import json
import re
from typing import Any

from moto.apigateway.exceptions import BadRequestException
from moto.apigateway.models import Integration, UsagePlan
from moto.apigateway.responses import APIGatewayResponse
from moto.apigatewayv2.models import apigatewayv2_backends
from moto.iam.models import iam_backends

from modelstacks.cloud.account.additions import Additions
from modelstacks.cloud.account.patching import afterwards, beforehand
from modelstacks.cloud.services.iam.permissions import denied_to_role, denied_to_service

#: PutIntegration's members that moto drops.
_KEPT = ("connectionId", "integrationTarget", "responseTransferMode")

#: An integration's shortest and longest timeout in milliseconds: the quota that an account starts with, and
#: what the streaming of responses allows.
_TIMEOUT = (50, 29_000)
_STREAMING_TIMEOUT = (50, 900_000)

#: What a private integration sends to: a load balancer, not one of its listeners.
_LOAD_BALANCER = re.compile(
    r"arn:[\w-]+:elasticloadbalancing:[\w-]+:\d{12}:loadbalancer/(?:app|net)/[\w-]+/[0-9a-z]+"
)

#: What AmazonAPIGatewayPushToCloudWatchLogs allows, and API Gateway needs to write.
_LOGGING = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")


def _install() -> None:
    """Change moto's API Gateway."""
    _check_logging()
    to_json = Integration.to_json

    def complete(self: Integration) -> dict[str, Any]:
        # AWS's defaults of an integration: 29 s and a cache namespace of its own.
        return {"timeoutInMillis": 29_000} | {
            k: v for k, v in {**to_json(self), **getattr(self, "kept", {})}.items() if v is not None
        }

    Integration.to_json = complete

    @beforehand(APIGatewayResponse, "put_integration")
    def check_timeout(self: Any) -> None:
        streams = self._get_param("responseTransferMode") == "STREAM"
        least, most = _STREAMING_TIMEOUT if streams else _TIMEOUT
        timeout = self._get_param("timeoutInMillis")
        if timeout is not None and not least <= int(timeout) <= most:
            raise BadRequestException(f"Timeout should be between {least} ms and {most} ms")
        _check_target(self)

    @afterwards(APIGatewayResponse, "put_integration")
    def keep_connection(self: Any, _answer: Any) -> Any:
        _, _, api, _, resource, _, method, *_ = self.path.split("/")
        integration = self.backend.get_integration(api, resource, method)
        integration.kept = {
            name: self._get_param(name) for name in _KEPT if self._get_param(name) is not None
        }
        integration.cache_key_parameters = self._get_param("cacheKeyParameters") or []
        return 201, {"status": 201}, json.dumps(integration.to_json())

    @afterwards(APIGatewayResponse, "create_rest_api")
    def keep_media_types(self: Any, answer: Any) -> Any:
        if answer[0] == 200 and (types := self._get_param("binaryMediaTypes")):
            api = self.backend.get_rest_api(json.loads(answer[2])["id"])
            api.binaryMediaTypes = types
            return *answer[:2], json.dumps(api.to_dict())
        return answer

    UsagePlan.apply_patch_operations = _patch_usage_plan


def _check_target(response: Any) -> None:
    """Raise what PutIntegration raises for a private integration without a load balancer to send to."""
    links = apigatewayv2_backends[response.current_account][response.region].vpc_links
    target = response._get_param("integrationTarget")
    if not target:
        if response._get_param("connectionId") in links:
            raise BadRequestException("IntegrationTarget is required for VpcLinkV2")
    elif not _LOAD_BALANCER.fullmatch(target):
        raise BadRequestException(f"{target} is not a valid ALB or NLB arn")


def _check_logging() -> None:
    """The role with which an account's APIs write logs: who may be it, and what needs it."""

    @beforehand(APIGatewayResponse, "update_account")
    def check_role(self: Any) -> None:
        for operation in self._get_param("patchOperations") or []:
            if operation["path"] == "/cloudwatchRoleArn" and operation.get("value"):
                _check_logging_role(operation["value"], self.current_account, self.region)

    @beforehand(APIGatewayResponse, "update_stage")
    def check_account(self: Any) -> None:
        operations = self._get_param("patchOperations") or []
        if any(map(_turns_logging_on, operations)) and not self.backend.get_account().cloudwatch_role_arn:
            raise BadRequestException(
                "CloudWatch Logs role ARN must be set in account settings to enable logging"
            )


def _turns_logging_on(operation: dict[str, Any]) -> bool:
    path, value = operation["path"], str(operation.get("value", ""))
    if operation["op"] == "remove":
        return False
    if path == "/accessLogSettings/destinationArn":
        return ":logs:" in value  # Firehose, the other destination, is reached without the role
    return (path.endswith("/logging/loglevel") and value in ("ERROR", "INFO")) or (
        path.endswith("/logging/dataTrace") and value == "true"
    )


def _check_logging_role(arn: str, account: str, region: str) -> None:
    """Raise what UpdateAccount raises for a role that API Gateway cannot write logs with."""
    role = next((role for role in iam_backends[account]["aws"].get_roles() if role.arn == arn), None)
    missing = f"{arn} does not exist"
    if role is not None:
        source = f"arn:aws:apigateway:{region}::/account"
        context = {"aws:SourceArn": source, "aws:SourceAccount": account, "aws:SecureTransport": "true"}
        trust, service = role.assume_role_policy_document, "apigateway.amazonaws.com"
        policies = [*role.policies.values(), *(one.document for one in role.managed_policies.values())]
        streams = (
            f"arn:aws:logs:{region}:{account}:log-group:API-Gateway-Execution-Logs_any/any:log-stream:any"
        )
        if denied_to_service(trust, service, ["sts:AssumeRole"], arn, context):
            missing = f"its trust policy does not let {service} assume it"
        elif denied := denied_to_role(policies, _LOGGING, streams):
            missing = f"its policies do not allow {', '.join(denied)}"
        else:
            return
    raise BadRequestException(
        "The role ARN does not have required permissions configured. Please grant trust permission for API "
        f"Gateway and add the required role policy. ({missing})"
    )


def _patch_usage_plan(self: UsagePlan, operations: list[dict[str, Any]]) -> None:
    """UpdateUsagePlan. moto finds a stage only where it has no throttle of its own, and rounds rates."""
    for operation in operations:
        _, part, *member = operation["path"].split("/")
        value = operation.get("value", "")
        if part == "apiStages":
            api, _, stage = value.partition(":")
            kept = [one for one in self.api_stages if (one["apiId"], one["stage"]) != (api, stage)]
            self.api_stages = [*kept, {"apiId": api, "stage": stage}] if operation["op"] == "add" else kept
        elif part in ("throttle", "quota"):
            limits = getattr(self, part)
            if operation["op"] == "remove":
                limits.clear()
            else:
                kinds: dict[str, Any] = {"rateLimit": float, "burstLimit": int, "limit": int, "offset": int}
                limits[member[0]] = kinds.get(member[0], str)(value)
        elif part in ("name", "description", "productCode"):
            setattr(self, "product_code" if part == "productCode" else part, value or None)


ADDITIONS = Additions(install=_install)
