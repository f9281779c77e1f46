"""AWS::ApiGateway: deployments, stages and the account's logging role."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceType,
    ignoring,
    provides,
    undoing,
)
from modelstacks.cloud.services.apigateway.types._calls import GONE, SERVICE, replaced, tags_of


@provides("AWS::ApiGateway::Deployment")
class Deployment(ResourceType):
    """A snapshot of the API. moto keeps no snapshot: its old deployments show the current methods."""

    immutable: ClassVar = frozenset({"RestApiId"})

    def create(self, request: Request) -> Provisioned:
        properties = request.only("RestApiId", "Description", "StageName")
        deployment_id = request.call(SERVICE, "CreateDeployment", properties)["id"]
        return Provisioned(deployment_id, {"DeploymentId": deployment_id})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*GONE):
            request.client(SERVICE).delete_deployment(
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
                yield replaced(f"/{resource}/{method}/{path}", setting[key])
    access_log = properties.get("AccessLogSetting", {})
    if "DestinationArn" in access_log:
        yield replaced("/accessLogSettings/destinationArn", access_log["DestinationArn"])
    if "Format" in access_log:
        yield replaced("/accessLogSettings/format", access_log["Format"])


@provides("AWS::ApiGateway::Stage")
class Stage(ResourceType):
    """A stage: what a caller sees of the API. Ref is its name."""

    immutable: ClassVar = frozenset({"RestApiId", "StageName"})

    def create(self, request: Request) -> Provisioned:
        properties = request.properties
        name, api = properties["StageName"], properties["RestApiId"]
        apart = ("MethodSettings", "AccessLogSetting", "Tags", "ClientCertificateId")
        request.call(SERVICE, "CreateStage", request.without(*apart), **tags_of(properties))
        with undoing(lambda: request.client(SERVICE).delete_stage(restApiId=api, stageName=name)):
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
                patches.append(replaced(path, after[key]))
        old, new = before.get("Variables", {}), after.get("Variables", {})
        patches += [{"op": "remove", "path": f"/variables/{name}"} for name in old if name not in new]
        patches += [replaced(f"/variables/{name}", value) for name, value in new.items()]
        if "AccessLogSetting" in before and "AccessLogSetting" not in after:
            patches.append({"op": "remove", "path": "/accessLogSettings"})
        self._patch(request, current.physical_id, patches)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*GONE):
            request.client(SERVICE).delete_stage(
                restApiId=request.properties["RestApiId"], stageName=current.physical_id
            )

    @staticmethod
    def _patch(request: Request, name: str, patches: list[dict[str, str]]) -> None:
        if patches:
            api = request.properties["RestApiId"]
            request.client(SERVICE).update_stage(restApiId=api, stageName=name, patchOperations=patches)


@provides("AWS::ApiGateway::Account")
class Account(ResourceType):
    """The role with which API Gateway writes logs.

    It is a setting of the whole account, so that deleting the resource does not remove it.
    """

    def create(self, request: Request) -> Provisioned:
        role = request.properties.get("CloudWatchRoleArn")
        operations = [replaced("/cloudwatchRoleArn", role)] if role else []
        request.client(SERVICE).update_account(patchOperations=operations)
        return Provisioned(request.logical_id, {"Id": request.logical_id})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        self.create(request)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        return None
