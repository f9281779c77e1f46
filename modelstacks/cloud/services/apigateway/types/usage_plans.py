"""AWS::ApiGateway: API keys and usage plans."""

from __future__ import annotations

from typing import ClassVar

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceType,
    ignoring,
    provides,
)
from modelstacks.cloud.services.apigateway.types._calls import GONE, SERVICE, replaced, tags_of


@provides("AWS::ApiGateway::ApiKey")
class ApiKey(ResourceType):
    """An API key. Ref is its id; the value is read by GetApiKey."""

    immutable: ClassVar = frozenset({"Name", "Value", "GenerateDistinctId", "StageKeys"})

    def create(self, request: Request) -> Provisioned:
        name = request.properties.get("Name") or request.generated_name()
        # CloudFormation's default is a disabled key; the CDK always sets the property.
        enabled = request.properties.get("Enabled", False) in (True, "true")
        key_id = request.call(
            SERVICE,
            "CreateApiKey",
            request.without("Name", "Enabled", "Tags"),
            name=name,
            enabled=enabled,
            **tags_of(request.properties),
        )["id"]
        return Provisioned(key_id, {"APIKeyId": key_id})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        operations = [
            replaced(path, request.properties[key])
            for key, path in (
                ("Enabled", "/enabled"),
                ("Description", "/description"),
                ("CustomerId", "/customerId"),
            )
            if key in request.properties
        ]
        request.client(SERVICE).update_api_key(apiKey=current.physical_id, patchOperations=operations)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*GONE):
            request.client(SERVICE).delete_api_key(apiKey=current.physical_id)


@provides("AWS::ApiGateway::UsagePlan")
class UsagePlan(ResourceType):
    """A usage plan: throttle and quota of the callers whose keys belong to it, on the stages it names."""

    def create(self, request: Request) -> Provisioned:
        plan_id = request.call(
            SERVICE,
            "CreateUsagePlan",
            self._given(request),
            **self._name(request),
            **tags_of(request.properties),
        )["id"]
        return Provisioned(plan_id, {"Id": plan_id})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        client, plan_id, after = request.client(SERVICE), current.physical_id, request.properties
        operations = [
            replaced(f"/{key.lower()}" if key == "Name" else "/description", after[key])
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
                    operations.append(replaced(f"/{key.lower()}/{spelt}", after[key][member]))
        client.update_usage_plan(usagePlanId=plan_id, patchOperations=operations)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*GONE):
            request.client(SERVICE).delete_usage_plan(usagePlanId=current.physical_id)

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
        request.call(SERVICE, "CreateUsagePlanKey", request.properties)
        physical_id = f"{request.properties['KeyId']}:{request.properties['UsagePlanId']}"
        return Provisioned(physical_id, {"Id": physical_id})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*GONE):
            request.client(SERVICE).delete_usage_plan_key(
                usagePlanId=request.properties["UsagePlanId"], keyId=request.properties["KeyId"]
            )
