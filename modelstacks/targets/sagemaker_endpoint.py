"""sagemaker-endpoint: the managed architecture, a private real-time SageMaker endpoint behind a function."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modelstacks.core.base import text
from modelstacks.core.contract import LAMBDA_BODY
from modelstacks.core.plan import Plan
from modelstacks.core.plan.capacity import Quota, Unit, interface_endpoints, network, quota, resource
from modelstacks.core.registry import Refusal, Target
from modelstacks.core.spec import TargetSpec


class SagemakerEndpoint(TargetSpec):
    """The endpoint's instances, and the function in front of it."""

    target: Literal["sagemaker-endpoint"] = "sagemaker-endpoint"
    instance_type: Annotated[
        str, text(r"^ml\.[a-z0-9]+(-[a-z0-9]+)?\.[a-z0-9]+$", "a SageMaker instance type such as ml.m5.large")
    ] = Field("ml.m5.large", description="instance type of the endpoint")
    reserved_concurrency: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="concurrent executions reserved for the function; if unset, it shares the account's",
    )
    startup_seconds: int = Field(
        600, ge=60, le=3600, description="maximum time for a container to load the model"
    )


def capacity(plan: Plan) -> tuple[Unit, ...]:
    """Return the units of the endpoint's instances and of the function in front of them.

    An update starts a second set of instances (blue/green) before it stops the first.
    """
    target, scaling = plan.target, plan.scaling
    if not isinstance(target, SagemakerEndpoint):
        raise TypeError(f"{target!r} is not a block of sagemaker-endpoint")
    # Each instance type has its own quota; its code has to be looked up by this name.
    instances = Quota("sagemaker", f"{target.instance_type} for endpoint usage")
    concurrency = target.reserved_concurrency or (
        scaling.max_replicas * scaling.concurrent_requests_per_replica
    )
    return (
        Unit(
            "AWS::SageMaker::Endpoint",
            "instance",
            scaling.min_replicas,
            scaling.max_replicas,
            2 * scaling.max_replicas,
            billed=True,
            size=target.instance_type,
            quota=instances,
        ),
        resource("AWS::SageMaker::Endpoint"),
        # In front of the endpoint, and the check of the image's manifest.
        resource("AWS::Lambda::Function", 2),
        Unit(
            "AWS::Lambda::Function",
            "concurrent execution",
            target.reserved_concurrency or 0,
            concurrency,
            concurrency,
            quota=quota("lambda-concurrency"),
        ),
        *network(),
        *interface_endpoints(1, plan),
        # The instances', the function's and the VPC endpoint's.
        resource("AWS::EC2::SecurityGroup", 3, quota=quota("security-groups")),
        resource("AWS::IAM::Role", 3, quota=quota("roles")),
        resource("AWS::Logs::LogGroup", 3),
    )


TARGET = Target(
    name="sagemaker-endpoint",
    architecture="managed",
    summary="API Gateway -> Lambda in isolated subnets -> private SageMaker endpoint",
    spec=SagemakerEndpoint,
    example="managed: {target: sagemaker-endpoint, instance_type: ml.m5.large}",
    default=True,
    outputs={
        "EndpointName": "SageMaker endpoint",
        "FunctionName": "function in front of the endpoint",
        "LogGroupName": "what the model servers write",
        "FunctionLogGroupName": "what the function writes",
    },
    capacity=capacity,
    reasons={
        "instance_type": "2 vCPU and 8 GiB, enough for tabular models and small networks.",
        "reserved_concurrency": "With an account quota of 10 executions, Lambda refuses every reservation.",
        "startup_seconds": "Downloading, unpacking and loading a large model takes minutes.",
    },
    refuses=(
        Refusal(
            source_kind="remote",
            reason="an endpoint serves model files, and a model that its provider hosts has none; "
            "use a source with files, or a target that calls the provider",
        ),
        Refusal(
            feature="vendor-image",
            reason="its function and image check are made for the model server; "
            "choose a model that an engine of the model server loads",
        ),
        Refusal(
            feature="scale-to-zero",
            reason="a variant of a real-time endpoint has at least one instance; "
            "set scaling.min_replicas to 1 or more",
        ),
        Refusal(
            feature="large-body",
            reason="requests pass through a Lambda function, whose event is limited to 6 MB and contains the "
            f"headers and the body in base64, so a body can have at most {LAMBDA_BODY} bytes; "
            f"lower server.max_body_bytes to {LAMBDA_BODY} or use architecture: self-hosted",
        ),
    ),
)
