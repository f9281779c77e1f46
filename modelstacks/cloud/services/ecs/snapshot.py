"""ECS as it is read back: services and task definitions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.ec2.snapshot import Ec2Snapshot, NetworkInterface
from modelstacks.cloud.services.elbv2.snapshot import ElbSnapshot
from modelstacks.cloud.services.iam.snapshot import IamSnapshot
from modelstacks.cloud.services.kms.snapshot import KmsSnapshot
from modelstacks.cloud.services.s3.snapshot import S3Snapshot
from modelstacks.cloud.snapshot import Snapshot, each

__all__ = ["CircuitBreaker", "ClusterService", "Container", "EcsSnapshot", "TargetBinding", "TaskDefinition"]

HALF = 50.0  # percent of the desired count: ECS's circuit breaker, unless the service says otherwise


@dataclass(frozen=True, slots=True)
class Container:
    name: str
    image: str
    command: tuple[str, ...]
    entrypoint: tuple[str, ...]
    environment: Mapping[str, str]
    secrets: Mapping[str, str]  # variable -> Secrets Manager or Parameter Store reference
    ports: tuple[int, ...]
    log_driver: str
    log_options: Mapping[str, str]
    essential: bool
    stop_timeout: float


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    arn: str
    family: str
    network_mode: str
    task_role_arn: str
    execution_role_arn: str
    vcpus: float  # of a task; 0 where nothing limits it
    containers: tuple[Container, ...]


@dataclass(frozen=True, slots=True)
class TargetBinding:
    """A service's entry in `loadBalancers`: which port of which container joins which target group."""

    target_group_arn: str
    container: str
    port: int


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """When a deployment is given up: after `limit` failures, or after a percentage of the desired count.

    `bounded` keeps the percentage's result between 3 and 200.
    """

    enabled: bool = False
    rollback: bool = False
    resets: bool = True  # a task that becomes healthy resets the count of failures
    percent: float = 50.0
    bounded: bool = True
    limit: int | None = None

    def threshold(self, desired: int) -> int:
        """How many tasks may fail."""
        if self.limit is not None:
            return self.limit
        calculated = math.ceil(desired * self.percent / 100)
        return min(200, max(3, calculated)) if self.bounded else max(1, calculated)


@dataclass(frozen=True, slots=True)
class ClusterService:
    """An ECS service."""

    arn: str
    name: str
    cluster: str
    desired: int
    task_definition_arn: str
    network: NetworkInterface | None
    public_address: bool
    bindings: tuple[TargetBinding, ...]
    minimum_percent: int
    maximum_percent: int
    breaker: CircuitBreaker
    grace_seconds: float
    deployment: str  # the primary deployment's id
    unemulated: str = ""  # what about its deployments is not emulated


@dataclass(frozen=True)
class EcsSnapshot(Snapshot):
    """The services of every cluster, and the task definitions that they run."""

    needs = (CloudFormationSnapshot, Ec2Snapshot, ElbSnapshot, IamSnapshot, KmsSnapshot, S3Snapshot)
    services: tuple[ClusterService, ...] = ()
    task_definitions: Mapping[str, TaskDefinition] = field(default_factory=dict)

    @classmethod
    def read(cls, clients: Clients) -> EcsSnapshot:
        """Read the active services, then the task definitions that they name."""
        return cls(*_services(clients))


def _services(clients: Clients) -> tuple[tuple[ClusterService, ...], dict[str, TaskDefinition]]:
    ecs = clients.client("ecs")
    services: list[ClusterService] = []
    for cluster in clients.pages("ecs", "list_clusters", "clusterArns"):
        arns = clients.pages("ecs", "list_services", "serviceArns", cluster=cluster)
        for start in range(0, len(arns), 10):  # DescribeServices takes ten
            found = ecs.describe_services(cluster=cluster, services=arns[start : start + 10])["services"]
            services += [_service(item) for item in found if item.get("status") == "ACTIVE"]
    wanted = {service.task_definition_arn for service in services}
    definitions = each(lambda arn: _task_definition(ecs, arn), wanted)
    return tuple(services), {definition.arn: definition for definition in definitions}


