"""AWS::SageMaker: models, endpoint configurations, endpoints. Ref of each is its ARN."""

from __future__ import annotations

from typing import ClassVar

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
    ignoring,
    provides,
)

_LONGEST_NAME = 63
_GONE = ("ValidationException", "ValidationError", "ResourceNotFound")


@provides("AWS::SageMaker::Model")
class Model(ResourceType):
    """A model; any change makes a new one."""

    def create(self, request: Request) -> Provisioned:
        name = request.properties.get("ModelName") or request.generated_name(_LONGEST_NAME)
        arn = request.call("sagemaker", "CreateModel", request.without("ModelName"), ModelName=name)[
            "ModelArn"
        ]
        return Provisioned(arn, {"ModelName": name, "Id": arn})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client("sagemaker").delete_model(ModelName=current.attributes["ModelName"])


@provides("AWS::SageMaker::EndpointConfig")
class EndpointConfig(ResourceType):
    """An endpoint configuration; any change makes a new one, which is why it should not be named."""

    def create(self, request: Request) -> Provisioned:
        name = request.properties.get("EndpointConfigName") or request.generated_name(_LONGEST_NAME)
        given = request.without("EndpointConfigName")
        arn = request.call("sagemaker", "CreateEndpointConfig", given, EndpointConfigName=name)[
            "EndpointConfigArn"
        ]
        return Provisioned(arn, {"EndpointConfigName": name, "Id": arn})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client("sagemaker").delete_endpoint_config(
                EndpointConfigName=current.attributes["EndpointConfigName"]
            )


@provides("AWS::SageMaker::Endpoint")
class Endpoint(ResourceType):
    """An endpoint; a new configuration is an UpdateEndpoint."""

    immutable: ClassVar = frozenset({"EndpointName"})

    def create(self, request: Request) -> Provisioned:
        name = request.properties.get("EndpointName") or request.generated_name(_LONGEST_NAME)
        given = request.only("EndpointConfigName", "DeploymentConfig", "Tags")
        arn = request.call("sagemaker", "CreateEndpoint", given, EndpointName=name)["EndpointArn"]
        return Provisioned(arn, {"EndpointName": name, "Id": arn})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        given = request.without("EndpointName", "Tags")
        request.call("sagemaker", "UpdateEndpoint", given, EndpointName=current.attributes["EndpointName"])
        return current

    def stabilised(self, request: Request, current: Provisioned) -> Provisioned | None:
        name = current.attributes["EndpointName"]
        endpoint = request.client("sagemaker").describe_endpoint(EndpointName=name)
        if endpoint["EndpointStatus"] not in ("InService", "Failed"):
            return None
        wanted = request.properties["EndpointConfigName"]
        if endpoint["EndpointStatus"] == "Failed" or endpoint["EndpointConfigName"] != wanted:
            raise ResourceError(endpoint.get("FailureReason") or "the endpoint failed for an unknown reason")
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client("sagemaker").delete_endpoint(EndpointName=current.attributes["EndpointName"])
