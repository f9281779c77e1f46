"""ecs-fargate: tasks that each hold a copy of the model, behind an internal load balancer."""

from __future__ import annotations

from aws_cdk import Aws
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_logs as logs
from constructs import Construct

from modelstacks.core.contract import SERVER_ENVIRONMENT_PREFIX, SERVER_PORT
from modelstacks.core.plan import ModelServer, Plan
from modelstacks.targets.ecs_fargate import EcsFargate

from ..constructs.iam import allow, service_role
from ..constructs.logs import log_group
from ..constructs.model_data import ModelData
from ..constructs.nag import acknowledge
from ..constructs.network import HTTPS, Addresses, Hop, Network, SecurityGroup
from ..constructs.private_integration import PrivateIntegration
from ..constructs.serving_image import ServingImage
from . import Backend, Foundation, Output

CONTAINER = "model-server"
# Where the container may write; everything else of its file system is read-only.
WRITABLE = {"model": "/opt/ml/model", "tmp": "/tmp"}  # noqa: S108  the container's own, a volume
USER = "1000:1000"  # serving/Dockerfile makes it; the image names no user, since SageMaker needs root
STOP_SECONDS = 30  # SIGTERM to SIGKILL; the model server drains for at most 25 of them
# From the start of a task to its first healthy check: pull the image, fetch the model, load it, warm up.
STARTUP_SECONDS = 300


