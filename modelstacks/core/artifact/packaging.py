"""The model archive, made of the locked bytes, as published by CDK and unpacked by every container.

The CDK CLI runs `modelstacks package LOCK` when it publishes assets, so that synth needs no weights.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from modelstacks.core.artifact.archive import file_sha256, write_archive
from modelstacks.core.errors import EnvironmentFault, LockInvalid, UsageError, relative
from modelstacks.core.lock import read_lock
from modelstacks.core.model import ArtifactModel, LockedFile, RemoteModel
from modelstacks.core.ports import Ports
from modelstacks.core.registry import ArtifactSource, Workplace, sources

__all__ = ["STATE", "archive_path", "package", "store_archive", "workplace"]

STATE = ".modelstacks"


def archive_path(project: Path, sha256: str) -> Path:
    """Where an archive is kept: named by its content, so that a file that is there is the right one."""
    return project / STATE / "models" / f"{sha256}.tar.gz"


def package(lock_file: Path, project: Path, ports: Ports) -> Path:
    """The archive of a locked model; made where it is not there yet.

    Raises:
        LockInvalid: the lock is missing or damaged, or what its source has no longer is what was locked.
        UsageError, EnvironmentFault: the source cannot be reached, or does not have the model any more.
    """
    model = read_lock(lock_file).model
    if isinstance(model, RemoteModel):
        raise UsageError(
            f"{relative(lock_file)}: there is nothing to package: {model.provider} hosts {model.model_id}"
        )
    kept = archive_path(project, model.archive.sha256)
    if _is_whole(kept, model):
        return kept
    fix = f"modelstacks lock {relative(lock_file).removesuffix('.lock.json')}.yaml"
    source = _source(model, lock_file, fix)
    with workplace(project, ports) as place:
        directory = source.fetch(model, place)
        for file in model.files:
            path = directory / file.path
            if not path.is_file():
                raise LockInvalid(
                    f"{relative(lock_file)}: {file.path} is locked, but {source.name} no longer has it",
                    fix=fix,
                )
            if (got := file_sha256(path)) != file.sha256:
                raise LockInvalid(
                    f"{relative(lock_file)}: {file.path} is not what was locked",
                    got=f"sha256 {got}",
                    allowed=file.sha256,
                    fix=fix,
                )
        return store_archive(directory, model, project, fix)


def _is_whole(kept: Path, model: ArtifactModel) -> bool:
    archive = model.archive
    return kept.is_file() and kept.stat().st_size == archive.size and file_sha256(kept) == archive.sha256


def _source(model: ArtifactModel, lock_file: Path, fix: str) -> ArtifactSource:
    source = sources().get(model.source)
    if not isinstance(source, ArtifactSource):
        raise LockInvalid(
            f"{relative(lock_file)}: made by a source that this version does not have",
            got=model.source,
            allowed=", ".join(name for name, each in sources().items() if isinstance(each, ArtifactSource)),
            fix=fix,
        )
    return source


def store_archive(directory: Path, model: ArtifactModel, project: Path, fix: str = "") -> Path:
    """Write the archive of files whose digests have been checked, and keep it under its own digest."""
    made, sha256, _ = make_archive(directory, model.files, project)
    if sha256 != model.archive.sha256:
        made.unlink()
        raise LockInvalid(
            "the packaged archive does not match the sha256 in the lock",
            got=sha256,
            allowed=model.archive.sha256,
            fix=fix,
        )
    return keep_archive(made, sha256, project)


def make_archive(directory: Path, files: Sequence[LockedFile], project: Path) -> tuple[Path, str, int]:
    """Write an archive under a temporary name; return its path, sha256 and size in bytes.

    Raises:
        UsageError: a file is not what was pinned any more.
        EnvironmentFault: the archive cannot be written.
    """
    folder = archive_path(project, "").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
        os.close(handle)
        try:
            digests = {file.path: file.sha256 for file in files}
            sha256, size = write_archive(directory, digests, Path(name), digests)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        raise EnvironmentFault(
            f"{relative(folder)}: the archive cannot be written: {error.strerror}"
        ) from None
    return Path(name), sha256, size


def keep_archive(made: Path, sha256: str, project: Path) -> Path:
    """Give an archive its lasting name."""
    kept = archive_path(project, sha256)
    made.chmod(0o644)
    made.replace(kept)
    return kept


@contextmanager
def workplace(project: Path, ports: Ports) -> Iterator[Workplace]:
    """A Workplace with an empty folder of its own, on the project's disk, gone afterwards."""
    parent = project / STATE / "work"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=parent)
    except OSError as error:
        raise EnvironmentFault(f"{relative(parent)} cannot be written: {error.strerror}") from None
    with folder as work:
        yield Workplace(project, Path(work), ports)
