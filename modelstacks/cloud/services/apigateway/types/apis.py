"""AWS::ApiGateway: REST APIs, their resources, methods, validators, models and gateway responses."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
from modelstacks.cloud.services.apigateway.types._calls import GONE, SERVICE, replaced, tags_of


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
            SERVICE, "CreateRestApi", request.without(*apart), **names, **tags_of(request.properties)
        )
        root = request.client(SERVICE).get_resources(restApiId=api["id"])["items"][0]["id"]
        return Provisioned(api["id"], {"RootResourceId": root, "RestApiId": api["id"]})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        keys = set(before) | set(request.properties)
        changed = {key for key in keys if before.get(key) != request.properties.get(key)}
        if changed - self._in_place:
            return None
        operations = [
            replaced(f"/{key.lower()}", request.properties.get(key, "")) for key in changed - {"Tags"}
        ]
        request.client(SERVICE).update_rest_api(restApiId=current.physical_id, patchOperations=operations)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*GONE):
            request.client(SERVICE).delete_rest_api(restApiId=current.physical_id)


@provides("AWS::ApiGateway::Resource")
class Resource(ResourceType):
    """One part of a path."""

    def create(self, request: Request) -> Provisioned:
        resource_id = request.call(SERVICE, "CreateResource", request.properties)["id"]
        return Provisioned(resource_id, {"ResourceId": resource_id})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*GONE):
            request.client(SERVICE).delete_resource(
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
        request.call(SERVICE, "PutMethod", {"AuthorizationType": "NONE", **request.without(*apart)}, **place)
        with undoing(lambda: request.client(SERVICE).delete_method(**place)):
            self._integrate(request, place)
        return Provisioned(f"{properties['RestApiId']}|{properties['ResourceId']}|{properties['HttpMethod']}")

    @staticmethod
    def _integrate(request: Request, place: dict[str, Any]) -> None:
        """Give a method its responses and its integration."""
        properties = request.properties
        for response in properties.get("MethodResponses", []):
            request.call(SERVICE, "PutMethodResponse", response, **place)
        if integration := dict(properties.get("Integration", {})):
            responses = integration.pop("IntegrationResponses", [])
            method = integration.pop("IntegrationHttpMethod", None)
            request.call(
                SERVICE,
                "PutIntegration",
                integration,
                **place,
                **({"integrationHttpMethod": method} if method else {}),
            )
            for response in responses:
                request.call(SERVICE, "PutIntegrationResponse", response, **place)

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        self.delete(request, current)
        with undoing(lambda: self.create(replace(request, properties=before))):
            return self.create(request)

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*GONE):
            request.call(SERVICE, "DeleteMethod", request.only("RestApiId", "ResourceId", "HttpMethod"))


@provides("AWS::ApiGateway::RequestValidator")
class RequestValidator(ResourceType):
    """What of a request is checked before the integration sees it."""

    immutable: ClassVar = frozenset({"Name", "RestApiId"})

    def create(self, request: Request) -> Provisioned:
        given = request.without("Name")
        name = request.properties.get("Name") or request.generated_name()
        validator_id = request.call(SERVICE, "CreateRequestValidator", given, name=name)["id"]
        return Provisioned(validator_id, {"RequestValidatorId": validator_id})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        operations = [
            replaced(f"/{key[0].lower()}{key[1:]}", request.properties.get(key, False))
            for key in ("ValidateRequestBody", "ValidateRequestParameters")
        ]
        request.client(SERVICE).update_request_validator(
            restApiId=request.properties["RestApiId"],
            requestValidatorId=current.physical_id,
            patchOperations=operations,
        )
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*GONE):
            request.client(SERVICE).delete_request_validator(
                restApiId=request.properties["RestApiId"], requestValidatorId=current.physical_id
            )


@provides("AWS::ApiGateway::GatewayResponse")
class GatewayResponse(ResourceType):
    """What API Gateway itself answers on an error."""

    immutable: ClassVar = frozenset({"RestApiId", "ResponseType"})

    def create(self, request: Request) -> Provisioned:
        request.call(SERVICE, "PutGatewayResponse", request.properties)
        return Provisioned(
            f"{request.properties['RestApiId']}:{request.properties['ResponseType']}",
            {"Id": request.logical_id},
        )

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        return self.create(request)

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*GONE):
            request.call(SERVICE, "DeleteGatewayResponse", request.only("RestApiId", "ResponseType"))


@provides("AWS::ApiGateway::Model")
class Model(ResourceType):
    """A JSON schema that request bodies are checked against. Ref is its name."""

    def create(self, request: Request) -> Provisioned:
        name = request.properties.get("Name") or request.generated_name(100).replace("-", "")
        given: Mapping[str, Any] = {"ContentType": "application/json", **request.without("Name", "Schema")}
        schema = request.properties.get("Schema", {})
        text = schema if isinstance(schema, str) else json.dumps(schema)
        request.call(SERVICE, "CreateModel", given, name=name, schema=text)
        return Provisioned(name)

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*GONE):
            request.client(SERVICE).delete_model(
                restApiId=request.properties["RestApiId"], modelName=current.physical_id
            )
