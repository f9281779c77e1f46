"""sagemaker-endpoint: the managed architecture, a private real-time SageMaker endpoint behind a function."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modelstacks.core.base import text
from modelstacks.core.contract import LAMBDA_BODY
from modelstacks.core.registry import Target
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
    refuses={
        "large-body": (
            "a request reaches SageMaker through a Lambda function, whose event is limited to 6 MB: "
            f"in base64, and with the headers beside it, {LAMBDA_BODY} bytes of a body fit; "
            f"lower server.max_body_bytes to {LAMBDA_BODY} or use architecture: self-hosted"
        ),
    },
)
