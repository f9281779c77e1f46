"""The model's archive in S3, by content: its key is its own sha256."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Aws, Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from modelstacks.core.model import ArtifactModel

from .iam import Statement, allow, policy_document

__all__ = ["ModelData"]

SUFFIX = ".tar.gz"


class ModelData:
    """The archive as a file asset that a program produces when assets are published.

    Synth never sees the weights: the asset's identity is the sha256 that the lock file holds, and the CDK CLI
    runs `package_command` only where the bucket does not have that object yet. The key never names other
    bytes, so it is the version too.

    While an update runs, and after one that failed, replicas of the old revision and of the new one start
    side by side. So a role is given each archive by a policy of its own (`grant_read`): CloudFormation adds
    the new one first and deletes the old one last. What a VPC endpoint lets through (`passes`) covers both
    (docs/adr/0010-archives-stay-readable-during-an-update.md).
    """

    def __init__(self, stack: Stack, model: ArtifactModel, *, package_command: Sequence[str]) -> None:
        location = stack.synthesizer.add_file_asset(
            source_hash=f"{model.archive.sha256}{SUFFIX}",
            executable=list(package_command),
            display_name=f"model {model.source} {model.revision}",
        )
        self.sha256 = model.archive.sha256
        self._bucket_arn = f"arn:{Aws.PARTITION}:s3:::{location.bucket_name}"
        self._key = location.object_key
        self.uri = f"s3://{location.bucket_name}/{location.object_key}"

    def passes(self) -> list[Statement]:
        """What has to get through a VPC endpoint for S3: archives in the assets' bucket, whichever revision.

        Which of them may be read is for the roles to say. The endpoint has one policy for all revisions, and
        the key of an older archive is not known when a template is made.
        """
        return [
            allow("s3:GetObject", f"{self._bucket_arn}/*{SUFFIX}"),
            # SageMaker looks for an object before it fetches it.
            allow("s3:ListBucket", self._bucket_arn),
        ]

    def grant_read(self, scope: Construct, role: iam.CfnRole, *, find: bool = False) -> iam.CfnPolicy:
        """Let a role fetch this archive, and `find` it first, as SageMaker does.

        The bootstrap bucket encrypts with S3's own key unless it was bootstrapped with a customer key, which
        then has to allow the role as well (docs/targets/ecs-fargate.md).
        """
        statements = [allow("s3:GetObject", f"{self._bucket_arn}/{self._key}")]
        if find:
            listed = {"StringLike": {"s3:prefix": f"{self._key}*"}}
            statements.append(allow("s3:ListBucket", self._bucket_arn, condition=listed))
        name = f"model-{self.sha256[:12]}"
        return iam.CfnPolicy(
            scope,
            f"ReadModel{self.sha256[:12]}",
            policy_name=name,
            policy_document=policy_document(*statements),
            roles=[role.ref],
        )
