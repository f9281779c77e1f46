"""sagemaker-endpoint: a private real-time endpoint, and the function that carries the API's routes to it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

from aws_cdk import Aws
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk.aws_logs import CfnLogGroup
from constructs import Construct

from modelstacks.core.plan import ModelServer, Plan
from modelstacks.targets.sagemaker_endpoint import SagemakerEndpoint

from ..constructs.encryption import EncryptionKey
from ..constructs.endpoint_function import EndpointFunction, Timeouts
from ..constructs.iam import allow, service_role
from ..constructs.image_check import ImageCheck
from ..constructs.interfaces import instance_interfaces
from ..constructs.logs import log_group
from ..constructs.model_data import ModelData
from ..constructs.nag import acknowledge
from ..constructs.network import Network
from ..constructs.security_groups import SecurityGroup
from ..constructs.serving_image import ServingImage
from . import Backend, Foundation, hosted

VARIANT = "AllTraffic"
MARK_LENGTH = 8

# Instance families with NVMe disks of their own, beside those whose name says so with a "d" (m5d, g4dn, c6gd,
# p4d). Their disks are encrypted in hardware, and an endpoint configuration that names a KMS key for them is
# refused. https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpointConfig.html (KmsKeyId),
# read 2026-11
NVME_FAMILIES = frozenset(
    {"g5", "g6", "g6e", "g7e", "gr6", "i3en", "p5", "p5e", "p5en", "p6-b200", "trn1", "trn1n", "trn2"}
)


def processor(instance_type: str) -> Literal["x86_64", "arm64"]:
    """The processor of an instance type: "g" behind the generation is Graviton (ml.c7g, ml.m6gd, ml.g5g)."""
    return "arm64" if re.match(r"ml\.[a-z]+\d+g", instance_type) else "x86_64"


def has_nvme(instance_type: str) -> bool:
    """Whether the instance type keeps its volume on NVMe disks of its own."""
    family = instance_type.split(".")[1]
    return family in NVME_FAMILIES or re.match(r"[a-z]+\d+[a-z]*d", family) is not None


def endpoint_name(stack_name: str, instance_type: str) -> str:
    """The endpoint's name: another one for each instance type.

    SageMaker refuses an update that changes the instance type of a variant which is a scaling target, and one
    that removes such a variant, until it is deregistered; CloudFormation would deregister it only afterwards.
    With a new name, CloudFormation makes a second endpoint, moves the function over to it, and deletes the
    old one last, or the new one where the update fails. The mark has a fixed length, so that a policy can
    name both endpoints and no other deployment's.
    """
    return f"{stack_name}-{hashlib.sha256(instance_type.encode()).hexdigest()[:MARK_LENGTH]}"


@dataclass(frozen=True)
class Names:
    """How this deployment's endpoint is called, and any endpoint that it had with another instance type."""

    own: str
    of_any_type: str

    @classmethod
    def of(cls, plan: Plan, target: SagemakerEndpoint) -> Names:
        """The names that a plan's endpoint has."""
        return cls(
            endpoint_name(plan.stack_name, target.instance_type), f"{plan.stack_name}-{'?' * MARK_LENGTH}"
        )

    @property
    def arns(self) -> str:
        """A pattern that fits the deployment's endpoints and no other's."""
        return f"arn:{Aws.PARTITION}:sagemaker:{Aws.REGION}:{Aws.ACCOUNT_ID}:endpoint/{self.of_any_type}"


def build(scope: Construct, plan: Plan, foundation: Foundation) -> Backend:
    """A SageMaker endpoint in isolated subnets and the function in front of it."""
    target = plan.target
    if not isinstance(target, SagemakerEndpoint):
        raise TypeError(f"sagemaker-endpoint cannot build {target!r}")
    server, model_data = hosted(plan, foundation)
    key, retention, names = foundation.key, plan.logs.retention_days, Names.of(plan, target)
    image = ServingImage(
        scope, "Image", arguments=server.image_arguments, processor=processor(target.instance_type)
    )
    # Named, so that the endpoint's log group can be there, encrypted and with an end, before SageMaker would
    # make one without.
    log = log_group(
        scope, "Logs", key=key, retention_days=retention, name=f"/aws/sagemaker/Endpoints/{names.own}"
    )
    network = foundation.network(model_data.passes())
    model = _model(scope, plan, foundation, network, image, names)
    configuration = _configuration(scope, plan, target, key, model)
    endpoint = sagemaker.CfnEndpoint(
        scope,
        "Endpoint",
        endpoint_name=names.own,
        endpoint_config_name=configuration.attr_endpoint_config_name,
        retain_all_variant_properties=True,  # an update keeps the instances that autoscaling added
    )
    for needed in (log, *network.ready):
        endpoint.add_resource_dependency(needed)
    _autoscale(scope, plan, endpoint)
    function = EndpointFunction(
        scope,
        "Function",
        network=network,
        key=key,
        endpoint_name=endpoint.attr_endpoint_name,
        endpoint_arns=names.arns,
        max_body_bytes=plan.max_body_bytes,
        timeouts=Timeouts(plan.api.timeout_seconds),
        reserved_concurrency=target.reserved_concurrency,
        log_retention_days=retention,
    )
    return _backend(function, endpoint, log)


def _backend(function: EndpointFunction, endpoint: sagemaker.CfnEndpoint, log: CfnLogGroup) -> Backend:
    return Backend(
        integrate=function.integrate,
        admit=function.admit,
        throttles=True,
        outputs={
            "EndpointName": endpoint.attr_endpoint_name,
            "FunctionName": function.function_name,
            "LogGroupName": log.ref,
            "FunctionLogGroupName": function.log_group.ref,
        },
    )


