"""The model's archive in S3, by content: its key is its own sha256."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from aws_cdk import Annotations, Aws, FileAssetLocation, FileAssetPackaging, Stack, Stage
from aws_cdk import aws_iam as iam
from constructs import Construct

from modelstacks.core.artifact.archive import file_sha256
from modelstacks.core.artifact.packaging import archive_path
from modelstacks.core.errors import EnvironmentFault, relative
from modelstacks.core.model import ArtifactModel

from .iam import Statement, allow, policy_document

__all__ = ["Archives", "ModelData"]

# Where the archive comes from when assets are published:
# "assembly"  a file in the cloud assembly, put there by synth
# "command"   a command that is run in the project's folder
# "auto"      the assembly for a stack inside a Stage, which is deployed by other machines than the one that
#             synthesizes, as long as the archive is at hand; otherwise the command
Archives = Literal["auto", "assembly", "command"]

SUFFIX = ".tar.gz"


class ModelData:
    """The archive as a file asset.

    The asset's identity is the sha256 that the lock file holds, so the template is the same wherever the
    archive comes from, and the CDK CLI publishes it only where the bucket does not have that object yet. The
    key never names other bytes, so it is the version too (docs/adr/0004, 0015).

    While an update runs, and after one that failed, replicas of the old revision and of the new one start
    side by side. So a role is given each archive by a policy of its own (`grant_read`): CloudFormation adds
    the new one first and deletes the old one last. What a VPC endpoint lets through (`passes`) covers both
    (docs/adr/0010-archives-stay-readable-during-an-update.md).
    """

    def __init__(
        self,
        scope: Construct,
        model: ArtifactModel,
        *,
        package_command: Sequence[str],
        project: Path,
        archives: Archives = "auto",
    ) -> None:
        asset = _Asset(scope, model, package_command, project)
        if archives == "assembly" or (archives == "auto" and asset.is_for_elsewhere()):
            location = asset.add_file(required=archives == "assembly")
        else:
            location = asset.add_command()
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


class _Asset:
    """The two forms that the asset can have; both lead to the same object key."""

    def __init__(self, scope: Construct, model: ArtifactModel, command: Sequence[str], project: Path) -> None:
        stage = Stage.of(scope)
        if stage is None:
            raise TypeError(f"{scope.node.path} is outside any App or Stage")
        self._scope, self._archive, self._command, self._stage = scope, model.archive, list(command), stage
        self._assets = Stack.of(scope).synthesizer
        self._name = f"model {model.source} {model.revision}"
        self._kept = archive_path(project, model.archive.sha256)

    def is_for_elsewhere(self) -> bool:
        """Whether the stack is in a Stage: a pipeline publishes it from a copy of the assembly."""
        return self._stage.parent_stage is not None

    def add_command(self) -> FileAssetLocation:
        """The CDK CLI runs a command, which prints the path of the archive."""
        return self._assets.add_file_asset(
            source_hash=f"{self._archive.sha256}{SUFFIX}",
            executable=self._command,
            display_name=self._name,
        )

    def add_file(self, *, required: bool) -> FileAssetLocation:
        """The archive becomes a file of the assembly; without it, the command where that is acceptable.

        Raises:
            EnvironmentFault: the archive is `required`, and is not there or not what was locked.
        """
        fault = self._fault()
        if fault and required:
            raise EnvironmentFault(f"{relative(self._kept)}: {fault}", fix=self._fix())
        if fault:
            Annotations.of(self._scope).add_warning_v2(
                "modelstacks:archive-not-in-assembly",
                f"the model's archive is not in the cloud assembly ({relative(self._kept)}: {fault}), so "
                f"publishing it needs this project's folder and the modelstacks command; "
                f"fix: {self._fix()}, then synthesize again",
            )
            return self.add_command()
        file = Path(self._stage.asset_outdir) / f"asset.{self._archive.sha256}{SUFFIX}"
        _place(self._kept, file)
        return self._assets.add_file_asset(
            # The CDK makes the object's key of this and the file's last suffix.
            source_hash=f"{self._archive.sha256}.tar",
            file_name=os.path.relpath(file, self._stage.outdir),
            packaging=FileAssetPackaging.FILE,
            display_name=self._name,
        )

    def _fault(self) -> str:
        """Why the packaged archive cannot be used; "" where it can."""
        kept = self._kept
        if not kept.is_file():
            return "no such file"
        if kept.stat().st_size != self._archive.size:
            return f"{kept.stat().st_size} bytes where the lock has {self._archive.size}"
        got = file_sha256(kept)
        return "" if got == self._archive.sha256 else f"its sha256 is {got}"

    def _fix(self) -> str:
        return f"modelstacks package {self._command[-1]}"


def _place(source: Path, target: Path) -> None:
    """Put a file at `target`, without a copy of its bytes where the file system can share them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
