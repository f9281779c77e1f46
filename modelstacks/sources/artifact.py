"""artifact: your own model files: a folder or .tar.gz in the project, or objects in S3."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from modelstacks.core.artifact.archive import file_sha256
from modelstacks.core.artifact.formats import select
from modelstacks.core.artifact.model_files import FileTree, open_file, pin
from modelstacks.core.artifact.unpacking import unpack
from modelstacks.core.errors import Invalid, UsageError, did_you_mean
from modelstacks.core.lock.licences import card_license
from modelstacks.core.model import ArtifactModel, LockedFile, files_revision
from modelstacks.core.ports import ObjectVersion
from modelstacks.core.registry import ArtifactSource, Doubt, Pinned, Workplace
from modelstacks.core.spec import SourceSpec

S3 = "s3://"
# Bytes of a README.md that are searched for front matter.
LONGEST_CARD = 1 << 20


class Artifact(SourceSpec):
    """The location of the files, and which of them are the model."""

    source: Literal["artifact"]
    path: str = Field(
        min_length=1,
        description="folder or .tar.gz in the project, or s3://bucket/prefix in a versioned bucket",
    )
    include: Annotated[tuple[str, ...], Field(strict=False, max_length=100)] = Field(
        (), description="patterns of the files to use; if unset, the weights and the files needed with them"
    )

    @model_validator(mode="after")
    def _is_in_project_or_s3(self) -> Self:
        if self.path.startswith(S3):
            bucket, _, prefix = self.path.removeprefix(S3).partition("/")
            if not bucket or not prefix.strip("/"):
                raise Invalid(
                    "has no prefix after the bucket",
                    field="path",
                    got=f'"{self.path}"',
                    allowed="s3://bucket/prefix",
                )
            return self
        path = PurePosixPath(self.path)
        if "://" in self.path:
            raise Invalid(
                "is not a supported location",
                field="path",
                got=f'"{self.path}"',
                allowed="a path in the project, or s3://bucket/prefix",
            )
        if path.is_absolute() or ".." in path.parts or "\\" in self.path:
            raise Invalid(
                "must be inside the project, so that it exists on every machine",
                field="path",
                got=f'"{self.path}"',
                allowed="a relative path with forward slashes and no ..",
                fix="copy the model into the project, or upload it to S3",
            )
        return self


def resolve(spec: Artifact, place: Workplace) -> Pinned:
    """Find the model's files and pin each by its sha256, and in S3 also by its version id."""
    if spec.path.startswith(S3):
        return _resolve_s3(spec, place)
    path = _local(spec.path, place.project)
    if not path.exists():
        raise UsageError(f"model.path: {spec.path} does not exist in {place.project}")
    if path.is_dir():
        return _pin(spec, path, {"path": spec.path})
    if not path.is_file():
        raise UsageError(f"model.path: {spec.path} is neither a folder nor a .tar.gz")
    unpack(path, place.work, where=spec.path)
    return _pin(spec, place.work, {"path": spec.path, "sha256": file_sha256(path)})


def fetch(model: ArtifactModel, place: Workplace) -> Path:
    """Put the locked files into a folder again."""
    origin = model.origin
    if "bucket" in origin:
        return _fetch_s3(model, place)
    path = _local(origin["path"], place.project)
    if not path.exists():
        raise UsageError(f"{origin['path']} does not exist in {place.project}, but the lock was made from it")
    if path.is_dir():
        return path
    unpack(path, place.work, where=origin["path"])
    return place.work


def drift(spec: Artifact, model: ArtifactModel, project: Path) -> str | None:
    """Return what has changed in the project since the lock was made.

    In a project without the weights, such as a CI job that only synthesizes, there is nothing to compare and
    the lock is trusted.
    """
    if spec.path.startswith(S3):
        return None
    try:
        path = _local(spec.path, project)
    except UsageError as error:
        return error.what
    if path.is_file():
        return None if file_sha256(path) == model.origin.get("sha256") else f"{spec.path} has changed"
    if not path.is_dir():
        return None
    try:
        _, paths = select(path, spec.include, where=spec.path)
    except UsageError as error:
        return error.what
    locked = {file.path: file for file in model.files}
    for gone in sorted(locked.keys() - set(paths)):
        return f"{spec.path}/{gone} was removed"
    for name in paths:
        if name not in locked:
            return f"{spec.path}/{name} was added"
        try:
            if pin(path, name) != (locked[name].size, locked[name].sha256):
                return f"{spec.path}/{name} has changed"
        except UsageError as error:
            return error.what
    return None


def _local(path: str, project: Path) -> Path:
    """Return a path of the project as an absolute path.

    Raises:
        UsageError: a link in it points outside the project.
    """
    real = (project / path).resolve()
    if not real.is_relative_to(project.resolve()):
        raise UsageError(
            f"model.path: {path} is a link to a target outside the project",
            got=str(real),
            fix="copy the model into the project, or upload it to S3",
        )
    return real