def _model(
    scope: Construct, plan: Plan, foundation: Foundation, network: Network, image: ServingImage, names: Names
) -> sagemaker.CfnModel:
    """The image and the model data, made once SageMaker may read them and accepts the image."""
    server, model_data = hosted(plan, foundation)
    containers = SecurityGroup(
        scope,
        "Containers",
        vpc_id=network.vpc_id,
        description="instances of the endpoint",
        hops=[network.to_s3],
    )
    role = _role(scope, image, network, containers, names)
    may_read = model_data.grant_read(scope, role, find=True)
    model = sagemaker.CfnModel(
        scope,
        "Model",
        execution_role_arn=role.attr_arn,
        enable_network_isolation=True,
        primary_container=_container(server, image, model_data),
        vpc_config=sagemaker.CfnModel.VpcConfigProperty(
            subnets=network.subnet_ids,
            security_group_ids=[containers.group_id, *foundation.security_groups],
        ),
    )
    check = ImageCheck(
        scope, "ImageCheck", image=image, key=foundation.key, log_retention_days=plan.logs.retention_days
    )
    for needed in (may_read, check.passed):
        model.add_resource_dependency(needed)
    return model


def _container(
    server: ModelServer, image: ServingImage, model_data: ModelData
) -> sagemaker.CfnModel.ContainerDefinitionProperty:
    return sagemaker.CfnModel.ContainerDefinitionProperty(
        image=image.uri,
        environment=dict(server.environment),
        model_data_source=sagemaker.CfnModel.ModelDataSourceProperty(
            s3_data_source=sagemaker.CfnModel.S3DataSourceProperty(
                s3_uri=model_data.uri, s3_data_type="S3Object", compression_type="Gzip"
            )
        ),
    )


def _role(
    scope: Construct, image: ServingImage, network: Network, containers: SecurityGroup, names: Names
) -> iam.CfnRole:
    """The role under which SageMaker runs the model."""
    log_streams = (
        f"arn:{Aws.PARTITION}:logs:{Aws.REGION}:{Aws.ACCOUNT_ID}:log-group:"
        f"/aws/sagemaker/Endpoints/{names.of_any_type}:*"
    )
    of_sagemaker = {"StringLike": {"cloudwatch:namespace": "/aws/sagemaker/*"}}
    role = service_role(
        scope,
        "ModelRole",
        service="sagemaker.amazonaws.com",
        description="SageMaker pulls the image, fetches the model and writes the logs",
        policies={
            "image": image.may_pull(),
            "logs": [
                allow(["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"], log_streams)
            ],
            "metrics": [allow("cloudwatch:PutMetricData", "*", condition=of_sagemaker)],
            "network-interfaces": instance_interfaces(network, containers),
        },
    )
    account = "<AWS::Region>:<AWS::AccountId>"
    for resource, reason in {
        "*": "a registry login, metrics (bound to a namespace) and EC2's Describe actions name no resource",
        f"arn:<AWS::Partition>:ec2:{account}:network-interface/*": (
            "interfaces that SageMaker makes have no id yet; where they are made is bound to subnets and "
            "group"
        ),
        f"arn:<AWS::Partition>:logs:{account}:log-group:/aws/sagemaker/Endpoints/{names.of_any_type}:*": (
            "every log stream of this deployment's endpoint, and of the one that it takes over from"
        ),
    }.items():
        acknowledge(role, f"IAM5[Resource::{resource}]", reason)
    return role


def _configuration(
    scope: Construct,
    plan: Plan,
    target: SagemakerEndpoint,
    key: EncryptionKey,
    model: sagemaker.CfnModel,
) -> sagemaker.CfnEndpointConfig:
    """One variant. It is unnamed: a change replaces it, and the endpoint moves over to the new one."""
    return sagemaker.CfnEndpointConfig(
        scope,
        "Configuration",
        kms_key_id=None if has_nvme(target.instance_type) else key.arn,
        production_variants=[
            sagemaker.CfnEndpointConfig.ProductionVariantProperty(
                variant_name=VARIANT,
                model_name=model.attr_model_name,
                instance_type=target.instance_type,
                initial_instance_count=plan.scaling.min_replicas,
                initial_variant_weight=1,
                container_startup_health_check_timeout_in_seconds=target.startup_seconds,
                model_data_download_timeout_in_seconds=target.startup_seconds,
                routing_config=sagemaker.CfnEndpointConfig.RoutingConfigProperty(
                    routing_strategy="LEAST_OUTSTANDING_REQUESTS"
                ),
            )
        ],
    )


def _autoscale(scope: Construct, plan: Plan, endpoint: sagemaker.CfnEndpoint) -> None:
    """Follow the concurrency that each copy of the model sees, measured every ten seconds."""
    capacity = scaling.CfnScalableTarget(
        scope,
        "Capacity",
        service_namespace="sagemaker",
        scalable_dimension="sagemaker:variant:DesiredInstanceCount",
        resource_id=f"endpoint/{endpoint.attr_endpoint_name}/variant/{VARIANT}",
        min_capacity=plan.scaling.min_replicas,
        max_capacity=plan.scaling.max_replicas,
    )
    policy = scaling.CfnScalingPolicy
    policy(
        scope,
        "ScaleOnConcurrency",
        policy_name=f"{plan.stack_name}-concurrency",
        policy_type="TargetTrackingScaling",
        scaling_target_id=capacity.ref,
        target_tracking_scaling_policy_configuration=policy.TargetTrackingScalingPolicyConfigurationProperty(
            target_value=plan.scaling.concurrent_requests_per_replica,
            predefined_metric_specification=policy.PredefinedMetricSpecificationProperty(
                predefined_metric_type="SageMakerVariantConcurrentRequestsPerModelHighResolution"
            ),
            scale_out_cooldown=60,
            scale_in_cooldown=300,
        ),
    )
