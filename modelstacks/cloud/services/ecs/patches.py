"""ECS: the settings of services, Fargate's limits, deployments that the data plane carries out.

A deployment is IN_PROGRESS until the data plane reports on it. One that fails is rolled back where the data
plane says so: the last completed one becomes the primary one again, under a new id.
"""

from __future__ import annotations

import secrets
from typing import Any

from botocore import xform_name
from moto.core.utils import utcnow
from moto.ecs.exceptions import EcsClientException, ECSException, InvalidParameterException
from moto.ecs.models import ecs_backends
from moto.ecs.responses import EC2ContainerServiceResponse
from moto.elbv2.models import elbv2_backends

from modelstacks.cloud.account.additions import Additions
from modelstacks.cloud.account.channel import CHANNEL, Report
from modelstacks.cloud.account.patching import afterwards, beforehand
from modelstacks.cloud.services.ecs.sizes import is_fargate_size

#: Parameters of CreateService and UpdateService that DescribeServices returns.
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

#: A container's settings in seconds, and their bounds, as the API's documentation states them.
_HEALTH_CHECK = {"interval": (5, 300), "timeout": (2, 60), "startPeriod": (0, 300)}
_FARGATE_STOP_TIMEOUT = 120
_FARGATE_STORAGE = (21, 200)  # GiB
#: The attributes of a service whose change starts a new deployment.
_REVISION = ("task_definition", "network_configuration", "load_balancers", "platform_version")


def _install() -> None:
    """Change moto's ECS."""
    _check_first()

    @afterwards(EC2ContainerServiceResponse, "create_service")
    def keep_settings(self: Any, answer: Any) -> Any:
        service = answer.result["service"]
        _keep(self, service)
        service.revisions = {}
        if service.deployments:
            _begin(service, service.deployments[0])
        return answer

    @afterwards(EC2ContainerServiceResponse, "update_service")
    def follow(self: Any, answer: Any) -> Any:
        service = answer.result["service"]
        _keep(self, service)
        if not service.deployments:
            return answer
        primary = service.deployments[0]
        if self._get_param("forceNewDeployment") or service.revisions[primary["id"]] != _revision(service):
            _supersede(service)
        else:
            service.deployments = [
                one for one in service.deployments if one is primary or one["rolloutState"] != "FAILED"
            ]
            primary |= {"desiredCount": service.desired_count, "updatedAt": utcnow()}
        _count(service)
        return answer


def _check_first() -> None:
    """Refuse tasks and services that ECS would refuse."""

    @beforehand(EC2ContainerServiceResponse, "register_task_definition")
    def check_task(self: Any) -> None:
        task = self._get_params()
        if "FARGATE" in task.get("requiresCompatibilities", []):
            _check_fargate(task)
        for container in task.get("containerDefinitions", []):
            _check_container(container, task)

    @beforehand(EC2ContainerServiceResponse, "create_service")
    def check_service(self: Any) -> None:
        _check_service(self, self._get_params())

    @beforehand(EC2ContainerServiceResponse, "update_service")
    def check_new_service(self: Any) -> None:
        changes = self._get_params()
        cluster, name = changes.get("cluster", "default"), changes["service"]
        found, _ = self.ecs_backend.describe_services(cluster, [name])
        for service in found:
            had = {
                "taskDefinition": service.task_definition,
                "loadBalancers": service.load_balancers or [],
                "networkConfiguration": service.network_configuration,
                "launchType": service.launch_type,
            }
            _check_service(self, {**had, **changes})


def _hear(account: str, report: Report) -> None:
    """Take over what the data plane reports of a service's primary deployment."""
    services = ecs_backends[account][report.arn.split(":")[3]].services.values()
    service = next((one for one in services if one.arn == report.arn and one.status == "ACTIVE"), None)
    if service is None or not service.deployments or service.deployments[0]["id"] != report.generation:
        return
    primary = service.deployments[0]
    primary |= {"runningCount": report.running, "updatedAt": utcnow()}
    if report.state == "stable":
        primary |= {
            "rolloutState": "COMPLETED",
            "rolloutStateReason": f"ECS deployment {primary['id']} completed.",
        }
        service.deployments = [primary]
    elif report.state == "failed":
        primary |= {"rolloutState": "FAILED", "rolloutStateReason": report.reason}
        if report.revision:
            _roll_back(service)
            CHANNEL.announce()
    _count(service)


