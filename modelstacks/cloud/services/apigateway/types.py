"""AWS::ApiGateway: REST APIs with their resources, methods, stages, keys and usage plans."""

# ruff: noqa: ARG002  every type answers the same three questions, and not each needs all of what it is told
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
    ignoring,
    provides,
    undoing,
)

_SERVICE = "apigateway"
_GONE = ("NotFoundException",)


def _tags(properties: Properties) -> dict[str, Any]:
    tags = {str(tag["Key"]): str(tag["Value"]) for tag in properties.get("Tags", [])}
    return {"tags": tags} if tags else {}


def _replace(path: str, value: Any) -> dict[str, str]:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return {"op": "replace", "path": path, "value": text}


@provides("AWS::ApiGateway::RestApi")
class RestApi(ResourceType):
    """A REST API built from resources and methods; a body (OpenAPI) is refused."""

    # moto's UpdateRestApi knows few paths: a change of anything else makes a new API, which says so in the
    # events.
    _in_place: ClassVar = frozenset({"Name", "Description", "Tags"})

    def create(self, request: Request) -> Provisioned:
        for unsupported in ("Body", "BodyS3Location", "CloneFrom"):
            if unsupported in request.properties:
                raise ResourceError(f"{unsupported} is not emulated: define the API by resources and methods")
        names = (
            {"apiKeySource": request.properties["ApiKeySourceType"]}
            if "ApiKeySourceType" in request.properties
            else {}
        )
        apart = ("ApiKeySourceType", "Tags", "Parameters", "FailOnWarnings", "Mode")
        api = request.call(
            _SERVICE, "CreateRestApi", request.without(*apart), **names, **_tags(request.properties)
        )
        root = request.client(_SERVICE).get_resources(restApiId=api["id"])["items"][0]["id"]
        return Provisioned(api["id"], {"RootResourceId": root, "RestApiId": api["id"]})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        keys = set(before) | set(request.properties)
        changed = {key for key in keys if before.get(key) != request.properties.get(key)}
        if changed - self._in_place:
            return None
        operations = [
            _replace(f"/{key.lower()}", request.properties.get(key, "")) for key in changed - {"Tags"}
        ]
        request.client(_SERVICE).update_rest_api(restApiId=current.physical_id, patchOperations=operations)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client(_SERVICE).delete_rest_api(restApiId=current.physical_id)


@provides("AWS::ApiGateway::Resource")
class Resource(ResourceType):
    """One part of a path."""

    def create(self, request: Request) -> Provisioned:
        resource_id = request.call(_SERVICE, "CreateResource", request.properties)["id"]
        return Provisioned(resource_id, {"ResourceId": resource_id})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client(_SERVICE).delete_resource(
                restApiId=request.properties["RestApiId"], resourceId=current.physical_id
            )


@provides("AWS::ApiGateway::Method")
class Method(ResourceType):
    """One method of a resource with its integration and responses."""

    immutable: ClassVar = frozenset({"RestApiId", "ResourceId", "HttpMethod"})

    def create(self, request: Request) -> Provisioned:
        properties = request.properties
        place = {
            "restApiId": properties["RestApiId"],
            "resourceId": properties["ResourceId"],
            "httpMethod": properties["HttpMethod"],
        }
        apart = ("RestApiId", "ResourceId", "HttpMethod", "Integration", "MethodResponses")
        request.call(_SERVICE, "PutMethod", {"AuthorizationType": "NONE", **request.without(*apart)}, **place)
        with undoing(lambda: request.client(_SERVICE).delete_method(**place)):
            self._integrate(request, place)
        return Provisioned(f"{properties['RestApiId']}|{properties['ResourceId']}|{properties['HttpMethod']}")

    @staticmethod
    def _integrate(request: Request, place: dict[str, Any]) -> None:
        """Give a method its responses and its integration."""
        properties = request.properties
        for response in properties.get("MethodResponses", []):
            request.call(_SERVICE, "PutMethodResponse", response, **place)
        if integration := dict(properties.get("Integration", {})):
            responses = integration.pop("IntegrationResponses", [])
            method = integration.pop("IntegrationHttpMethod", None)
            request.call(
                _SERVICE,
                "PutIntegration",
                integration,
                **place,
                **({"integrationHttpMethod": method} if method else {}),
            )
            for response in responses:
                request.call(_SERVICE, "PutIntegrationResponse", response, **place)

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        self.delete(request, current)
        with undoing(lambda: self.create(replace(request, properties=before))):
            return self.create(request)

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.call(_SERVICE, "DeleteMethod", request.only("RestApiId", "ResourceId", "HttpMethod"))


@provides("AWS::ApiGateway::Deployment")
class Deployment(ResourceType):
    """A snapshot of the API. moto serves the API as it is, so an old deployment shows today's methods."""

    immutable: ClassVar = frozenset({"RestApiId"})

    def create(self, request: Request) -> Provisioned:
        properties = request.only("RestApiId", "Description", "StageName")
        deployment_id = request.call(_SERVICE, "CreateDeployment", properties)["id"]
        return Provisioned(deployment_id, {"DeploymentId": deployment_id})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client(_SERVICE).delete_deployment(
                restApiId=request.properties["RestApiId"], deploymentId=current.physical_id
            )