def build(scope: Construct, plan: Plan, foundation: Foundation) -> Backend:
    """A Fargate service and the load balancer in front of it."""
    target = plan.target
    if not isinstance(target, EcsFargate):
        raise TypeError(f"ecs-fargate cannot build {target!r}")
    runtime = plan.runtime
    key, model_data, retention = foundation.key, foundation.model_data, plan.logs.retention_days
    if not isinstance(runtime, ModelServer) or model_data is None:
        raise TypeError(f"ecs-fargate runs the model server, not {plan.model.source}")
    image = ServingImage(scope, "Image", arguments=runtime.image_arguments, processor=target.architecture)
    logs_of_tasks = log_group(scope, "Logs", key=key, retention_days=retention)

    network = Network(
        scope,
        "Network",
        addresses=Addresses.of(plan.network),
        zones=plan.aws.zones if plan.aws else None,
        key=key,
        retention_days=retention,
        s3=[
            *model_data.passes(),
            # ECR keeps images' layers in this bucket of its own.
            allow("s3:GetObject", f"arn:{Aws.PARTITION}:s3:::prod-{Aws.REGION}-starport-layer-bucket/*"),
        ],
    )
    write_logs = allow(["logs:CreateLogStream", "logs:PutLogEvents"], logs_of_tasks.attr_arn)
    of_this_account = {"StringEquals": {"aws:PrincipalAccount": Aws.ACCOUNT_ID}}
    pull = [{**statement, "Principal": "*", "Condition": of_this_account} for statement in image.may_pull()]
    called = {
        "EcrApi": network.interface_endpoint("EcrApi", service="ecr.api", statements=pull),
        "EcrDocker": network.interface_endpoint("EcrDocker", service="ecr.dkr", statements=pull),
        "Logs": network.interface_endpoint(
            "LogsApi",
            service="logs",
            statements=[{**write_logs, "Principal": "*", "Condition": of_this_account}],
        ),
    }
    tasks = SecurityGroup(
        scope,
        "Tasks",
        vpc_id=network.vpc_id,
        description="model server tasks",
        hops=[
            *(Hop(guard, HTTPS, f"tasks to {name}") for name, guard in called.items()),
            Network.TO_S3,
        ],
    )
    front = PrivateIntegration(
        scope,
        f"Front{network.generation}",
        name=plan.stack_name,
        network=network,
        targets=tasks,
        drain_seconds=STOP_SECONDS,
        timeout_seconds=plan.api.timeout_seconds,
        log_retention_days=retention,
    )

    pull_and_log = service_role(
        scope,
        "ExecutionRole",
        service="ecs-tasks.amazonaws.com",
        description="ECS pulls the image and writes the logs",
        policies={"start": [*image.may_pull(), write_logs]},
    )
    acknowledge(pull_and_log, "IAM5[Resource::*]", "ecr:GetAuthorizationToken has no resource to name")
    task_role = service_role(
        scope,
        "TaskRole",
        service="ecs-tasks.amazonaws.com",
        description="the model server fetches its model",
        policies={},
    )
    may_read = model_data.grant_read(scope, task_role)
    definition = ecs.CfnTaskDefinition(
        scope,
        "Task",
        family=plan.stack_name,
        requires_compatibilities=["FARGATE"],
        network_mode="awsvpc",
        cpu=str(target.cpu),
        memory=str(target.memory_mib),
        # 20 GiB come with a task and cannot be asked for: 21 is the least that can be.
        ephemeral_storage=ecs.CfnTaskDefinition.EphemeralStorageProperty(
            size_in_gib=target.ephemeral_storage_gib
        ),
        runtime_platform=ecs.CfnTaskDefinition.RuntimePlatformProperty(
            cpu_architecture=target.architecture.upper(), operating_system_family="LINUX"
        ),
        execution_role_arn=pull_and_log.attr_arn,
        task_role_arn=task_role.attr_arn,
        volumes=[ecs.CfnTaskDefinition.VolumeProperty(name=name) for name in WRITABLE],
        container_definitions=[_container(runtime, model_data, image, logs_of_tasks)],
    )
    acknowledge(
        definition,
        "ECS2",
        "the model server's settings: bounds, names and a digest. There is no secret among them",
    )
    cluster = ecs.CfnCluster(
        scope,
        "Cluster",
        cluster_settings=[ecs.CfnCluster.ClusterSettingsProperty(name="containerInsights", value="enhanced")],
    )
    service = ecs.CfnService(
        scope,
        f"Service{network.generation}",
        cluster=cluster.attr_arn,
        task_definition=definition.ref,
        launch_type="FARGATE",
        # No desired count: an update that names one sets it, whatever autoscaling has made of it. A new
        # service starts with one task, and the scalable target raises that to its minimum.
        availability_zone_rebalancing="ENABLED",
        health_check_grace_period_seconds=STARTUP_SECONDS,
        deployment_configuration=ecs.CfnService.DeploymentConfigurationProperty(
            minimum_healthy_percent=100,
            maximum_percent=200,
            deployment_circuit_breaker=ecs.CfnService.DeploymentCircuitBreakerProperty(
                enable=True, rollback=True
            ),
        ),
        network_configuration=ecs.CfnService.NetworkConfigurationProperty(
            awsvpc_configuration=ecs.CfnService.AwsVpcConfigurationProperty(
                subnets=network.subnet_ids, security_groups=[tasks.group_id], assign_public_ip="DISABLED"
            )
        ),
        load_balancers=[
            ecs.CfnService.LoadBalancerProperty(
                container_name=CONTAINER,
                container_port=SERVER_PORT,
                target_group_arn=front.target_group.ref,
            )
        ],
        enable_ecs_managed_tags=True,
        enable_execute_command=False,
        propagate_tags="SERVICE",
    )
    # ECS refuses a target group that no listener uses yet. Tasks pull their image, fetch their model and
    # write logs through the VPC's endpoints: a task that starts before these are there fails, and enough of
    # them trip the circuit breaker.
    for needed in (front.rule, may_read, *network.ready, *tasks.opened, *front.opened):
        service.add_resource_dependency(needed)
    _autoscale(scope, plan, front, f"service/{cluster.ref}/{service.attr_name}")
    return Backend(
        integrate=front.integrate,
        # The service too: an update that replaces balancer and service moves the API to tasks that are ready.
        before_methods=(front.listener, service),
        identity=front.identity,
        outputs=(
            Output("ClusterName", "ECS cluster", cluster.ref),
            Output("ServiceName", "ECS service", service.attr_name),
            Output("LogGroupName", "what the model servers write", logs_of_tasks.ref),
        ),
    )


