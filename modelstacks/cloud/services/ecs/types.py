"""AWS::ECS: clusters, task definitions, services."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import uuid4

from modelstacks.cloud.clock import SPEEDUP
from modelstacks.cloud.cloudformation.resource import (
    LONGEST_STABILISATION,
    Properties,
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
    ignoring,
    provides,
)

_FAILED_STARTS = 3  # that a circuit breaker waits for at least
_FIXED_WHEN_MADE = (
    "ServiceName",
    "Cluster",
    "LaunchType",
    "SchedulingStrategy",
    "DeploymentController",
    "Role",
)


@provides("AWS::ECS::Cluster")
class Cluster(ResourceType):
    """A cluster. Ref is its name."""

    immutable: ClassVar = frozenset({"ClusterName"})

    def create(self, request: Request) -> Provisioned:
        name = request.properties.get("ClusterName") or request.generated_name()
        settings = request.without("ClusterName", "ClusterSettings")
        arn = request.call("ecs", "CreateCluster", settings, clusterName=name, **self._settings(request))[
            "cluster"
        ]["clusterArn"]
        return Provisioned(name, {"Arn": arn})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        changes = request.only("Configuration", "ServiceConnectDefaults")
        request.call("ecs", "UpdateCluster", changes, cluster=current.physical_id, **self._settings(request))
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("ClusterNotFoundException"):
            request.client("ecs").delete_cluster(cluster=current.physical_id)

    @staticmethod
    def _settings(request: Request) -> dict[str, Any]:
        settings = request.properties.get("ClusterSettings", [])
        return (
            {"settings": [{"name": one["Name"], "value": one["Value"]} for one in settings]}
            if settings
            else {}
        )


@provides("AWS::ECS::TaskDefinition")
class TaskDefinition(ResourceType):
    """A task definition; any change registers a new revision."""

    def create(self, request: Request) -> Provisioned:
        family = request.properties.get("Family") or request.generated_name()
        arn = request.call("ecs", "RegisterTaskDefinition", request.without("Family"), family=family)[
            "taskDefinition"
        ]["taskDefinitionArn"]
        return Provisioned(arn, {"TaskDefinitionArn": arn})

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("ClientException"):
            request.client("ecs").deregister_task_definition(taskDefinition=current.physical_id)


@provides("AWS::ECS::Service")
class Service(ResourceType):
    """A service. It is stable when its deployment is completed and as many tasks run as are desired."""

    immutable: ClassVar = frozenset(_FIXED_WHEN_MADE)

    def create(self, request: Request) -> Provisioned:
        name = request.properties.get("ServiceName") or request.generated_name()
        given = {"DesiredCount": 1, **request.without("ServiceName")}  # AWS's default for a new service
        arn = request.call("ecs", "CreateService", given, serviceName=name)["service"]["serviceArn"]
        return Provisioned(arn, {"Name": name, "ServiceArn": arn})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        changes = request.without(*_FIXED_WHEN_MADE, "Tags")
        cluster = {"cluster": request.properties["Cluster"]} if "Cluster" in request.properties else {}
        request.call("ecs", "UpdateService", changes, service=current.attributes["Name"], **cluster)
        return current

    def stabilised(self, request: Request, current: Provisioned) -> Provisioned | None:
        cluster = {"cluster": request.properties["Cluster"]} if "Cluster" in request.properties else {}
        name = current.attributes["Name"]
        (service,) = request.client("ecs").describe_services(services=[name], **cluster)["services"]
        deployments = service["deployments"]
        if not deployments:  # another deployment controller: there is nothing to wait for
            return current
        wanted = request.properties.get("TaskDefinition", "")
        for one in deployments:
            if one["rolloutState"] == "FAILED" and one["taskDefinition"].endswith(wanted):
                raise ResourceError(
                    "Resource handler returned message: \"Error occurred during operation 'ECS Deployment "
                    f"Circuit Breaker was triggered'.\" (RequestToken: {uuid4()}, HandlerErrorCode: "
                    f"GeneralServiceException): {one['rolloutStateReason']}"
                )
        running = service["runningCount"] == service["desiredCount"]
        return current if deployments[0]["rolloutState"] == "COMPLETED" and running else None

    def stabilises_within(self, request: Request) -> float:
        """Three hours, which pass faster here; the time that tasks are given to start does not."""
        grace = float(request.properties.get("HealthCheckGracePeriodSeconds") or 0)
        return LONGEST_STABILISATION / SPEEDUP + _FAILED_STARTS * grace

    def delete(self, request: Request, current: Provisioned) -> None:
        cluster = {"cluster": request.properties["Cluster"]} if "Cluster" in request.properties else {}
        with ignoring("ServiceNotFoundException", "ClusterNotFoundException"):
            request.client("ecs").delete_service(service=current.attributes["Name"], force=True, **cluster)