def doubts(spec: Artifact, project: Path) -> tuple[Doubt, ...]:
    """Warn about a missing path: the spec is valid without it, as in a job that only synthesizes."""
    if spec.path.startswith(S3) or (project / spec.path).exists():
        return ()
    folder = (project / spec.path).parent
    near = [f"{PurePosixPath(spec.path).parent}/{path.name}" for path in folder.glob("*")]
    fix = did_you_mean(spec.path, near) or "put the model there before `modelstacks lock`"
    return (Doubt("model.path", "does not exist in the project", got=f'"{spec.path}"', fix=fix),)


def _pin(
    spec: Artifact, directory: Path, origin: dict[str, str], versions: dict[str, str] | None = None
) -> Pinned:
    _, paths = select(directory, spec.include, where=spec.path)
    files = []
    for path in paths:
        size, sha256 = pin(directory, path)
        version = {"version_id": versions[path]} if versions else {}
        files.append(LockedFile(path=path, size=size, sha256=sha256, origin=version))
    return Pinned(
        revision=files_revision(files),
        origin=origin,
        files=tuple(files),
        directory=directory,
        license=_stated_license(directory),
    )


def _stated_license(directory: Path) -> str | None:
    """Return the licence that the front matter of the model's README.md states."""
    if not (directory / "README.md").is_file():
        return None
    with open_file(directory, "README.md") as (content, _):
        return card_license(content.read(LONGEST_CARD).decode(errors="replace"))


def _resolve_s3(spec: Artifact, place: Workplace) -> Pinned:
    bucket, _, prefix = spec.path.removeprefix(S3).partition("/")
    packed = prefix.endswith(".tar.gz")
    prefix = prefix if packed else prefix.rstrip("/") + "/"
    store = place.ports.objects
    objects = [
        o for o in store.list(bucket, prefix) if not o.key.endswith("/") and (not packed or o.key == prefix)
    ]
    if not objects:
        raise UsageError(f"model.path: found no objects at {spec.path}")
    for found in objects:
        if found.version_id is None:
            raise UsageError(
                f"model.path: bucket {bucket} has no versioning, so a locked object could be overwritten",
                fix=f"enable versioning (aws s3api put-bucket-versioning --bucket {bucket} "
                "--versioning-configuration Status=Enabled) and upload the model again",
            )
    if packed:
        archive = place.work / "model.tar.gz"
        store.download(bucket, objects[0], archive)
        unpacked = place.work / "unpacked"
        unpacked.mkdir()
        unpack(archive, unpacked, where=spec.path)
        return _pin(
            spec,
            unpacked,
            {
                "bucket": bucket,
                "key": prefix,
                "version_id": str(objects[0].version_id),
                "size": str(objects[0].size),
                "sha256": file_sha256(archive),
            },
        )
    paths = {found.key.removeprefix(prefix): found for found in objects}
    tree = FileTree(spec.path)
    # A key can be any string: all are checked to be plain paths before any is downloaded.
    for path in paths:
        tree.add(path)
    for path, found in paths.items():
        _download(place, bucket, found, path, place.work)
    versions = {path: str(found.version_id) for path, found in paths.items()}
    return _pin(spec, place.work, {"bucket": bucket, "prefix": prefix}, versions)


def _fetch_s3(model: ArtifactModel, place: Workplace) -> Path:
    origin = model.origin
    if "key" in origin:
        archive = place.work / "model.tar.gz"
        version = ObjectVersion(origin["key"], origin["version_id"], int(origin["size"]))
        place.ports.objects.download(origin["bucket"], version, archive)
        unpacked = place.work / "unpacked"
        unpacked.mkdir()
        unpack(archive, unpacked, where=f"{S3}{origin['bucket']}/{origin['key']}")
        return unpacked
    for file in model.files:
        version = ObjectVersion(origin["prefix"] + file.path, file.origin["version_id"], file.size)
        _download(place, origin["bucket"], version, file.path, place.work)
    return place.work


def _download(place: Workplace, bucket: str, version: ObjectVersion, path: str, directory: Path) -> None:
    destination = directory / path
    destination.parent.mkdir(parents=True, exist_ok=True)
    place.ports.objects.download(bucket, version, destination)


SOURCE = ArtifactSource(
    name="artifact",
    summary="your own files: a folder or .tar.gz in the project, or objects in a versioned S3 bucket",
    spec=Artifact,
    example="""\
# yaml-language-server: $schema=../docs/schema/spec.schema.json
name: churn
model:
  source: artifact
  path: model_artifacts/churn-xgboost   # a folder, a .tar.gz, or s3://bucket/prefix
  license: Apache-2.0
architecture: self-hosted               # or: managed
""",
    resolve=resolve,
    fetch=fetch,
    drift=drift,
    doubts=doubts,
)
