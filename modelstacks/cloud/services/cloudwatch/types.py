"""AWS::CloudWatch: alarms."""

from __future__ import annotations

from typing import ClassVar

from modelstacks.cloud.cloudformation.resource import Properties, Provisioned, Request, ResourceType, provides


@provides("AWS::CloudWatch::Alarm")
class Alarm(ResourceType):
    """A metric alarm. Ref is its name."""

    immutable: ClassVar = frozenset({"AlarmName"})

    def create(self, request: Request) -> Provisioned:
        return self._put(request, request.properties.get("AlarmName") or request.generated_name())

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        return self._put(request, current.physical_id)

    def delete(self, request: Request, current: Provisioned) -> None:
        request.client("cloudwatch").delete_alarms(AlarmNames=[current.physical_id])

    @staticmethod
    def _put(request: Request, name: str) -> Provisioned:
        request.call("cloudwatch", "PutMetricAlarm", request.without("AlarmName"), AlarmName=name)
        return Provisioned(name, {"Arn": request.arn("cloudwatch", f"alarm:{name}")})
