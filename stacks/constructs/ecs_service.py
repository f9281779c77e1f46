"""Model servers on ECS, whichever capacity runs them: the task, the service, and how it scales.

Each is the CloudFormation resource itself with everything filled in that holds for any launch type; what is
particular to one (Fargate's sizes, a capacity provider) is passed through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import Aws
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from modelstacks.core.contract import SERVER_PORT
from modelstacks.core.spec import Scaling

from .iam import Statement, allow, service_role
from .nag import acknowledge
from .network import Network
from .private_integration import PrivateIntegration
from .security_groups import HTTPS, Hop, SecurityGroup
from .serving_image import ServingImage

__all__ = [
    "LAYERS",
    "STARTUP_SECONDS",
    "STOP_SECONDS",
    "ServiceCapacity",
    "ServingService",
    "ServingTask",
    "serving_cluster",
    "start_role",
    "task_group",
    "task_role",
]

CONTAINER = "model-server"
# Where the container may write; everything else of its file system is read-only.
WRITABLE = {"model": "/opt/ml/model", "tmp": "/tmp"}  # noqa: S108  the container's own, a volume
# serving/Dockerfile makes this user; the image names none, since SageMaker needs root.
USER = "1000:1000"
# SIGTERM to SIGKILL; the model server drains for at most 25 of them.
STOP_SECONDS = 30
# From the start of a task to its first healthy check: pull the image, fetch the model, load it, warm up.
STARTUP_SECONDS = 300
# ECR keeps images' layers in this bucket of its own.
LAYERS: Statement = allow(
    "s3:GetObject", f"arn:{Aws.PARTITION}:s3:::prod-{Aws.REGION}-starport-layer-bucket/*"
)


def write_logs(log: logs.CfnLogGroup) -> Statement:
    """What the log driver of a task asks of CloudWatch Logs."""
    return allow(["logs:CreateLogStream", "logs:PutLogEvents"], log.attr_arn)


def task_group(
    scope: Construct, network: Network, *, image: ServingImage, log: logs.CfnLogGroup
) -> SecurityGroup:
    """The tasks' security group, with the way to all that starting a task calls: ECR, logs and S3."""
    of_this_account = {"StringEquals": {"aws:PrincipalAccount": Aws.ACCOUNT_ID}}

    def through(statements: Sequence[Statement]) -> list[Statement]:
        return [{**each, "Principal": "*", "Condition": of_this_account} for each in statements]

    pull, write = through(image.may_pull()), through([write_logs(log)])
    called = {
        "EcrApi": network.interface_endpoint("EcrApi", service="ecr.api", statements=pull),
        "EcrDocker": network.interface_endpoint("EcrDocker", service="ecr.dkr", statements=pull),
        "Logs": network.interface_endpoint("LogsApi", service="logs", statements=write),
    }
    return SecurityGroup(
        scope,
        "Tasks",
        vpc_id=network.vpc_id,
        description="model server tasks",
        hops=[
            *(Hop(guard, HTTPS, f"tasks to {name}") for name, guard in called.items()),
            network.to_s3,
        ],
    )


def serving_cluster(scope: Construct, *, capacity_providers: Sequence[str] = ()) -> ecs.CfnCluster:
    """A cluster that reports its containers' metrics.

    A service with a capacity provider strategy needs its providers here; a launch type needs none.
    """
    insights = ecs.CfnCluster.ClusterSettingsProperty(name="containerInsights", value="enhanced")
    return ecs.CfnCluster(
        scope,
        "Cluster",
        cluster_settings=[insights],
        capacity_providers=list(capacity_providers) or None,
    )


def start_role(scope: Construct, *, image: ServingImage, log: logs.CfnLogGroup) -> iam.CfnRole:
    """The role under which ECS starts a task."""
    role = service_role(
        scope,
        "ExecutionRole",
        service="ecs-tasks.amazonaws.com",
        description="ECS pulls the image and writes the logs",
        policies={"start": [*image.may_pull(), write_logs(log)]},
    )
    acknowledge(role, "IAM5[Resource::*]", "ecr:GetAuthorizationToken has no resource to name")
    return role


def task_role(scope: Construct) -> iam.CfnRole:
    """The role that the model server itself has: what it may do is granted to it one thing at a time."""
    return service_role(
        scope,
        "TaskRole",
        service="ecs-tasks.amazonaws.com",
        description="the model server fetches its model",
        policies={},
    )


