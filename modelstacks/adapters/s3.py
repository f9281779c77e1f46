"""The ObjectStore port: S3 through boto3.

AWS_ENDPOINT_URL, profiles and roles have the same meaning as for the AWS CLI.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from modelstacks.core.errors import EnvironmentFault
from modelstacks.core.ports import ObjectVersion

__all__ = ["S3ObjectStore", "aws_errors"]


class S3ObjectStore:
    """Lists and downloads versions of objects; creates its client on first use."""

    @cached_property
    def _client(self) -> Any:
        import boto3

        return boto3.client("s3")

    def list(self, bucket: str, prefix: str) -> Sequence[ObjectVersion]:
        found = []
        with aws_errors(f"s3://{bucket}/{prefix} cannot be listed"):
            for page in self._client.get_paginator("list_object_versions").paginate(
                Bucket=bucket, Prefix=prefix
            ):
                found += [
                    ObjectVersion(
                        version["Key"],
                        None if version["VersionId"] == "null" else version["VersionId"],
                        version["Size"],
                    )
                    for version in page.get("Versions", ())
                    if version["IsLatest"]
                ]
        return sorted(found, key=lambda version: version.key)

    def download(self, bucket: str, version: ObjectVersion, destination: Path) -> None:
        extra = {"VersionId": version.version_id} if version.version_id else {}
        with aws_errors(f"s3://{bucket}/{version.key} cannot be fetched"):
            self._client.download_file(bucket, version.key, str(destination), ExtraArgs=extra)


@contextmanager
def aws_errors(what: str) -> Iterator[None]:
    """Turns boto3's errors into an EnvironmentFault with what was attempted and AWS's reason."""
    import boto3.exceptions
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

    try:
        yield
    except NoCredentialsError:
        raise EnvironmentFault(
            f"{what}: no AWS credentials were found", fix="aws configure, or aws sso login"
        ) from None
    except NoRegionError:
        raise EnvironmentFault(f"{what}: no AWS region is set", fix="export AWS_REGION=eu-west-1") from None
    except ClientError as error:
        said = error.response.get("Error", {})
        raise EnvironmentFault(f"{what}: {said.get('Code', '?')}: {said.get('Message', '')}") from None
    except (BotoCoreError, boto3.exceptions.Boto3Error) as error:
        raise EnvironmentFault(f"{what}: {error}") from None
