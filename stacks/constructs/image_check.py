"""A check of an image's manifest that runs in the account, before SageMaker is given the image."""

from __future__ import annotations

from aws_cdk import CfnResource
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk.aws_logs import CfnLogGroup
from constructs import Construct

from modelstacks.core import bundle

from .encryption import EncryptionKey
from .iam import allow, service_role
from .logs import log_group
from .serving_image import ServingImage

__all__ = ["ImageCheck"]

CODE = bundle.functions() / "check_image"
SECONDS = 60  # one call of ECR and one answer


class ImageCheck(Construct):
    """A custom resource that exists once the image has a manifest that SageMaker accepts.

    Without it, CreateModel or the endpoint fails after minutes, for a reason that is in how the image was
    built (lambda/check_image). What uses the image depends on `passed`.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        image: ServingImage,
        key: EncryptionKey,
        log_retention_days: int,
    ) -> None:
        super().__init__(scope, id)
        function = self._function(image, log_group(self, "Logs", key=key, retention_days=log_retention_days))
        self.passed = CfnResource(
            self,
            "Manifest",
            type="Custom::ImageManifest",
            properties={
                "ServiceToken": function.attr_arn,
                "ServiceTimeout": str(2 * SECONDS),
                "RepositoryName": image.repository_name,
                "ImageTag": image.tag,
            },
        )

    def _function(self, image: ServingImage, logs: CfnLogGroup) -> lambda_.CfnFunction:
        role = service_role(
            self,
            "Role",
            service="lambda.amazonaws.com",
            description="reads the manifest of one repository's images",
            only_for_this_account=False,
            policies={
                "manifest": [allow("ecr:BatchGetImage", image.repository_arn)],
                "logs": [allow(["logs:CreateLogStream", "logs:PutLogEvents"], logs.attr_arn)],
            },
        )
        code = s3_assets.Asset(self, "Code", path=str(CODE), exclude=["**/__pycache__", "**/*.pyc"])
        return lambda_.CfnFunction(
            self,
            "Function",
            description="checks that SageMaker accepts the image's manifest",
            code=lambda_.CfnFunction.CodeProperty(s3_bucket=code.s3_bucket_name, s3_key=code.s3_object_key),
            handler="handler.handle",
            runtime="python3.14",
            architectures=["arm64"],
            memory_size=256,
            timeout=SECONDS,
            role=role.attr_arn,
            logging_config=lambda_.CfnFunction.LoggingConfigProperty(
                log_group=logs.ref, log_format="JSON", application_log_level="INFO", system_log_level="WARN"
            ),
        )