def _revision(service: Any) -> dict[str, Any]:
    """What a deployment is made from: another value is another deployment."""
    return {name: getattr(service, name, None) for name in _REVISION}


def _begin(service: Any, deployment: dict[str, Any]) -> None:
    """A deployment starts; without a data plane, it is completed at once."""
    attached = CHANNEL.attached
    running = 0 if attached else service.desired_count
    state = "IN_PROGRESS" if attached else "COMPLETED"
    deployment |= {
        "taskDefinition": service.task_definition,
        "desiredCount": service.desired_count,
        "networkConfiguration": service.network_configuration,
        "runningCount": running,
        "pendingCount": service.desired_count - running,
        "rolloutState": state,
        "rolloutStateReason": f"ECS deployment {deployment['id']} {state.lower().replace('_', ' ')}.",
        "updatedAt": utcnow(),
    }
    service.revisions[deployment["id"]] = _revision(service)
    _count(service)


def _supersede(service: Any) -> None:
    """A new primary deployment; the last completed one is kept until the new one is completed."""
    before = [one for one in service.deployments if one["rolloutState"] == "COMPLETED"]
    fresh = service.deployments[0] | {
        "id": f"ecs-svc/{secrets.randbelow(10**19):019}",
        "status": "PRIMARY",
        "createdAt": utcnow(),
    }
    service.deployments = [fresh, *(one | {"status": "ACTIVE"} for one in before)]
    _begin(service, fresh)
    if not CHANNEL.attached:
        service.deployments = [fresh]


def _roll_back(service: Any) -> None:
    """The circuit breaker: the last completed deployment starts again."""
    failed = service.deployments[0]
    completed = next(one for one in service.deployments if one["rolloutState"] == "COMPLETED")
    for name, value in service.revisions[completed["id"]].items():
        setattr(service, name, value)
    running = completed["runningCount"]
    _supersede(service)
    service.deployments = [
        service.deployments[0] | {"runningCount": running},
        failed | {"status": "ACTIVE", "runningCount": 0},
    ]


def _count(service: Any) -> None:
    service.running_count = sum(one["runningCount"] for one in service.deployments)
    service.pending_count = max(0, service.desired_count - service.running_count)


def _keep(response: Any, service: Any) -> None:
    for member in _KEPT:
        if (value := response._get_param(member)) is not None:
            setattr(service, xform_name(member), value)


def _check_fargate(task: dict[str, Any]) -> None:
    """Raise what RegisterTaskDefinition raises for a task that Fargate cannot run."""
    if task.get("networkMode") != "awsvpc":
        raise EcsClientException("Fargate only supports network mode \u2018awsvpc\u2019.")
    for name in ("cpu", "memory"):
        if not task.get(name):
            raise EcsClientException(f"Fargate requires that '{name}' be defined at the task level.")
    cpu, memory = str(task["cpu"]), str(task["memory"])
    if not is_fargate_size(cpu, memory):
        raise EcsClientException(
            f"No Fargate configuration exists for given values: {cpu} CPU, {memory} memory. "
            "See the Amazon ECS documentation for the valid values."
        )
    size = int(task.get("ephemeralStorage", {}).get("sizeInGiB") or _FARGATE_STORAGE[0])
    if not _FARGATE_STORAGE[0] <= size <= _FARGATE_STORAGE[1]:
        raise EcsClientException(
            f"Invalid 'ephemeralStorage' setting: {size} GiB is not between {_FARGATE_STORAGE[0]} and "
            f"{_FARGATE_STORAGE[1]} GiB."
        )
    containers = task.get("containerDefinitions", [])
    drivers = {one.get("logConfiguration", {}).get("logDriver") for one in containers}
    needs = [
        what
        for what, needed in (
            ("support log driver awslogs", "awslogs" in drivers),
            ("support ECR images", any(".dkr.ecr." in str(one.get("image", "")) for one in containers)),
        )
        if needed
    ]
    if needs and not task.get("executionRoleArn"):
        raise EcsClientException(
            f"Fargate requires task definition to have execution role ARN to {needs[0]}."
        )
    for container in containers:
        if int(container.get("stopTimeout") or 0) > _FARGATE_STOP_TIMEOUT:
            raise EcsClientException(
                f"Invalid 'stopTimeout' setting for container '{container['name']}': the maximum on Fargate "
                f"is {_FARGATE_STOP_TIMEOUT} seconds."
            )