class ServingTask(ecs.CfnTaskDefinition):
    """A task of one model server: its file system is read-only, and it runs without privileges.

    Args:
        start_role: what ECS starts it under. role: what the model server itself may do.
        environment: the model server's settings, where the model is among them.
        size: what depends on the launch type: `requires_compatibilities`, `cpu`, `memory` and so on.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        family: str,
        image: ServingImage,
        log: logs.CfnLogGroup,
        environment: Mapping[str, str],
        start_role: iam.CfnRole,
        role: iam.CfnRole,
        **size: Any,
    ) -> None:
        super().__init__(
            scope,
            id,
            family=family,
            network_mode="awsvpc",
            execution_role_arn=start_role.attr_arn,
            task_role_arn=role.attr_arn,
            volumes=[self.VolumeProperty(name=name) for name in WRITABLE],
            container_definitions=[_container(image, log, environment)],
            **size,
        )
        acknowledge(
            self,
            "ECS2",
            "the model server's settings: bounds, names and a digest. There is no secret among them",
        )


def _container(
    image: ServingImage, log: logs.CfnLogGroup, environment: Mapping[str, str]
) -> ecs.CfnTaskDefinition.ContainerDefinitionProperty:
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


class ServingService(ecs.CfnService):
    """A service of serving tasks behind a private integration, which rolls back a deployment that fails.

    Args:
        group: the tasks' security group. more_groups: ids of groups that the user adds to it.
        capacity: what runs the tasks: `launch_type`, or `capacity_provider_strategy`.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        cluster: ecs.CfnCluster,
        task: ServingTask,
        network: Network,
        group: SecurityGroup,
        more_groups: Sequence[str],
        front: PrivateIntegration,
        **capacity: Any,
    ) -> None:
        super().__init__(
            scope,
            id,
            cluster=cluster.attr_arn,
            task_definition=task.ref,
            # No desired count: an update that names one sets it, whatever autoscaling has made of it. A new
            # service starts with one task, and the scalable target raises that to its minimum.
            availability_zone_rebalancing="ENABLED",
            health_check_grace_period_seconds=STARTUP_SECONDS,
            deployment_configuration=_rollout(),
            network_configuration=_interface(network, [group.group_id, *more_groups]),
            load_balancers=[
                self.LoadBalancerProperty(
                    container_name=CONTAINER,
                    container_port=SERVER_PORT,
                    target_group_arn=front.target_group.ref,
                )
            ],
            enable_ecs_managed_tags=True,
            enable_execute_command=False,
            propagate_tags="SERVICE",
            **capacity,
        )
        self.cluster_name: str = cluster.ref
        # ECS refuses a target group that no listener uses yet. Tasks pull their image, fetch their model and
        # write logs through the VPC's endpoints: a task that starts before these are there fails, and enough
        # of them trip the circuit breaker.
        for needed in (front.rule, *network.ready, *group.opened, *front.opened):
            self.add_resource_dependency(needed)


def _rollout() -> ecs.CfnService.DeploymentConfigurationProperty:
    """New tasks first, then the old ones go; a deployment whose tasks keep failing is rolled back."""
    return ecs.CfnService.DeploymentConfigurationProperty(
        minimum_healthy_percent=100,
        maximum_percent=200,
        deployment_circuit_breaker=ecs.CfnService.DeploymentCircuitBreakerProperty(
            enable=True, rollback=True
        ),
    )


def _interface(network: Network, groups: Sequence[str]) -> ecs.CfnService.NetworkConfigurationProperty:
    return ecs.CfnService.NetworkConfigurationProperty(
        awsvpc_configuration=ecs.CfnService.AwsVpcConfigurationProperty(
            subnets=network.subnet_ids, security_groups=list(groups), assign_public_ip="DISABLED"
        )
    )


class ServiceCapacity(scaling.CfnScalableTarget):
    """How many tasks a service has: it follows the concurrency that each task sees, and its CPU.

    Whichever asks for more tasks wins.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        name: str,
        limits: Scaling,
        cpu_percent: int,
        service: ServingService,
        front: PrivateIntegration,
    ) -> None:
        super().__init__(
            scope,
            id,
            service_namespace="ecs",
            scalable_dimension="ecs:service:DesiredCount",
            resource_id=f"service/{service.cluster_name}/{service.attr_name}",
            min_capacity=limits.min_replicas,
            max_capacity=limits.max_replicas,
        )
        for metric, tracking in _tracking(limits, cpu_percent, front).items():
            scaling.CfnScalingPolicy(
                scope,
                f"ScaleOn{metric}",
                policy_name=f"{name}-{metric.lower()}",
                policy_type="TargetTrackingScaling",
                scaling_target_id=self.ref,
                target_tracking_scaling_policy_configuration=tracking,
            )


def _tracking(
    limits: Scaling, cpu_percent: int, front: PrivateIntegration
) -> dict[str, scaling.CfnScalingPolicy.TargetTrackingScalingPolicyConfigurationProperty]:
    policy = scaling.CfnScalingPolicy
    return {
        "Cpu": policy.TargetTrackingScalingPolicyConfigurationProperty(
            target_value=cpu_percent,
            predefined_metric_specification=policy.PredefinedMetricSpecificationProperty(
                predefined_metric_type="ECSServiceAverageCPUUtilization"
            ),
            scale_out_cooldown=60,
            scale_in_cooldown=300,
        ),
        "Concurrency": policy.TargetTrackingScalingPolicyConfigurationProperty(
            target_value=limits.concurrent_requests_per_replica,
            customized_metric_specification=policy.CustomizedMetricSpecificationProperty(
                metrics=_concurrency_per_task(front)
            ),
            scale_out_cooldown=60,
            scale_in_cooldown=300,
        ),
    }


def _concurrency_per_task(
    front: PrivateIntegration,
) -> list[scaling.CfnScalingPolicy.TargetTrackingMetricDataQueryProperty]:
    """Requests in flight per task, by Little's law: arrivals a second times seconds each, per healthy task.

    A load balancer counts requests and times them but publishes no concurrency of its own.
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
