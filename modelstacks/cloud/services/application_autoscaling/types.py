"""AWS::ApplicationAutoScaling: scalable targets and their policies."""

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

_SERVICE = "application-autoscaling"
_TARGET = ("ServiceNamespace", "ResourceId", "ScalableDimension")


@provides("AWS::ApplicationAutoScaling::ScalableTarget")
class ScalableTarget(ResourceType):
    """What is scaled, and between which bounds. Ref is `resource|dimension|namespace`."""

    immutable: ClassVar = frozenset(_TARGET)

    def create(self, request: Request) -> Provisioned:
        # CloudFormation lists tags, this API maps them.
        tags = {tag["Key"]: tag["Value"] for tag in request.properties.get("Tags", [])}
        given = request.without("ScheduledActions", "Tags")
        request.call(_SERVICE, "RegisterScalableTarget", {**given, "Tags": tags} if tags else given)
        for action in request.properties.get("ScheduledActions", []):
            request.call(_SERVICE, "PutScheduledAction", {**request.only(*_TARGET), **action})
        properties = request.properties
        physical_id = (
            f"{properties['ResourceId']}|{properties['ScalableDimension']}|{properties['ServiceNamespace']}"
        )
        return Provisioned(physical_id, {"Id": physical_id})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        for action in before.get("ScheduledActions", []):
            request.call(
                _SERVICE,
                "DeleteScheduledAction",
                {**request.only(*_TARGET), "ScheduledActionName": action["ScheduledActionName"]},
            )
        return self.create(request)

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("ObjectNotFoundException", "ValidationException"):
            request.call(_SERVICE, "DeregisterScalableTarget", request.only(*_TARGET))


@provides("AWS::ApplicationAutoScaling::ScalingPolicy")
class ScalingPolicy(ResourceType):
    """One policy of a scalable target. Ref is its ARN."""

    immutable: ClassVar = frozenset({"PolicyName", "ScalingTargetId", *_TARGET})

    def create(self, request: Request) -> Provisioned:
        given = request.without("ScalingTargetId")
        arn = request.call(_SERVICE, "PutScalingPolicy", {**given, **self._target(request)})["PolicyARN"]
        return Provisioned(arn, {"Arn": arn})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        self.create(request)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("ObjectNotFoundException", "ValidationException"):
            request.call(
                _SERVICE, "DeleteScalingPolicy", {**request.only("PolicyName"), **self._target(request)}
            )

    @staticmethod
    def _target(request: Request) -> dict[str, str]:
        if "ScalingTargetId" not in request.properties:
            return request.only(*_TARGET)
        parts = str(request.properties["ScalingTargetId"]).split("|")
        if len(parts) != len(_TARGET):
            raise ResourceError(
                f"ScalingTargetId is no scalable target: {request.properties['ScalingTargetId']}"
            )
        resource, dimension, namespace = parts
        return {"ResourceId": resource, "ScalableDimension": dimension, "ServiceNamespace": namespace}
