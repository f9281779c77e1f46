"""A model's data: fetched from S3 with the model's role through its VPC, and unpacked."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from modelstacks.cloud.context import Context
from modelstacks.cloud.daemon.state import disk_fault
from modelstacks.cloud.network.calls import ApiCall, Caller, may_call
from modelstacks.cloud.services.kms.calls import decrypt_call
from modelstacks.cloud.services.sagemaker.snapshot import Model
from modelstacks.cloud.workloads.kind import StartFailedError
from modelstacks.core.artifact.unpacking import unpack
from modelstacks.core.errors import UsageError

__all__ = ["download"]


async def download(context: Context, model: Model, seconds: float) -> Path | None:
    """The folder with a model's data; None where the image holds it. Raises StartFailedError.

    `seconds` is the time that the variant gives the download.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _download(context, model)
    except TimeoutError:
        raise StartFailedError(
            f"failed to download model data from {model.data_uri} within {seconds:g} s "
            "(ModelDataDownloadTimeoutInSeconds)"
        ) from None


async def _download(context: Context, model: Model) -> Path | None:
    if not model.data_uri:
        return None
    bucket, _, key = model.data_uri.removeprefix("s3://").partition("/")
    # Network isolation does not hold the platform back: it fetches on the container's behalf.
    caller = Caller(f"model {model.name}", model.role_arn, model.network)
    call = ApiCall("s3", "s3", "s3:GetObject", f"arn:aws:s3:::{bucket}/{key}")
    account = context.account
    if refused := may_call(account, caller, call):
        context.refuse(refused)
        raise StartFailedError(f"failed to download model data from {model.data_uri}: {refused}")
    if model.data_type != "S3Object" or model.compression != "Gzip":
        raise StartFailedError(
            f"the embedded cloud fetches model data as one gzipped tar archive, got "
            f"S3DataType {model.data_type} and CompressionType {model.compression}"
        )
    s3 = context.clients.client("s3")
    try:
        head = await context.blocking(s3.head_object, Bucket=bucket, Key=key)
    except (ClientError, BotoCoreError) as error:
        raise StartFailedError(f"could not find model data at {model.data_uri}: {error}") from error
    if key_arn := head.get("SSEKMSKeyId"):
        decrypt = decrypt_call(account, key_arn)
        if refused := may_call(account, Caller(caller.what, model.role_arn), decrypt):
            raise StartFailedError(str(context.refuse(refused)))
    version = f"{model.data_uri} {head['ETag']} {head.get('VersionId')}"
    directory = context.state.work / "models" / hashlib.sha256(version.encode()).hexdigest()[:32]
    if not directory.exists():
        await context.blocking(_fetch_and_unpack, s3, bucket, key, directory)
    return directory


def _fetch_and_unpack(s3: Any, bucket: str, key: str, directory: Path) -> None:
    """Download a .tar.gz and unpack it, all or nothing. Raises StartFailedError, EnvironmentFault."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".unpacking-"))
        try:
            with tempfile.NamedTemporaryFile(dir=directory.parent, prefix=".archive-") as archive:
                s3.download_fileobj(bucket, key, archive)
                archive.flush()
                unpack(Path(archive.name), staging, where=f"model data s3://{bucket}/{key}")
            staging.rename(directory)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except UsageError as error:
        raise StartFailedError(str(error)) from error
    except (ClientError, BotoCoreError) as error:
        raise StartFailedError(f"failed to download model data from s3://{bucket}/{key}: {error}") from error
    except OSError as error:
        if directory.exists():  # another endpoint was faster
            return
        raise disk_fault(error, directory) from error
