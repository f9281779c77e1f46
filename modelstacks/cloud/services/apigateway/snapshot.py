"""API Gateway (REST APIs) as it is read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.services.apigatewayv2.snapshot import ApiGatewayV2Snapshot
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.elbv2.snapshot import ElbSnapshot
from modelstacks.cloud.services.iam.snapshot import IamSnapshot, Policy, policy_of
from modelstacks.cloud.snapshot import Snapshot, at_once, each, unless_absent

__all__ = [
    "ApiGatewaySnapshot",
    "ApiKey",
    "GatewayResponse",
    "Integration",
    "Method",
    "RequestValidator",
    "Resource",
    "RestApi",
    "Stage",
    "Throttle",
    "UsagePlan",
]


@dataclass(frozen=True, slots=True)
class Integration:
    """What a method does. `parameters` maps integration.request.* to method.request.* or 'a literal'."""

    type: str  # AWS_PROXY | HTTP_PROXY | HTTP | AWS | MOCK
    http_method: str
    uri: str
    connection_type: str
    connection_id: str
    target: str  # integrationTarget: a load balancer's ARN
    parameters: Mapping[str, str]
    timeout_ms: int
    streams: bool
    credentials: str
    content_handling: str


@dataclass(frozen=True, slots=True)
class RequestValidator:
    body: bool
    parameters: bool


@dataclass(frozen=True, slots=True)
class Method:
    http_method: str
    authorization: str  # NONE | AWS_IAM | ...
    api_key_required: bool
    validator: RequestValidator | None
    required_parameters: tuple[str, ...]  # "method.request.header.Content-Type"
    models: Mapping[str, Mapping[str, Any]]  # content type -> JSON schema
    integration: Integration | None


@dataclass(frozen=True, slots=True)
class Resource:
    id: str
    path: str
    methods: Mapping[str, Method]


@dataclass(frozen=True, slots=True)
class Throttle:
    """Requests a second, and the size of the bucket."""

    rate: float
    burst: int


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    deployment_id: str
    variables: Mapping[str, str]
    throttles: Mapping[str, Throttle]  # "*/*" or "~1invocations/POST" -> limits


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: str
    name: str
    value: str
    enabled: bool


@dataclass(frozen=True, slots=True)
class UsagePlan:
    id: str
    name: str
    stages: frozenset[tuple[str, str]]  # (API id, stage name)
    key_ids: frozenset[str]
    throttle: Throttle | None
    quota: int | None
    period: str  # DAY | WEEK | MONTH


@dataclass(frozen=True, slots=True)
class GatewayResponse:
    status: int | None  # None keeps the error's own
    parameters: Mapping[str, str]  # "gatewayresponse.header.Retry-After" -> "'1'" or "context.requestId"
    templates: Mapping[str, str]  # content type -> template


@dataclass(frozen=True, slots=True)
class RestApi:
    id: str
    name: str
    binary_media_types: tuple[str, ...]
    gateway_responses: Mapping[str, GatewayResponse]  # by response type
    policy: Policy | None
    resources: tuple[Resource, ...]
    stages: Mapping[str, Stage]


@dataclass(frozen=True)
class ApiGatewaySnapshot(Snapshot):
    """The REST APIs of the account, and who may use them."""

    needs = (ApiGatewayV2Snapshot, CloudFormationSnapshot, ElbSnapshot, IamSnapshot)
    apis: tuple[RestApi, ...] = ()
    api_keys: Mapping[str, ApiKey] = field(default_factory=dict)
    usage_plans: tuple[UsagePlan, ...] = ()

    @classmethod
    def read(cls, clients: Clients) -> ApiGatewaySnapshot:
        """Read usage plans before the keys that they name."""
        apis, plans = at_once(lambda: _apis(clients), lambda: _usage_plans(clients))
        return cls(apis, _api_keys(clients), plans)

    def holds(self, clients: Clients) -> bool:
        """Whether every stage still has the deployment that was read."""
        was = {one.id: {name: stage.deployment_id for name, stage in one.stages.items()} for one in self.apis}
        return was == {item["id"]: _deployments(clients, item["id"]) for item in _rest_apis(clients)}


def _rest_apis(clients: Clients) -> Sequence[Mapping[str, Any]]:
    return clients.pages("apigateway", "get_rest_apis", "items")


def _deployments(clients: Clients, api_id: str) -> Mapping[str, str]:
    """Stage -> its deployment; nothing where the API was deleted meanwhile."""
    found = unless_absent(lambda: clients.client("apigateway").get_stages(restApiId=api_id)) or {"item": []}
    return {stage["stageName"]: stage.get("deploymentId", "") for stage in found["item"]}


def _apis(clients: Clients) -> tuple[RestApi, ...]:
    gateway = clients.client("apigateway")

    def api(item: Mapping[str, Any]) -> RestApi:
        id = item["id"]
        # Before the resources: a deployment that is found here is found with everything it was made after.
        stages = gateway.get_stages(restApiId=id)["item"]
        resources = clients.pages("apigateway", "get_resources", "items", restApiId=id, embed=["methods"])
        validators = {
            found["id"]: RequestValidator(
                bool(found.get("validateRequestBody")), bool(found.get("validateRequestParameters"))
            )
            for found in clients.pages("apigateway", "get_request_validators", "items", restApiId=id)
        }
        models = {
            model["name"]: json.loads(model.get("schema") or "{}")
            for model in clients.pages("apigateway", "get_models", "items", restApiId=id)
        }
        pairs = [(found["id"], name) for found in resources for name in found.get("resourceMethods") or {}]
        found_methods = each(lambda pair: _method(gateway, id, pair, validators, models), pairs)
        methods = dict(zip(pairs, found_methods, strict=True))
        return RestApi(
            id=id,
            name=item["name"],
            binary_media_types=tuple(item.get("binaryMediaTypes") or ()),
            gateway_responses={
                found["responseType"]: GatewayResponse(
                    int(found["statusCode"]) if found.get("statusCode") else None,
                    found.get("responseParameters") or {},
                    found.get("responseTemplates") or {},
                )
                for found in gateway.get_gateway_responses(restApiId=id)["items"]
                if not found.get("defaultResponse")
            },
            policy=policy_of(f"the resource policy of API {item['name']}", item.get("policy")),
            resources=tuple(
                Resource(
                    found["id"],
                    found["path"],
                    {name: methods[found["id"], name] for name in found.get("resourceMethods") or {}},
                )
                for found in resources
            ),
            stages={
                stage["stageName"]: Stage(
                    stage["stageName"],
                    stage.get("deploymentId", ""),
                    stage.get("variables") or {},
                    {
                        path: Throttle(
                            float(limits["throttlingRateLimit"]), int(limits["throttlingBurstLimit"])
                        )
                        for path, limits in (stage.get("methodSettings") or {}).items()
                        if limits.get("throttlingRateLimit") is not None
                        and limits.get("throttlingBurstLimit") is not None
                    },
                )
                for stage in stages
            },
        )

    return tuple(each(api, _rest_apis(clients)))


def _method(
    gateway: Any,
    api_id: str,
    pair: tuple[str, str],
    validators: Mapping[str, RequestValidator],
    models: Mapping[str, Mapping[str, Any]],
) -> Method:
    resource_id, name = pair
    found = gateway.get_method(restApiId=api_id, resourceId=resource_id, httpMethod=name)
    wired = found.get("methodIntegration")
    return Method(
        http_method=name,
        authorization=found.get("authorizationType") or "NONE",
        api_key_required=bool(found.get("apiKeyRequired")),
        validator=validators.get(found.get("requestValidatorId") or ""),
        required_parameters=tuple(
            parameter for parameter, required in (found.get("requestParameters") or {}).items() if required
        ),
        models={kind: models.get(model, {}) for kind, model in (found.get("requestModels") or {}).items()},
        integration=Integration(
            type=wired.get("type", ""),
            http_method=wired.get("httpMethod") or name,
            uri=wired.get("uri") or "",
            connection_type=wired.get("connectionType") or "INTERNET",
            connection_id=wired.get("connectionId") or "",
            target=wired.get("integrationTarget") or "",
            parameters=wired.get("requestParameters") or {},
            timeout_ms=int(wired.get("timeoutInMillis") or 29000),
            streams=wired.get("responseTransferMode") == "STREAM",
            credentials=wired.get("credentials") or "",
            content_handling=wired.get("contentHandling") or "",
        )
        if wired
        else None,
    )


def _api_keys(clients: Clients) -> dict[str, ApiKey]:
    return {
        key["id"]: ApiKey(
            key["id"], key.get("name", ""), key.get("value", ""), bool(key.get("enabled", True))
        )
        for key in clients.pages("apigateway", "get_api_keys", "items", includeValues=True)
    }


def _usage_plans(clients: Clients) -> tuple[UsagePlan, ...]:
    def plan(item: Mapping[str, Any]) -> UsagePlan:
        keys = clients.pages("apigateway", "get_usage_plan_keys", "items", usagePlanId=item["id"])
        throttle, quota = item.get("throttle") or {}, item.get("quota") or {}
        return UsagePlan(
            id=item["id"],
            name=item.get("name", ""),
            stages=frozenset((stage["apiId"], stage["stage"]) for stage in item.get("apiStages") or []),
            key_ids=frozenset(key["id"] for key in keys),
            throttle=Throttle(float(throttle["rateLimit"]), int(throttle.get("burstLimit") or 0))
            if throttle.get("rateLimit") is not None
            else None,
            quota=int(quota["limit"]) if quota.get("limit") is not None else None,
            period=quota.get("period") or "DAY",
        )

    return tuple(each(plan, clients.pages("apigateway", "get_usage_plans", "items")))