def _check_container(container: dict[str, Any], task: dict[str, Any]) -> None:
    """A container fits into its task, and its health check into the API's bounds."""
    name = container.get("name")
    for setting in ("cpu", "memory"):
        whole, part = str(task.get(setting) or ""), container.get(setting)
        if whole.isdecimal() and part and int(part) > int(whole):
            raise EcsClientException(
                f"The '{setting}' setting for container '{name}' is greater than for the task."
            )
    for setting, value in container.get("healthCheck", {}).items():
        least, most = _HEALTH_CHECK.get(setting, (None, None))
        if least is not None and most is not None and not least <= int(value) <= most:
            raise EcsClientException(
                f"Invalid health check '{setting}' of container '{name}': {value} is not between {least} and "
                f"{most} seconds."
            )


def _check_service(response: Any, service: dict[str, Any]) -> None:
    """What CreateService and UpdateService refuse of a service's task, network and target groups."""
    try:
        task = response.ecs_backend.describe_task_definition(service["taskDefinition"])
    except (ECSException, KeyError):
        return  # moto says what is missing
    mode = task.network_mode or "bridge"
    configured = bool(service.get("networkConfiguration"))
    if mode == "awsvpc" and not configured:
        raise InvalidParameterException(
            "Network Configuration must be provided when networkMode 'awsvpc' is specified."
        )
    if mode != "awsvpc" and configured:
        raise InvalidParameterException(
            "Network Configuration is not valid for the given networkMode of this task definition."
        )
    if service.get("launchType") == "FARGATE" and "FARGATE" not in (task.requires_compatibilities or []):
        raise InvalidParameterException("Task definition does not support launch_type FARGATE.")
    balancing = elbv2_backends[response.current_account][response.region]
    for target in service.get("loadBalancers") or []:
        _check_container_port(target, task)
        if arn := target.get("targetGroupArn"):
            _check_target_group(arn, mode, balancing)


def _check_container_port(target: dict[str, Any], task: Any) -> None:
    name, port = target.get("containerName"), target.get("containerPort")
    container = next((one for one in task.container_definitions if one["name"] == name), None)
    if container is None:
        raise InvalidParameterException(f"The container {name} does not exist in the task definition.")
    if port not in [mapping.get("containerPort") for mapping in container.get("portMappings", [])]:
        raise InvalidParameterException(f"The container {name} did not have a container port {port} defined.")


def _check_target_group(arn: str, mode: str, balancing: Any) -> None:
    group = balancing.target_groups.get(arn)
    if group is None:
        raise InvalidParameterException(f"The specified target group does not exist. (target group {arn})")
    kind = group.target_type or "instance"
    if (kind == "ip") != (mode == "awsvpc"):
        raise InvalidParameterException(
            f"The provided target group {arn} has target type {kind}, which is incompatible with the {mode} "
            "network mode specified in the task definition."
        )
    if not _has_load_balancer(arn, balancing):
        raise InvalidParameterException(
            f"The target group with targetGroupArn {arn} does not have an associated load balancer."
        )


def _has_load_balancer(arn: str, balancing: Any) -> bool:
    """Whether a listener or a rule forwards to the target group."""
    return any(
        arn in _forwarded(action.data)
        for balancer in balancing.load_balancers.values()
        for listener in balancer.listeners.values()
        for actions in (listener.default_actions, *(rule.actions for rule in listener.rules.values()))
        for action in actions
    )


def _forwarded(action: dict[str, Any]) -> set[str | None]:
    groups = action.get("ForwardConfig", {}).get("TargetGroups", [])
    return {group.get("TargetGroupArn") for group in groups} | {action.get("TargetGroupArn")}


ADDITIONS = Additions(install=_install, hears={"ecs-service": _hear})
