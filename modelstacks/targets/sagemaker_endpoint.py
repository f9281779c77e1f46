"""sagemaker-endpoint: the managed architecture, a private real-time SageMaker endpoint behind a function."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modelstacks.core.base import text
from modelstacks.core.contract import LAMBDA_BODY
from modelstacks.core.registry import Refusal, Target
from modelstacks.core.spec import TargetSpec


class SagemakerEndpoint(TargetSpec):
    """Instances behind the endpoint, and the function in front of it."""

    target: Literal["sagemaker-endpoint"] = "sagemaker-endpoint"
    instance_type: Annotated[
        str, text(r"^ml\.[a-z0-9]+(-[a-z0-9]+)?\.[a-z0-9]+$", "a SageMaker instance type such as ml.m5.large")
    ] = Field("ml.m5.large", description="instances behind the endpoint")
    reserved_concurrency: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="invocations of the function at once, taken from those of the account; "
        "unset shares what the account has",
    )
    startup_seconds: int = Field(
        600, ge=60, le=3600, description="how long a container may take to load the model"
    )


TARGET = Target(
    name="sagemaker-endpoint",
    architecture="managed",
    summary="API Gateway -> Lambda in isolated subnets -> private SageMaker endpoint",
    spec=SagemakerEndpoint,
    example="managed: {target: sagemaker-endpoint, instance_type: ml.m5.large}",
    default=True,
    reasons={
        "instance_type": "2 vCPU and 8 GiB, enough for tabular models and small networks.",
        "reserved_concurrency": "In an account whose quota is 10 executions Lambda refuses every one.",
        "startup_seconds": "Fetching, unpacking and loading a large model takes minutes.",
    },
    refuses=(
        Refusal(
            source_kind="remote",
            reason="an endpoint hosts files that `modelstacks lock` pins, and a provider's model has none; "
            "use a source with files, or a target that calls the provider",
        ),
        Refusal(
            feature="vendor-image",
            reason="its function and image check are made for the model server; "
            "choose a model that an engine of the model server loads",
        ),
        Refusal(
            feature="scale-to-zero",
            reason="a variant of a real-time endpoint keeps at least one instance; "
            "set scaling.min_replicas to 1 or more",
        ),
        Refusal(
            feature="large-body",
            reason="a request reaches SageMaker through a Lambda function, whose event is limited to 6 MB: "
            f"in base64, and with the headers beside it, {LAMBDA_BODY} bytes of a body fit; "
            f"lower server.max_body_bytes to {LAMBDA_BODY} or use architecture: self-hosted",
        ),
    ),
)
