"""sagemaker-endpoint: a private real-time endpoint, and the function that carries the API's routes to it."""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from aws_cdk import Aws
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from modelstacks.core.plan import ModelServer, Plan
from modelstacks.targets.sagemaker_endpoint import SagemakerEndpoint

from ..constructs.endpoint_function import EndpointFunction, Timeouts
from ..constructs.iam import allow, service_role
from ..constructs.image_check import ImageCheck
from ..constructs.interfaces import instance_interfaces
from ..constructs.logs import log_group
from ..constructs.nag import acknowledge
from ..constructs.network import Addresses, Network, SecurityGroup
from ..constructs.serving_image import ServingImage
from . import Backend, Foundation, Output

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


def build(scope: Construct, plan: Plan, foundation: Foundation) -> Backend:
    """A SageMaker endpoint in isolated subnets and the function in front of it."""
    target = plan.target
    if not isinstance(target, SagemakerEndpoint):
        raise TypeError(f"sagemaker-endpoint cannot build {target!r}")
    runtime = plan.runtime
    key, model_data, retention = foundation.key, foundation.model_data, plan.logs.retention_days
    if not isinstance(runtime, ModelServer) or model_data is None:
        raise TypeError(f"sagemaker-endpoint runs the model server, not {plan.model.source}")
    image = ServingImage(
        scope, "Image", arguments=runtime.image_arguments, processor=processor(target.instance_type)
    )
    # Named, so that its log group can be there, encrypted and with an end, before SageMaker would make one
    # without.
    name = endpoint_name(plan.stack_name, target.instance_type)
    any_name = f"{plan.stack_name}-{'?' * MARK_LENGTH}"
    arns = f"arn:{Aws.PARTITION}:sagemaker:{Aws.REGION}:{Aws.ACCOUNT_ID}:endpoint/{any_name}"
    logs_of_model = log_group(
        scope, "Logs", key=key, retention_days=retention, name=f"/aws/sagemaker/Endpoints/{name}"
    )

    network = Network(
        scope,
        "Network",
        addresses=Addresses.of(plan.network),
        zones=plan.aws.zones if plan.aws else None,
        key=key,
        retention_days=retention,
        s3=model_data.passes(),
    )
    containers = SecurityGroup(
        scope,
        "Containers",
        vpc_id=network.vpc_id,
        description="instances of the endpoint",
        hops=[Network.TO_S3],
    )
    role = service_role(
        scope,
        "ModelRole",
        service="sagemaker.amazonaws.com",
        description="SageMaker pulls the image, fetches the model and writes the logs",
        policies={
            "image": image.may_pull(),
            "logs": [
                allow(
                    ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                    f"arn:{Aws.PARTITION}:logs:{Aws.REGION}:{Aws.ACCOUNT_ID}:log-group:"
                    f"/aws/sagemaker/Endpoints/{any_name}:*",
                )
            ],
            "metrics": [
                allow(
                    "cloudwatch:PutMetricData",
                    "*",
                    condition={"StringLike": {"cloudwatch:namespace": "/aws/sagemaker/*"}},
                )
            ],
            "network-interfaces": instance_interfaces(network, containers),
        },
    )
    acknowledge(
        role,
        "IAM5[Resource::*]",
        "a registry login, metrics (bound to a namespace) and EC2's Describe actions name no resource",
    )
    acknowledge(
        role,
        "IAM5[Resource::arn:<AWS::Partition>:ec2:<AWS::Region>:<AWS::AccountId>:network-interface/*]",
        "interfaces that SageMaker makes have no id yet; where they are made is bound to subnets and group",
    )
    acknowledge(
        role,
        f"IAM5[Resource::arn:<AWS::Partition>:logs:<AWS::Region>:<AWS::AccountId>:log-group:"
        f"/aws/sagemaker/Endpoints/{any_name}:*]",
        "every log stream of this deployment's endpoint, and of the one that it takes over from",
    )
    may_read = model_data.grant_read(scope, role, find=True)
    model = sagemaker.CfnModel(
        scope,
        "Model",
        execution_role_arn=role.attr_arn,
        enable_network_isolation=True,
        primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
            image=image.uri,
            environment=dict(runtime.environment),
            model_data_source=sagemaker.CfnModel.ModelDataSourceProperty(
                s3_data_source=sagemaker.CfnModel.S3DataSourceProperty(
                    s3_uri=model_data.uri, s3_data_type="S3Object", compression_type="Gzip"
                )
            ),
        ),
        vpc_config=sagemaker.CfnModel.VpcConfigProperty(
            subnets=network.subnet_ids, security_group_ids=[containers.group_id]
        ),
    )
    check = ImageCheck(scope, "ImageCheck", image=image, key=key, log_retention_days=retention)
    for needed in (may_read, check.passed):
        model.add_resource_dependency(needed)
    # Unnamed: a change replaces it, and the endpoint moves over to the new one.
    configuration = sagemaker.CfnEndpointConfig(
        scope,
        "Configuration",
        kms_key_id=None if has_nvme(target.instance_type) else key.attr_arn,
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
    endpoint = sagemaker.CfnEndpoint(
        scope,
        "Endpoint",
        endpoint_name=name,
        endpoint_config_name=configuration.attr_endpoint_config_name,
        retain_all_variant_properties=True,  # an update keeps the instances that autoscaling added
    )
    for needed in (logs_of_model, *network.ready):
        endpoint.add_resource_dependency(needed)
    _autoscale(scope, plan, endpoint)

    function = EndpointFunction(
        scope,
        "Function",
        network=network,
        key=key,
        endpoint_name=endpoint.attr_endpoint_name,
        endpoint_arns=arns,
        max_body_bytes=plan.max_body_bytes,
        timeouts=Timeouts(plan.api.timeout_seconds),
        reserved_concurrency=target.reserved_concurrency,
        log_retention_days=retention,
    )
    return Backend(
        integrate=function.integrate,
        admit=function.admit,
        throttles=True,
        outputs=(
            Output("EndpointName", "SageMaker endpoint", endpoint.attr_endpoint_name),
            Output("FunctionName", "function in front of the endpoint", function.function_name),
            Output("LogGroupName", "what the model servers write", logs_of_model.ref),
            Output("FunctionLogGroupName", "what the function writes", function.log_group.ref),
        ),
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