def _container(
    runtime: ModelServer, model_data: ModelData, image: ServingImage, log: logs.CfnLogGroup
) -> ecs.CfnTaskDefinition.ContainerDefinitionProperty:
    environment = {
        **runtime.environment,
        f"{SERVER_ENVIRONMENT_PREFIX}MODEL_URI": model_data.uri,
        f"{SERVER_ENVIRONMENT_PREFIX}MODEL_SHA256": model_data.sha256,
    }
    task = ecs.CfnTaskDefinition
    return task.ContainerDefinitionProperty(
        name=CONTAINER,
        image=image.uri,
        essential=True,
        port_mappings=[task.PortMappingProperty(container_port=SERVER_PORT, protocol="tcp")],
        environment=[
            task.KeyValuePairProperty(name=name, value=value) for name, value in sorted(environment.items())
        ],
        user=USER,
        readonly_root_filesystem=True,
        mount_points=[
            task.MountPointProperty(source_volume=name, container_path=path, read_only=False)
            for name, path in WRITABLE.items()
        ],
        linux_parameters=task.LinuxParametersProperty(
            capabilities=task.KernelCapabilitiesProperty(drop=["ALL"]), init_process_enabled=True
        ),
        stop_timeout=STOP_SECONDS,
        log_configuration=task.LogConfigurationProperty(
            log_driver="awslogs",
            options={
                "awslogs-group": log.ref,
                "awslogs-region": Aws.REGION,
                "awslogs-stream-prefix": "task",
                # A slow log service must not hold up predictions.
                "mode": "non-blocking",
                "max-buffer-size": "25m",
            },
        ),
    )


def _autoscale(scope: Construct, plan: Plan, front: PrivateIntegration, resource_id: str) -> None:
    """Follow the concurrency that each task sees, and its CPU; whichever asks for more tasks wins."""
    capacity = scaling.CfnScalableTarget(
        scope,
        "Capacity",
        service_namespace="ecs",
        scalable_dimension="ecs:service:DesiredCount",
        resource_id=resource_id,
        min_capacity=plan.scaling.min_replicas,
        max_capacity=plan.scaling.max_replicas,
    )
    policy = scaling.CfnScalingPolicy
    tracking = {
        "Cpu": policy.TargetTrackingScalingPolicyConfigurationProperty(
            target_value=plan.scaling.cpu_percent,
            predefined_metric_specification=policy.PredefinedMetricSpecificationProperty(
                predefined_metric_type="ECSServiceAverageCPUUtilization"
            ),
            scale_out_cooldown=60,
            scale_in_cooldown=300,
        ),
        "Concurrency": policy.TargetTrackingScalingPolicyConfigurationProperty(
            target_value=plan.scaling.concurrent_requests_per_replica,
            customized_metric_specification=policy.CustomizedMetricSpecificationProperty(
                metrics=_concurrency_per_task(front)
            ),
            scale_out_cooldown=60,
            scale_in_cooldown=300,
        ),
    }
    for name, configuration in tracking.items():
        policy(
            scope,
            f"ScaleOn{name}",
            policy_name=f"{plan.stack_name}-{name.lower()}",
            policy_type="TargetTrackingScaling",
            scaling_target_id=capacity.ref,
            target_tracking_scaling_policy_configuration=configuration,
        )


def _concurrency_per_task(
    front: PrivateIntegration,
) -> list[scaling.CfnScalingPolicy.TargetTrackingMetricDataQueryProperty]:
    """Scale on the requests in flight per task.

    Little's law gives them: arrivals a second times seconds each, divided by the healthy tasks. A load
    balancer counts requests and times them but publishes no concurrency of its own.
    """
    policy = scaling.CfnScalingPolicy
    dimensions = [
        policy.TargetTrackingMetricDimensionProperty(name="LoadBalancer", value=front.full_name),
        policy.TargetTrackingMetricDimensionProperty(
            name="TargetGroup", value=front.target_group.attr_target_group_full_name
        ),
    ]
    measured = [
        policy.TargetTrackingMetricDataQueryProperty(
            id=id_,
            return_data=False,
            metric_stat=policy.TargetTrackingMetricStatProperty(
                stat=stat,
                metric=policy.TargetTrackingMetricProperty(
                    namespace="AWS/ApplicationELB", metric_name=metric, dimensions=dimensions
                ),
            ),
        )
        for id_, metric, stat in (
            ("requests", "RequestCount", "Sum"),
            ("seconds", "TargetResponseTime", "Average"),
            ("tasks", "HealthyHostCount", "Average"),
        )
    ]
    concurrency = policy.TargetTrackingMetricDataQueryProperty(
        id="concurrency",
        label="requests in flight per task",
        # A minute without requests has no data points; filled with zeros, it still lets the service scale in.
        expression="FILL(requests, 0) / PERIOD(requests) * FILL(seconds, 0) / tasks",
        return_data=True,
    )
    return [*measured, concurrency]
