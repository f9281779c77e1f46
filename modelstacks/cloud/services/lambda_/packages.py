"""What a Lambda function finds on its disk: its own code, unpacked, and the packages of Lambda's runtime."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib.metadata
import io
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

from modelstacks.cloud.context import Context
from modelstacks.cloud.daemon.state import disk_fault
from modelstacks.cloud.host.wire import Request
from modelstacks.cloud.services.lambda_.snapshot import Function
from modelstacks.core.errors import DeploymentFailed, EnvironmentFault

__all__ = ["RuntimePackages", "unpacked"]

RUNTIME_PACKAGES = ("awslambdaric", "boto3")


class RuntimePackages:
    """Lambda's own packages, laid out when they are first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._laid_out = False
        self._laying_out = asyncio.Lock()  # cold starts come in bursts

    async def directory(self) -> Path:
        """The folder that PYTHONPATH names."""
        async with self._laying_out:
            if not self._laid_out:
                await asyncio.to_thread(_lay_out, self._directory)
                self._laid_out = True
            return self._directory

    def forget(self) -> None:
        """Lay them out again at the next use."""
        self._laid_out = False


async def unpacked(context: Context, function: Function) -> Path:
    """The folder with a function's code. Raises DeploymentFailed, EnvironmentFault."""
    version = f"{function.arn} {function.code_sha256}"
    directory = context.state.work / "functions" / hashlib.sha256(version.encode()).hexdigest()[:32]
    if not directory.exists():
        await context.blocking(_unpack, function, await _code(context, function), directory)
    return directory


async def _code(context: Context, function: Function) -> bytes:
    """The deployed zip, from where GetFunction says that it is."""
    where = urlsplit(function.code_location)
    answer = await context.control_plane.send(Request("GET", where.path, where.query))
    body = await answer.read()
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    if answer.status != 200 or digest != function.code_sha256:
        raise EnvironmentFault(
            f"lambda {function.name}: its code cannot be read back from {function.code_location}",
            got=f"status {answer.status}, sha256 {digest}",
            allowed=f"sha256 {function.code_sha256}",
        )
    return body


def _unpack(function: Function, archive: bytes, directory: Path) -> None:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".unpacking-"))
        try:
            with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
                zipped.extractall(staging)
            staging.chmod(0o755)
            staging.rename(directory)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except zipfile.BadZipFile as error:
        raise DeploymentFailed(f"lambda {function.name}: its code is not a zip archive: {error}") from error
    except OSError as error:
        if not directory.exists():
            raise disk_fault(error, directory) from error


def _lay_out(directory: Path) -> None:
    """Link what Lambda's Python runtime contains, its client and boto3, from our own packages."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    seen: set[str] = set()
    wanted = list(RUNTIME_PACKAGES)
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an optional or platform requirement that is not installed here
        for file in package.files or ():
            top = file.parts[0]
            if top in ("..", "__pycache__") or (directory / top).exists():
                continue
            (directory / top).symlink_to(Path(str(package.locate_file(top))))
        wanted += [
            re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            for requirement in package.requires or ()
            if "extra ==" not in requirement
        ]
