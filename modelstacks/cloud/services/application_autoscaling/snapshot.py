"""Application Auto Scaling as it is read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.snapshot import Snapshot, at_once

__all__ = ["MetricQuery", "ScalableTarget", "ScalingPolicy", "ScalingSnapshot"]


@dataclass(frozen=True, slots=True)
class ScalableTarget:
    namespace: str
    resource_id: str
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class MetricQuery:
    """One line of metric math: an expression, or a metric. `returned` marks the one that counts."""

    id: str
    expression: str
    namespace: str
    metric: str
    returned: bool


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """A target tracking policy: on a predefined `metric`, or on `queries`."""

    name: str
    namespace: str
    resource_id: str
    metric: str
    target: float
    queries: tuple[MetricQuery, ...] = ()


@dataclass(frozen=True)
class ScalingSnapshot(Snapshot):
    """What is scaled, within which bounds and by which policies."""

    targets: tuple[ScalableTarget, ...] = ()
    policies: tuple[ScalingPolicy, ...] = ()

    @classmethod
    def read(cls, clients: Clients) -> ScalingSnapshot:
        """Read targets and target tracking policies."""
        return cls(*at_once(lambda: _scalable_targets(clients), lambda: _scaling_policies(clients)))


def _scalable_targets(clients: Clients) -> tuple[ScalableTarget, ...]:
    return tuple(
        ScalableTarget(
            item["ServiceNamespace"], item["ResourceId"], int(item["MinCapacity"]), int(item["MaxCapacity"])
        )
        for namespace in ("ecs", "sagemaker")
        for item in clients.pages(
            "application-autoscaling",
            "describe_scalable_targets",
            "ScalableTargets",
            ServiceNamespace=namespace,
        )
    )


def _scaling_policies(clients: Clients) -> tuple[ScalingPolicy, ...]:
    found = (
        (item, item.get("TargetTrackingScalingPolicyConfiguration"))
        for namespace in ("ecs", "sagemaker")
        for item in clients.pages(
            "application-autoscaling",
            "describe_scaling_policies",
            "ScalingPolicies",
            ServiceNamespace=namespace,
        )
    )
    return tuple(
        ScalingPolicy(
            name=item["PolicyName"],
            namespace=item["ServiceNamespace"],
            resource_id=item["ResourceId"],
            metric=(tracking.get("PredefinedMetricSpecification") or {}).get("PredefinedMetricType", ""),
            target=float(tracking["TargetValue"]),
            queries=tuple(
                _metric_query(query)
                for query in (tracking.get("CustomizedMetricSpecification") or {}).get("Metrics") or []
            ),
        )
        for item, tracking in found
        if tracking
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
