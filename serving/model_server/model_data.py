"""The model's files: put there by SageMaker, or fetched from S3 by version, checked and unpacked."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from time import perf_counter
from typing import Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from model_server.logs import event
from model_server.problems import ModelRefusedError
from model_server.settings import Settings

# Records which archive the folder holds, so that a worker that starts again fetches nothing, and the names of
# its files, so that they can be removed before another model is unpacked. JSON; "source" is empty meanwhile.
MARKER = ".model-server-source"
CHUNK = 1 << 20


class Fetch(Protocol):
    """Opens an object for reading. Raises ModelRefusedError with the reason when it cannot."""

    def __call__(self, bucket: str, key: str, version: str) -> Iterable[bytes]: ...


def prepare(settings: Settings, fetch: Fetch | None = None) -> Path:
    """The folder that holds the model. ModelRefusedError where it cannot be fetched or is another one."""
    directory = settings.model_dir
    source = f"{settings.model_uri} {settings.model_sha256}"
    there, before = _fetched(directory)
    if there == source:
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    for leftover in directory.glob(".incoming-*"):  # of a worker that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    parts = urlsplit(settings.model_uri)
    version = parse_qs(parts.query).get("versionId", [""])[0]
    started = perf_counter()
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=directory) as incoming:
        archive = Path(incoming, "model.tar.gz")
        size, digest = _download(
            (fetch or fetch_from_s3)(parts.netloc, unquote(parts.path.lstrip("/")), version), archive
        )
        # The archive is read only after its digest was checked.
        if settings.model_sha256 and digest != settings.model_sha256:
            raise ModelRefusedError(
                f"{settings.model_uri} has sha256 {digest}, "
                f"but MODEL_SERVER_MODEL_SHA256 is {settings.model_sha256}"
            )
        unpacked = Path(incoming, "model")
        unpack(archive, unpacked)
        archive.unlink()
        names = {path.name for path in unpacked.iterdir()} - {MARKER}
        _mark(directory, "", before | names)
        for path in list(directory.iterdir()):  # by name: the folder may hold what no fetch put there
            if path.name in before | names:
                _remove(path)
        for name in sorted(names):
            (unpacked / name).rename(directory / name)
        _mark(directory, source, names)
    event(
        logging.INFO,
        "model fetched",
        uri=settings.model_uri,
        sha256=digest,
        bytes=size,
        seconds=round(perf_counter() - started, 3),
    )
    return directory


def _fetched(directory: Path) -> tuple[str, set[str]]:
    """The source of the model in the folder, and the names that its fetch created; empty without a marker."""
    try:
        found = json.loads((directory / MARKER).read_text(encoding="utf-8"))
        return str(found["source"]), set(found["names"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", set()


def _mark(directory: Path, source: str, names: set[str]) -> None:
    """Writes the marker atomically: a truncated one would lose the names to remove."""
    text = json.dumps({"source": source, "names": sorted(names)})
    new = directory / f"{MARKER}.new"
    new.write_text(text, encoding="utf-8")
    new.replace(directory / MARKER)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def unpack(archive: Path, directory: Path) -> None:
    """Unpacks a tar.gz into a new folder: plain files and folders only, none of them outside it."""
    directory.mkdir()
    try:
        with gzip.open(archive) as plain, tarfile.open(fileobj=plain, mode="r:") as tar:
            _extract(tar, directory)
            while plain.read(CHUNK):  # to the end, where a truncated file is detected
                pass
    except (tarfile.TarError, zlib.error, OSError, EOFError, ValueError) as error:
        raise ModelRefusedError(f"the model's archive cannot be unpacked: {error}") from error
    if not any(directory.iterdir()):
        raise ModelRefusedError("the model's archive is empty")


def _extract(tar: tarfile.TarFile, directory: Path) -> None:
    """Extracts plain files and folders without tarfile's filters, which Python 3.11.0 to 3.11.3 lack."""
    for member in tar:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise tarfile.TarError(f"{member.name!r} would be written outside the model's folder")
        path = directory / name
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
        elif (content := tar.extractfile(member) if member.isreg() else None) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                shutil.copyfileobj(content, file, CHUNK)
        else:
            raise tarfile.TarError(f"{member.name!r} is neither a file nor a folder")


def _download(chunks: Iterable[bytes], path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                size += file.write(chunk)
    except OSError as error:
        raise ModelRefusedError(f"the model cannot be written to {path.parent}: {error.strerror}") from error
    return size, digest.hexdigest()


def fetch_from_s3(bucket: str, key: str, version: str) -> Iterable[bytes]:
    """The object's bytes, through botocore and its usual sources of credentials, region and endpoint."""
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.session import Session

    where = f"s3://{bucket}/{key}" + (f" version {version}" if version else "")
    wanted = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
    config = Config(
        connect_timeout=10, read_timeout=60, retries={"total_max_attempts": 4, "mode": "standard"}
    )
    try:
        client = Session().create_client("s3", config=config)
        body = client.get_object(**wanted)["Body"]
        yield from body.iter_chunks(CHUNK)
    except (BotoCoreError, ClientError) as error:
        raise ModelRefusedError(f"cannot fetch {where}: {error}") from error
