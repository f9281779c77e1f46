"""The model's archive in S3, by content: its key is its own sha256."""

from __future__ import annotations

from aws_cdk import Aws, Stack

from modelstacks.core.plan import PlannedModel
from stacks.constructs.iam import Statement, allow

__all__ = ["ModelData"]


class ModelData:
    """The archive as a file asset that a program produces when assets are published.

    Synth never sees the weights: the asset's identity is the sha256 that the lock file holds, and the CDK CLI
    runs `package_command` only where the bucket does not have that object yet. The key never names other
    bytes, so it is the version too.
    """

    def __init__(self, stack: Stack, model: PlannedModel) -> None:
        location = stack.synthesizer.add_file_asset(
            source_hash=f"{model.archive_sha256}.tar.gz",
            executable=list(model.package_command),
            display_name=f"model {model.source} {model.revision}",
        )
        self.sha256 = model.archive_sha256
        self._bucket_arn = f"arn:{Aws.PARTITION}:s3:::{location.bucket_name}"
        self._key = location.object_key
        self.uri = f"s3://{location.bucket_name}/{location.object_key}"

    def may_read(self) -> Statement:
        """What a role needs in order to fetch the archive.

        The bootstrap bucket encrypts with S3's own key unless it was bootstrapped with a customer key, which
        then has to allow the role as well (docs/targets/ecs-fargate.md).
        """
        return allow("s3:GetObject", f"{self._bucket_arn}/{self._key}")

    def may_find(self) -> Statement:
        """What SageMaker needs besides: it looks for the object before it fetches it."""
        return allow(
            "s3:ListBucket", self._bucket_arn, condition={"StringLike": {"s3:prefix": f"{self._key}*"}}
        )
