"""ECS refuses tasks that Fargate cannot run and services that do not fit their task."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.control_plane import Account
from support.templates import BALANCED, targets

from modelstacks.cloud.services.ecs.sizes import is_fargate_size
from modelstacks.targets.ecs_fargate import SIZES


def task(**properties: Any) -> dict[str, Any]:
    container = {"Name": "server", "Image": "public/image:1", "PortMappings": [{"ContainerPort": 8080}]}
    own = {
        "Cpu": "256",
        "Memory": "512",
        "NetworkMode": "awsvpc",
        "RequiresCompatibilities": ["FARGATE"],
        "ContainerDefinitions": [{**container, **properties.pop("container", {})}],
        **properties,
    }
    kept = {name: value for name, value in own.items() if value is not None}
    return {"Type": "AWS::ECS::TaskDefinition", "Properties": kept}


AWSLOGS = {"LogDriver": "awslogs", "Options": {"awslogs-group": "g", "awslogs-region": "eu-west-1"}}


@pytest.mark.parametrize(
    ("faulty", "reason"),
    [
        (
            task(Cpu="512", Memory="512"),
            "No Fargate configuration exists for given values: 512 CPU, 512 memory.",
        ),
        (task(Cpu="300"), "No Fargate configuration exists for given values: 300 CPU, 512 memory."),
        (task(Cpu=None), "Fargate requires that 'cpu' be defined at the task level."),
        (task(Memory=None), "Fargate requires that 'memory' be defined at the task level."),
        (task(NetworkMode="bridge"), "Fargate only supports network mode"),
        (
            task(container={"LogConfiguration": AWSLOGS}),
            "Fargate requires task definition to have execution role ARN to support log driver awslogs.",
        ),
        (
            task(container={"Image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/images:1"}),
            "Fargate requires task definition to have execution role ARN to support ECR images.",
        ),
        (task(container={"StopTimeout": 121}), "Invalid 'stopTimeout' setting for container 'server'"),
        (
            task(container={"Memory": 1024}),
            "The 'memory' setting for container 'server' is greater than for the task.",
        ),
        (
            task(container={"HealthCheck": {"Command": ["CMD", "true"], "Interval": 4}}),
            "Invalid health check 'interval' of container 'server': 4 is not between 5 and 300 seconds.",
        ),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_a_fargate_task_is_refused(account: Account, faulty: dict[str, Any], reason: str) -> None:
    found = account.refuse("tasks", {"Task": faulty})["Task"]
    assert found.startswith(reason)
    assert "Error Code: ClientException" in found


def test_fargate_s_sizes_are_those_that_a_spec_may_ask_for() -> None:
    for cpu, offered in SIZES.items():
        for memory in range(512, 131_072, 512):
            assert is_fargate_size(str(cpu), str(memory)) == (memory in offered), (cpu, memory)


def service(**changes: Any) -> dict[str, Any]:
    network = {"Subnets": [{"Ref": "Subnet"}], "SecurityGroups": [{"Ref": "Group"}]}
    balanced = {"ContainerName": "server", "ContainerPort": 8080, "TargetGroupArn": {"Ref": "Targets"}}
    own = {
        "Cluster": {"Ref": "Cluster"},
        "TaskDefinition": {"Ref": "Task"},
        "LaunchType": "FARGATE",
        "NetworkConfiguration": {"AwsvpcConfiguration": network},
        "LoadBalancers": [{**balanced, **changes.pop("balanced", {})}],
        **changes,
    }
    kept = {name: value for name, value in own.items() if value is not None}
    return {"Type": "AWS::ECS::Service", "DependsOn": "Listener", "Properties": kept}


SERVICE = BALANCED | {"Cluster": {"Type": "AWS::ECS::Cluster"}, "Task": task(), "Service": service()}


#: On instances, in their network.
BRIDGED = {
    "Task": task(NetworkMode="bridge", RequiresCompatibilities=["EC2"], container={"Memory": 256}),
    "Service": service(LaunchType="EC2", NetworkConfiguration=None),
}


@pytest.mark.parametrize(
    ("faulty", "reason"),
    [
        (
            SERVICE | {"Targets": targets(TargetType="instance")},
            "has target type instance, which is incompatible with the awsvpc network mode specified",
        ),
        (
            SERVICE | BRIDGED,
            "has target type ip, which is incompatible with the bridge network mode specified",
        ),
        (
            SERVICE | {"Service": service(NetworkConfiguration=None)},
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
        ),
        (
            SERVICE | {"Service": service(balanced={"ContainerPort": 9090})},
            "The container server did not have a container port 9090 defined.",
        ),
        (
            SERVICE | {"Service": service(balanced={"ContainerName": "other"})},
            "The container other does not exist in the task definition.",
        ),
        (
            SERVICE | {"Task": task(RequiresCompatibilities=["EC2"], container={"Memory": 256})},
            "Task definition does not support launch_type FARGATE.",
        ),
        (
            {name: one for name, one in SERVICE.items() if name != "Listener"}
            | {"Service": {name: one for name, one in service().items() if name != "DependsOn"}},
            "does not have an associated load balancer.",
        ),
    ],
    ids=[
        "target type instance",
        "target type ip",
        "network",
        "port",
        "container",
        "launch type",
        "no listener",
    ],
)
def test_a_service_is_refused(account: Account, faulty: dict[str, Any], reason: str) -> None:
    found = account.refuse("services", faulty)["Service"]
    assert reason in found
    assert "Error Code: InvalidParameterException" in found


def test_a_service_is_not_updated_to_a_task_that_does_not_fit(account: Account) -> None:
    ids = account.create("fitting", SERVICE)
    ecs = account.client("ecs")
    other = ecs.register_task_definition(
        family="other",
        cpu="256",
        memory="512",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        containerDefinitions=[{"name": "other", "image": "public/image:1"}],
    )["taskDefinition"]["taskDefinitionArn"]
    with pytest.raises(ClientError, match="container server does not exist in the task definition"):
        ecs.update_service(cluster=ids["Cluster"], service=ids["Service"], taskDefinition=other)
    account.client("ecs").update_service(cluster=ids["Cluster"], service=ids["Service"], desiredCount=2)
