"""The serving container's image: serving/, built for one engine and one processor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from aws_cdk import aws_ecr_assets as ecr_assets
from constructs import Construct

from modelstacks.core import bundle

from .iam import Statement, allow

__all__ = ["ServingImage"]

# SageMaker refuses OCI manifests, which BuildKit writes by default wherever Docker keeps images in containerd
# (new installations, Docker Desktop). `type=docker` loads the image into Docker whichever builder made it, so
# that the CDK CLI can tag and push it; `oci-mediatypes=false` makes the manifest Docker's own, schema 2.
# Attestations, which need an OCI index, are switched off by the CDK CLI (BUILDX_NO_DEFAULT_ATTESTATIONS).
OUTPUTS = ("type=docker,oci-mediatypes=false",)
SERVING = bundle.serving()


class ServingImage(Construct):
    """A Docker image asset. `arguments` are the build's, `processor` what the container will run on."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        arguments: Mapping[str, str],
        processor: Literal["x86_64", "arm64"],
    ) -> None:
        super().__init__(scope, id)
        asset = ecr_assets.DockerImageAsset(
            self,
            "Asset",
            directory=str(SERVING),
            build_args=dict(arguments),
            platform=(
                ecr_assets.Platform.LINUX_ARM64 if processor == "arm64" else ecr_assets.Platform.LINUX_AMD64
            ),
            outputs=list(OUTPUTS),
            # What a test run leaves behind must not change the image's identity.
            exclude=["**/__pycache__", "**/*.pyc", "**/.pytest_cache", "**/.mypy_cache", "**/.ruff_cache"],
        )
        self.uri: str = asset.image_uri
        self.tag: str = asset.image_tag
        self.repository_name: str = asset.repository.repository_name
        self.repository_arn: str = asset.repository.repository_arn

    def may_pull(self) -> list[Statement]:
        """What a role needs in order to pull the image."""
        return [
            # GetAuthorizationToken has no resource to name.
            allow("ecr:GetAuthorizationToken", "*"),
            allow(
                ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"],
                self.repository_arn,
            ),
        ]
