"""AWS::Logs: log groups with retention and key, and metric filters."""

from __future__ import annotations

from typing import ClassVar

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceType,
    ignoring,
    provides,
    tag_list,
)

_GONE = ("ResourceNotFoundException",)


@provides("AWS::Logs::LogGroup")
class LogGroup(ResourceType):
    """A log group. Ref is its name."""

    immutable: ClassVar = frozenset({"LogGroupName", "LogGroupClass"})

    def create(self, request: Request) -> Provisioned:
        name = str(request.properties.get("LogGroupName") or request.generated_name())
        tags = {tag["Key"]: tag["Value"] for tag in tag_list(request.properties)}
        given = {**request.without("LogGroupName", "RetentionInDays"), **({"Tags": tags} if tags else {})}
        request.call("logs", "CreateLogGroup", given, logGroupName=name)
        self._retain(request, name, {})
        return Provisioned(name, {"Arn": request.arn("logs", f"log-group:{name}:*")})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        logs, name, after = request.client("logs"), current.physical_id, request.properties
        self._retain(request, name, before)
        if after.get("KmsKeyId") != before.get("KmsKeyId"):
            if "KmsKeyId" in after:
                logs.associate_kms_key(logGroupName=name, kmsKeyId=after["KmsKeyId"])
            else:
                logs.disassociate_kms_key(logGroupName=name)
        if tag_list(after) != tag_list(before):
            logs.untag_log_group(logGroupName=name, tags=[tag["Key"] for tag in tag_list(before)])
            logs.tag_log_group(logGroupName=name, tags={tag["Key"]: tag["Value"] for tag in tag_list(after)})
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client("logs").delete_log_group(logGroupName=current.physical_id)

    @staticmethod
    def _retain(request: Request, name: str, before: Properties) -> None:
        logs, days = request.client("logs"), request.properties.get("RetentionInDays")
        if days is not None:
            logs.put_retention_policy(logGroupName=name, retentionInDays=int(days))
        elif "RetentionInDays" in before:
            logs.delete_retention_policy(logGroupName=name)


@provides("AWS::Logs::MetricFilter")
class MetricFilter(ResourceType):
    """A count of the log lines that match a pattern."""

    immutable: ClassVar = frozenset({"FilterName", "LogGroupName"})

    def create(self, request: Request) -> Provisioned:
        return self._put(request, str(request.properties.get("FilterName") or request.generated_name()))

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        return self._put(request, current.physical_id)

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            group = request.properties["LogGroupName"]
            request.client("logs").delete_metric_filter(logGroupName=group, filterName=current.physical_id)

    @staticmethod
    def _put(request: Request, name: str) -> Provisioned:
        request.call("logs", "PutMetricFilter", request.without("FilterName"), filterName=name)
        return Provisioned(name)