#: A method setting's property -> the last part of its patch path.
_METHOD_SETTINGS = {
    "CacheDataEncrypted": "caching/dataEncrypted",
    "CacheTtlInSeconds": "caching/ttlInSeconds",
    "CachingEnabled": "caching/enabled",
    "DataTraceEnabled": "logging/dataTrace",
    "LoggingLevel": "logging/loglevel",
    "MetricsEnabled": "metrics/enabled",
    "ThrottlingBurstLimit": "throttling/burstLimit",
    "ThrottlingRateLimit": "throttling/rateLimit",
}


def _stage_patches(properties: Properties) -> Iterator[dict[str, str]]:
    for setting in properties.get("MethodSettings", []):
        resource = (
            str(setting.get("ResourcePath", "/*")).removeprefix("/").replace("~", "~0").replace("/", "~1")
        )
        method = setting.get("HttpMethod", "*")
        resource = resource if resource == "*" else f"~1{resource}"
        for key, path in _METHOD_SETTINGS.items():
            if key in setting:
                yield _replace(f"/{resource}/{method}/{path}", setting[key])
    access_log = properties.get("AccessLogSetting", {})
    if "DestinationArn" in access_log:
        yield _replace("/accessLogSettings/destinationArn", access_log["DestinationArn"])
    if "Format" in access_log:
        yield _replace("/accessLogSettings/format", access_log["Format"])


@provides("AWS::ApiGateway::Stage")
class Stage(ResourceType):
    """A stage: what a caller sees of the API. Ref is its name."""

    immutable: ClassVar = frozenset({"RestApiId", "StageName"})

    def create(self, request: Request) -> Provisioned:
        properties = request.properties
        name, api = properties["StageName"], properties["RestApiId"]
        apart = ("MethodSettings", "AccessLogSetting", "Tags", "ClientCertificateId")
        request.call(_SERVICE, "CreateStage", request.without(*apart), **_tags(properties))
        with undoing(lambda: request.client(_SERVICE).delete_stage(restApiId=api, stageName=name)):
            self._patch(request, name, list(_stage_patches(properties)))
        return Provisioned(
            name, {"StageArn": f"arn:aws:apigateway:{request.region}::/restapis/{api}/stages/{name}"}
        )

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        after, patches = request.properties, list(_stage_patches(request.properties))
        for key, path in (
            ("DeploymentId", "/deploymentId"),
            ("Description", "/description"),
            ("TracingEnabled", "/tracingEnabled"),
        ):
            if key in after:
                patches.append(_replace(path, after[key]))
        old, new = before.get("Variables", {}), after.get("Variables", {})
        patches += [{"op": "remove", "path": f"/variables/{name}"} for name in old if name not in new]
        patches += [_replace(f"/variables/{name}", value) for name, value in new.items()]
        if "AccessLogSetting" in before and "AccessLogSetting" not in after:
            patches.append({"op": "remove", "path": "/accessLogSettings"})
        self._patch(request, current.physical_id, patches)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client(_SERVICE).delete_stage(
                restApiId=request.properties["RestApiId"], stageName=current.physical_id
            )

    @staticmethod
    def _patch(request: Request, name: str, patches: list[dict[str, str]]) -> None:
        if patches:
            api = request.properties["RestApiId"]
            request.client(_SERVICE).update_stage(restApiId=api, stageName=name, patchOperations=patches)


@provides("AWS::ApiGateway::ApiKey")
class ApiKey(ResourceType):
    """An API key. Ref is its id; the value is read by GetApiKey."""

    immutable: ClassVar = frozenset({"Name", "Value", "GenerateDistinctId", "StageKeys"})

    def create(self, request: Request) -> Provisioned:
        name = request.properties.get("Name") or request.generated_name()
        # CloudFormation's default is a disabled key; the CDK always says which it wants.
        enabled = request.properties.get("Enabled", False) in (True, "true")
        key_id = request.call(
            _SERVICE,
            "CreateApiKey",
            request.without("Name", "Enabled", "Tags"),
            name=name,
            enabled=enabled,
            **_tags(request.properties),
        )["id"]
        return Provisioned(key_id, {"APIKeyId": key_id})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        operations = [
            _replace(path, request.properties[key])
            for key, path in (
                ("Enabled", "/enabled"),
                ("Description", "/description"),
                ("CustomerId", "/customerId"),
            )
            if key in request.properties
        ]
        request.client(_SERVICE).update_api_key(apiKey=current.physical_id, patchOperations=operations)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client(_SERVICE).delete_api_key(apiKey=current.physical_id)


