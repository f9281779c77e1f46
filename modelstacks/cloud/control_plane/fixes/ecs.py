"""ECS: services that remember their deployment settings, and a primary deployment that follows an update."""

from __future__ import annotations

from typing import Any

from botocore import xform_name
from moto.core.utils import utcnow
from moto.ecs.responses import EC2ContainerServiceResponse

from modelstacks.cloud.control_plane.fixes import afterwards

#: What CreateService and UpdateService are told of, and DescribeServices should say.
_KEPT = (
    "availabilityZoneRebalancing",
    "capacityProviderStrategy",
    "deploymentConfiguration",
    "enableECSManagedTags",
    "enableExecuteCommand",
    "healthCheckGracePeriodSeconds",
    "loadBalancers",
    "networkConfiguration",
    "placementConstraints",
    "placementStrategy",
    "platformVersion",
)


def install() -> None:
    """Change moto's ECS."""

    @afterwards(EC2ContainerServiceResponse, "create_service")
    def keep_settings(self: Any, answer: Any) -> Any:
        _keep(self, answer.result["service"])
        return answer

    @afterwards(EC2ContainerServiceResponse, "update_service")
    def follow(self: Any, answer: Any) -> Any:
        service = answer.result["service"]
        _keep(self, service)
        for deployment in service.deployments[:1]:
            changed = {
                "taskDefinition": service.task_definition,
                "desiredCount": service.desired_count,
                "networkConfiguration": service.network_configuration,
            }
            if any(deployment.get(key) != value for key, value in changed.items()):
                deployment |= changed | {"updatedAt": utcnow()}
        return answer


def _keep(response: Any, service: Any) -> None:
    for member in _KEPT:
        if (value := response._get_param(member)) is not None:  # noqa: SLF001  moto's way to read a request
            setattr(service, xform_name(member), value)