def _service(item: Mapping[str, Any]) -> ClusterService:
    wires = (item.get("networkConfiguration") or {}).get("awsvpcConfiguration")
    rollout = item.get("deploymentConfiguration") or {}
    primary: Mapping[str, Any] = next(iter(item.get("deployments") or []), {})
    name = item["serviceName"]
    return ClusterService(
        arn=item["serviceArn"],
        name=name,
        cluster=item["clusterArn"].rpartition("/")[2],
        desired=int(item.get("desiredCount") or 0),
        task_definition_arn=item["taskDefinition"],
        network=NetworkInterface(
            f"service {name}", tuple(wires["subnets"]), tuple(wires.get("securityGroups", []))
        )
        if wires
        else None,
        public_address=bool(wires and wires.get("assignPublicIp") == "ENABLED"),
        bindings=tuple(
            TargetBinding(binding["targetGroupArn"], binding["containerName"], int(binding["containerPort"]))
            for binding in item.get("loadBalancers") or []
            if binding.get("targetGroupArn")
        ),
        minimum_percent=int(rollout.get("minimumHealthyPercent", 100)),
        maximum_percent=int(rollout.get("maximumPercent", 200)),
        breaker=_circuit_breaker(rollout.get("deploymentCircuitBreaker") or {}),
        grace_seconds=float(item.get("healthCheckGracePeriodSeconds") or 0),
        deployment=primary.get("id", ""),
        unemulated=_unemulated(rollout),
    )


def _circuit_breaker(given: Mapping[str, Any]) -> CircuitBreaker:
    threshold = given.get("thresholdConfiguration") or {}
    kind, value = threshold.get("type") or "BOUNDED_PERCENT", threshold.get("value")
    percent = HALF if value is None else float(value)
    return CircuitBreaker(
        enabled=bool(given.get("enable")),
        rollback=bool(given.get("rollback")),
        resets=bool(given.get("resetOnHealthyTask", True)),
        percent=percent,
        bounded=kind == "BOUNDED_PERCENT",
        limit=int(percent) if kind == "COUNT" else None,
    )


def _unemulated(rollout: Mapping[str, Any]) -> str:
    strategy = rollout.get("strategy") or "ROLLING"
    if strategy != "ROLLING":
        return f"the deployment strategy {strategy}"
    if (rollout.get("alarms") or {}).get("enable"):
        return "deployment alarms"
    return "deployment lifecycle hooks" if rollout.get("lifecycleHooks") else ""


def _task_definition(ecs: Any, arn: str) -> TaskDefinition:
    item = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
    return TaskDefinition(
        arn=item["taskDefinitionArn"],
        family=item["family"],
        network_mode=item.get("networkMode") or "bridge",
        task_role_arn=item.get("taskRoleArn") or "",
        execution_role_arn=item.get("executionRoleArn") or "",
        vcpus=int(item.get("cpu") or sum(one.get("cpu") or 0 for one in item["containerDefinitions"])) / 1024,
        containers=tuple(_container(one) for one in item["containerDefinitions"]),
    )


def _container(item: Mapping[str, Any]) -> Container:
    logging = item.get("logConfiguration") or {}
    return Container(
        name=item["name"],
        image=item["image"],
        command=tuple(item.get("command") or ()),
        entrypoint=tuple(item.get("entryPoint") or ()),
        environment={entry["name"]: entry["value"] for entry in item.get("environment") or []},
        secrets={entry["name"]: entry["valueFrom"] for entry in item.get("secrets") or []},
        ports=tuple(int(entry["containerPort"]) for entry in item.get("portMappings") or []),
        log_driver=logging.get("logDriver", ""),
        log_options=logging.get("options") or {},
        essential=bool(item.get("essential", True)),
        stop_timeout=float(item.get("stopTimeout") or 30),
    )
