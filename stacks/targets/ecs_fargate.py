"""ecs-fargate: tasks that each hold a copy of the model, behind an internal load balancer."""

from __future__ import annotations

from aws_cdk.aws_ecs import CfnTaskDefinition
from aws_cdk.aws_iam import CfnPolicy
from aws_cdk.aws_logs import CfnLogGroup
from constructs import Construct

from modelstacks.core.contract import SERVER_ENVIRONMENT_PREFIX
from modelstacks.core.plan import ModelServer, Plan
from modelstacks.targets.ecs_fargate import EcsFargate

from ..constructs.ecs_service import (
    LAYERS,
    STOP_SECONDS,
    ServiceCapacity,
    ServingService,
    ServingTask,
    serving_cluster,
    start_role,
    task_group,
    task_role,
)
from ..constructs.logs import log_group
from ..constructs.model_data import ModelData
from ..constructs.private_integration import PrivateIntegration
from ..constructs.serving_image import ServingImage
from . import Backend, Foundation, hosted, service_backend


def build(scope: Construct, plan: Plan, foundation: Foundation) -> Backend:
    """A Fargate service and the load balancer in front of it."""
    target = plan.target
    if not isinstance(target, EcsFargate):
        raise TypeError(f"ecs-fargate cannot build {target!r}")
    (server, model_data), retention = hosted(plan, foundation), plan.logs.retention_days
    image = ServingImage(scope, "Image", arguments=server.image_arguments, processor=target.processor)
    log = log_group(scope, "Logs", key=foundation.key, retention_days=retention)
    network = foundation.network([*model_data.passes(), LAYERS])
    group = task_group(scope, network, image=image, log=log)
    front = PrivateIntegration(
        scope,
        f"Front{network.generation}",
        name=plan.stack_name,
        network=network,
        targets=group,
        drain_seconds=STOP_SECONDS,
        timeout_seconds=plan.api.timeout_seconds,
        log_retention_days=retention,
    )
    task, may_read = _task(scope, plan, target, server, model_data, image, log)
    service = ServingService(
        scope,
        f"Service{network.generation}",
        cluster=serving_cluster(scope),
        task=task,
        network=network,
        group=group,
        more_groups=foundation.security_groups,
        front=front,
        launch_type="FARGATE",
    )
    service.add_resource_dependency(may_read)
    ServiceCapacity(
        scope,
        "Capacity",
        name=plan.stack_name,
        limits=plan.scaling,
        cpu_percent=target.cpu_percent,
        service=service,
        front=front,
    )
    return service_backend(service, front, log)


def _task(
    scope: Construct,
    plan: Plan,
    target: EcsFargate,
    server: ModelServer,
    model_data: ModelData,
    image: ServingImage,
    log: CfnLogGroup,
) -> tuple[ServingTask, CfnPolicy]:
    """The task, and the policy by which it may read the model."""
    start = start_role(scope, image=image, log=log)
    role = task_role(scope)
    may_read = model_data.grant_read(scope, role)
    task = ServingTask(
        scope,
        "Task",
        family=plan.stack_name,
        image=image,
        log=log,
        environment={
            **server.environment,
            f"{SERVER_ENVIRONMENT_PREFIX}MODEL_URI": model_data.uri,
            f"{SERVER_ENVIRONMENT_PREFIX}MODEL_SHA256": model_data.sha256,
        },
        start_role=start,
        role=role,
        requires_compatibilities=["FARGATE"],
        cpu=str(target.cpu),
        memory=str(target.memory_mib),
        # 20 GiB come with a task and cannot be asked for: 21 is the least that can be.
        ephemeral_storage=CfnTaskDefinition.EphemeralStorageProperty(
            size_in_gib=target.ephemeral_storage_gib
        ),
        runtime_platform=CfnTaskDefinition.RuntimePlatformProperty(
            cpu_architecture=target.processor.upper(), operating_system_family="LINUX"
        ),
    )
    return task, may_read