@provides("AWS::ApiGateway::UsagePlan")
class UsagePlan(ResourceType):
    """A usage plan: throttle and quota of the callers whose keys belong to it, on the stages it names."""

    def create(self, request: Request) -> Provisioned:
        plan_id = request.call(
            _SERVICE,
            "CreateUsagePlan",
            self._given(request),
            **self._name(request),
            **_tags(request.properties),
        )["id"]
        return Provisioned(plan_id, {"Id": plan_id})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        client, plan_id, after = request.client(_SERVICE), current.physical_id, request.properties
        operations = [
            _replace(f"/{key.lower()}" if key == "Name" else "/description", after[key])
            for key in ("Name", "Description")
            if key in after
        ]
        for op, stages in (("remove", before.get("ApiStages", [])), ("add", after.get("ApiStages", []))):
            named = (f"{stage['ApiId']}:{stage['Stage']}" for stage in stages)
            operations += [{"op": op, "path": "/apiStages", "value": name} for name in named]
        for key, members in (
            ("Throttle", ("RateLimit", "BurstLimit")),
            ("Quota", ("Limit", "Offset", "Period")),
        ):
            if key in before and key not in after:
                operations.append({"op": "remove", "path": f"/{key.lower()}"})
            for member in members:
                if member in after.get(key, {}):
                    spelt = member[0].lower() + member[1:]
                    operations.append(_replace(f"/{key.lower()}/{spelt}", after[key][member]))
        client.update_usage_plan(usagePlanId=plan_id, patchOperations=operations)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client(_SERVICE).delete_usage_plan(usagePlanId=current.physical_id)

    @staticmethod
    def _name(request: Request) -> dict[str, str]:
        return {"name": request.properties.get("UsagePlanName") or request.generated_name()}

    @staticmethod
    def _given(request: Request) -> Properties:
        return request.without("UsagePlanName", "Tags")


@provides("AWS::ApiGateway::UsagePlanKey")
class UsagePlanKey(ResourceType):
    """That a key belongs to a plan."""

    def create(self, request: Request) -> Provisioned:
        request.call(_SERVICE, "CreateUsagePlanKey", request.properties)
        physical_id = f"{request.properties['KeyId']}:{request.properties['UsagePlanId']}"
        return Provisioned(physical_id, {"Id": physical_id})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client(_SERVICE).delete_usage_plan_key(
                usagePlanId=request.properties["UsagePlanId"], keyId=request.properties["KeyId"]
            )


@provides("AWS::ApiGateway::Account")
class Account(ResourceType):
    """The role with which API Gateway writes logs.

    It is a setting of the whole account, so that deleting the resource does not remove it.
    """

    def create(self, request: Request) -> Provisioned:
        role = request.properties.get("CloudWatchRoleArn")
        operations = [_replace("/cloudwatchRoleArn", role)] if role else []
        request.client(_SERVICE).update_account(patchOperations=operations)
        return Provisioned(request.logical_id, {"Id": request.logical_id})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        self.create(request)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        return None


@provides("AWS::ApiGateway::RequestValidator")
class RequestValidator(ResourceType):
    """What of a request is checked before the integration sees it."""

    immutable: ClassVar = frozenset({"Name", "RestApiId"})

    def create(self, request: Request) -> Provisioned:
        given = request.without("Name")
        name = request.properties.get("Name") or request.generated_name()
        validator_id = request.call(_SERVICE, "CreateRequestValidator", given, name=name)["id"]
        return Provisioned(validator_id, {"RequestValidatorId": validator_id})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        operations = [
            _replace(f"/{key[0].lower()}{key[1:]}", request.properties.get(key, False))
            for key in ("ValidateRequestBody", "ValidateRequestParameters")
        ]
        request.client(_SERVICE).update_request_validator(
            restApiId=request.properties["RestApiId"],
            requestValidatorId=current.physical_id,
            patchOperations=operations,
        )
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client(_SERVICE).delete_request_validator(
                restApiId=request.properties["RestApiId"], requestValidatorId=current.physical_id
            )


@provides("AWS::ApiGateway::GatewayResponse")
class GatewayResponse(ResourceType):
    """What API Gateway itself answers on an error."""

    immutable: ClassVar = frozenset({"RestApiId", "ResponseType"})

    def create(self, request: Request) -> Provisioned:
        request.call(_SERVICE, "PutGatewayResponse", request.properties)
        return Provisioned(
            f"{request.properties['RestApiId']}:{request.properties['ResponseType']}",
            {"Id": request.logical_id},
        )

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        return self.create(request)

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.call(_SERVICE, "DeleteGatewayResponse", request.only("RestApiId", "ResponseType"))


@provides("AWS::ApiGateway::Model")
class Model(ResourceType):
    """A JSON schema that request bodies are checked against. Ref is its name."""

    def create(self, request: Request) -> Provisioned:
        name = request.properties.get("Name") or request.generated_name(100).replace("-", "")
        given: Mapping[str, Any] = {"ContentType": "application/json", **request.without("Name", "Schema")}
        schema = request.properties.get("Schema", {})
        text = schema if isinstance(schema, str) else json.dumps(schema)
        request.call(_SERVICE, "CreateModel", given, name=name, schema=text)
        return Provisioned(name)

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client(_SERVICE).delete_model(
                restApiId=request.properties["RestApiId"], modelName=current.physical_id
            )
