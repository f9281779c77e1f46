"""Application Auto Scaling as it is read back: what is scaled, and by which policies and alarms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.snapshot import Snapshot, at_once
from modelstacks.cloud.workloads.policies import (
    Alarm,
    Bounds,
    Metric,
    MetricQuery,
    Policy,
    Step,
    StepScaling,
    TargetTracking,
    Unknown,
)

__all__ = ["ScalableTarget", "ScalingPolicy", "ScalingSnapshot"]

NAMESPACES = ("ecs", "sagemaker")
COOLDOWN = 300.0  # seconds: the default of ECS services and SageMaker variants


@dataclass(frozen=True, slots=True)
class ScalableTarget:
    """What is scaled: `service/CLUSTER/NAME` or `endpoint/NAME/variant/NAME`."""

    namespace: str
    resource_id: str
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """A policy of a scalable target."""

    namespace: str
    resource_id: str
    policy: Policy


@dataclass(frozen=True)
class ScalingSnapshot(Snapshot):
    """What is scaled, within which bounds and by which policies."""

    targets: tuple[ScalableTarget, ...] = ()
    policies: tuple[ScalingPolicy, ...] = ()

    @classmethod
    def read(cls, clients: Clients) -> ScalingSnapshot:
        """Read targets, policies, the alarms that trigger the policies, and scheduled actions."""
        targets, policies, actions = at_once(
            lambda: _scalable_targets(clients),
            lambda: _scaling_policies(clients),
            lambda: _scheduled_actions(clients),
        )
        return cls(targets, policies + actions)

    def bounds_of(self, namespace: str, resource_id: str) -> Bounds | None:
        """A scalable target's minimum and maximum; None where nothing scales it."""
        found = (one for one in self.targets if (one.namespace, one.resource_id) == (namespace, resource_id))
        return next((one.bounds for one in found), None)

    def policies_of(self, namespace: str, resource_id: str) -> tuple[Policy, ...]:
        """The policies of a scalable target."""
        found = (one for one in self.policies if (one.namespace, one.resource_id) == (namespace, resource_id))
        return tuple(one.policy for one in found)


def _pages(clients: Clients, operation: str, key: str) -> Iterable[Mapping[str, Any]]:
    for namespace in NAMESPACES:
        yield from clients.pages("application-autoscaling", operation, key, ServiceNamespace=namespace)


def _scalable_targets(clients: Clients) -> tuple[ScalableTarget, ...]:
    return tuple(
        ScalableTarget(
            item["ServiceNamespace"],
            item["ResourceId"],
            Bounds(int(item["MinCapacity"]), int(item["MaxCapacity"])),
        )
        for item in _pages(clients, "describe_scalable_targets", "ScalableTargets")
    )


def _scaling_policies(clients: Clients) -> tuple[ScalingPolicy, ...]:
    items = list(_pages(clients, "describe_scaling_policies", "ScalingPolicies"))
    stepped = any(item.get("StepScalingPolicyConfiguration") for item in items)
    alarms = clients.pages("cloudwatch", "describe_alarms", "MetricAlarms") if stepped else []
    return tuple(
        ScalingPolicy(item["ServiceNamespace"], item["ResourceId"], _policy(item, alarms)) for item in items
    )


def _scheduled_actions(clients: Clients) -> tuple[ScalingPolicy, ...]:
    """Scheduled actions, which change the bounds at a time; nothing here carries them out."""
    return tuple(
        ScalingPolicy(
            item["ServiceNamespace"],
            item["ResourceId"],
            Unknown(f"scheduled action {item['ScheduledActionName']}"),
        )
        for item in _pages(clients, "describe_scheduled_actions", "ScheduledActions")
    )


def _policy(item: Mapping[str, Any], alarms: Iterable[Mapping[str, Any]]) -> Policy:
    name = item["PolicyName"]
    if tracking := item.get("TargetTrackingScalingPolicyConfiguration"):
        return TargetTracking(
            name,
            _tracked(tracking),
            target=float(tracking["TargetValue"]),
            scales_in=not tracking.get("DisableScaleIn"),
            out_cooldown=float(tracking.get("ScaleOutCooldown", COOLDOWN)),
            in_cooldown=float(tracking.get("ScaleInCooldown", COOLDOWN)),
        )
    if steps := item.get("StepScalingPolicyConfiguration"):
        triggers = [one for one in alarms if item["PolicyARN"] in one.get("AlarmActions", ())]
        return StepScaling(
            name,
            steps.get("AdjustmentType", ""),
            tuple(_step(one) for one in steps.get("StepAdjustments") or []),
            tuple(_alarm(one) for one in triggers),
            cooldown=float(steps.get("Cooldown", COOLDOWN)),
            least=int(steps.get("MinAdjustmentMagnitude") or 0),
        )
    return Unknown(f"scaling policy {name} of type {item.get('PolicyType')}")


def _tracked(tracking: Mapping[str, Any]) -> Metric:
    custom = tracking.get("CustomizedMetricSpecification") or {}
    if "MetricName" in custom:
        return Metric(queries=(MetricQuery("metric", "", custom["Namespace"], custom["MetricName"], True),))
    predefined = (tracking.get("PredefinedMetricSpecification") or {}).get("PredefinedMetricType", "")
    return Metric(predefined, tuple(_metric_query(query) for query in custom.get("Metrics") or []))


def _step(item: Mapping[str, Any]) -> Step:
    lower, upper = item.get("MetricIntervalLowerBound"), item.get("MetricIntervalUpperBound")
    return Step(
        None if lower is None else float(lower),
        None if upper is None else float(upper),
        int(item["ScalingAdjustment"]),
    )


def _alarm(item: Mapping[str, Any]) -> Alarm:
    queries = tuple(_metric_query(query) for query in item.get("Metrics") or [])
    if not queries:
        queries = (MetricQuery("metric", "", item.get("Namespace", ""), item.get("MetricName", ""), True),)
    evaluations = int(item.get("EvaluationPeriods") or 1)
    return Alarm(
        name=item["AlarmName"],
        metric=Metric(queries=queries),
        threshold=float(item["Threshold"]),
        comparison=item["ComparisonOperator"],
        period=float(item.get("Period") or 60),
        evaluations=evaluations,
        datapoints=int(item.get("DatapointsToAlarm") or evaluations),
    )


def _metric_query(item: Mapping[str, Any]) -> MetricQuery:
    metric = (item.get("MetricStat") or {}).get("Metric") or {}
    return MetricQuery(
        id=item["Id"],
        expression=item.get("Expression") or "",
        namespace=metric.get("Namespace") or "",
        metric=metric.get("MetricName") or "",
        returned=bool(item.get("ReturnData", True)),
    )
