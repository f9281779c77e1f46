"""Elastic Load Balancing as it is read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.snapshot import Snapshot, at_once, each

__all__ = ["ElbSnapshot", "Listener", "ListenerRule", "LoadBalancer", "TargetGroup"]


@dataclass(frozen=True, slots=True)
class ListenerRule:
    priority: int | None  # None for the default rule
    conditions: tuple[Mapping[str, Any], ...]
    actions: tuple[Mapping[str, Any], ...]
    transforms: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Listener:
    load_balancer_arn: str
    port: int
    protocol: str
    rules: tuple[ListenerRule, ...]  # by priority; the default rule last


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    arn: str
    name: str
    dns_name: str
    scheme: str
    type: str  # application | network | gateway
    subnet_ids: tuple[str, ...]
    security_group_ids: tuple[str, ...]
    idle_timeout: float  # seconds
    desync_mode: str = "defensive"
    created: str = ""  # ISO 8601: a load balancer that is created again by its name has the same ARN here


@dataclass(frozen=True, slots=True)
class TargetGroup:
    """Intervals and delays in seconds, as deployed; the data plane scales them."""

    arn: str
    name: str
    protocol: str
    vpc_id: str
    target_type: str  # ip | instance | lambda | alb
    health_path: str
    health_port: str  # "traffic-port" or a number
    health_interval: float
    health_timeout: float
    healthy_count: int
    unhealthy_count: int
    matcher: str  # "200", "200-299", "200,204"
    deregistration_delay: float
    least_outstanding: bool


@dataclass(frozen=True)
class ElbSnapshot(Snapshot):
    """The load balancers of the account, their listeners and target groups, by ARN."""

    load_balancers: Mapping[str, LoadBalancer] = field(default_factory=dict)
    listeners: Mapping[str, Listener] = field(default_factory=dict)
    target_groups: Mapping[str, TargetGroup] = field(default_factory=dict)

    @classmethod
    def read(cls, clients: Clients) -> ElbSnapshot:
        """Read load balancers with their listeners, and target groups."""
        (balancers, listeners), groups = at_once(
            lambda: _load_balancers(clients), lambda: _target_groups(clients)
        )
        return cls(balancers, listeners, groups)


def _attributes(client: Any, operation: str, **parameters: str) -> dict[str, str]:
    found = getattr(client, operation)(**parameters)["Attributes"]
    return {item["Key"]: item["Value"] for item in found}


def _load_balancers(clients: Clients) -> tuple[dict[str, LoadBalancer], dict[str, Listener]]:
    elb = clients.client("elbv2")

    def balancer(item: Mapping[str, Any]) -> tuple[LoadBalancer, dict[str, Listener]]:
        arn = item["LoadBalancerArn"]
        attributes = _attributes(elb, "describe_load_balancer_attributes", LoadBalancerArn=arn)
        found = LoadBalancer(
            arn=arn,
            name=item["LoadBalancerName"],
            dns_name=item["DNSName"],
            scheme=item["Scheme"],
            type=item["Type"],
            subnet_ids=tuple(zone["SubnetId"] for zone in item.get("AvailabilityZones", [])),
            security_group_ids=tuple(item.get("SecurityGroups", [])),
            idle_timeout=float(attributes.get("idle_timeout.timeout_seconds", 60)),
            desync_mode=attributes.get("routing.http.desync_mitigation_mode", "defensive"),
            created=item["CreatedTime"].isoformat(),
        )
        listeners = clients.pages("elbv2", "describe_listeners", "Listeners", LoadBalancerArn=arn)
        return found, {one["ListenerArn"]: listener(one) for one in listeners}

    def listener(item: Mapping[str, Any]) -> Listener:
        rules = [
            ListenerRule(
                priority=None if rule["Priority"] == "default" else int(rule["Priority"]),
                conditions=tuple(rule.get("Conditions", [])),
                actions=tuple(rule.get("Actions", [])),
                transforms=tuple(rule.get("Transforms", [])),
            )
            for rule in clients.pages("elbv2", "describe_rules", "Rules", ListenerArn=item["ListenerArn"])
        ]
        return Listener(
            load_balancer_arn=item["LoadBalancerArn"],
            port=int(item["Port"]),
            protocol=item["Protocol"],
            rules=tuple(
                sorted(rules, key=lambda rule: rule.priority if rule.priority is not None else 1_000_000)
            ),
        )

    balancers = clients.pages("elbv2", "describe_load_balancers", "LoadBalancers")
    pairs: list[tuple[LoadBalancer, dict[str, Listener]]] = each(balancer, balancers)
    return {one.arn: one for one, _ in pairs}, {arn: one for _, many in pairs for arn, one in many.items()}


def _target_groups(clients: Clients) -> dict[str, TargetGroup]:
    elb = clients.client("elbv2")

    def group(item: Mapping[str, Any]) -> TargetGroup:
        arn = item["TargetGroupArn"]
        attributes = _attributes(elb, "describe_target_group_attributes", TargetGroupArn=arn)
        return TargetGroup(
            arn=arn,
            name=item["TargetGroupName"],
            protocol=item.get("Protocol", "HTTP"),
            vpc_id=item.get("VpcId", ""),
            target_type=item.get("TargetType", "instance"),
            health_path=item.get("HealthCheckPath") or "/",
            health_port=str(item.get("HealthCheckPort") or "traffic-port"),
            health_interval=float(item.get("HealthCheckIntervalSeconds") or 30),
            health_timeout=float(item.get("HealthCheckTimeoutSeconds") or 5),
            healthy_count=int(item.get("HealthyThresholdCount") or 5),
            unhealthy_count=int(item.get("UnhealthyThresholdCount") or 2),
            matcher=(item.get("Matcher") or {}).get("HttpCode") or "200",
            deregistration_delay=float(attributes.get("deregistration_delay.timeout_seconds", 300)),
            least_outstanding=attributes.get("load_balancing.algorithm.type") == "least_outstanding_requests",
        )

    groups = clients.pages("elbv2", "describe_target_groups", "TargetGroups")
    return {one.arn: one for one in each(group, groups)}
