"""The lock file: every fact that could move, pinned.

It is committed beside its spec; synth reads it and nothing else.

`churn.yaml` is locked by `churn.lock.json`. A lock is stale when the spec's `model` block, or a local
artifact's bytes, no longer are what was locked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from modelstacks.core.artifact.model_files import name_fault
from modelstacks.core.base import Frozen
from modelstacks.core.errors import EnvironmentFault, LockInvalid, relative
from modelstacks.core.signature import Signature
from modelstacks.core.spec import Spec

__all__ = [
    "Archive",
    "Lock",
    "LockedFile",
    "LockedModel",
    "files_revision",
    "lock_path",
    "model_digest",
    "read_lock",
    "seal",
    "write_lock",
]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Strings = dict[str, str]


def _plain_path(path: str) -> str:
    """A lock is a file in a repository: one that was edited must not name files outside the model."""
    if fault := name_fault(path):
        raise ValueError(f"{path!a} {fault}")
    return path


class LockedFile(Frozen):
    """One file of the model as it will lie in /opt/ml/model.

    `origin` is how its source finds these bytes again.
    """

    path: Annotated[str, AfterValidator(_plain_path)]
    size: int = Field(ge=0)
    sha256: Sha256
    origin: Strings = Field(default_factory=dict)


class Archive(Frozen):
    """The model.tar.gz that is made of the files: the same bytes on every machine."""

    sha256: Sha256
    size: int


class LockedModel(Frozen):
    """A model pinned: its files, what loads it, what it takes and gives."""

    source: str
    revision: str  # the source's own immutable name: a commit sha, or "sha256:..." over the files
    origin: Strings  # the source's own words for where the files come from
    files: tuple[LockedFile, ...] = Field(min_length=1)
    archive: Archive
    framework: str
    framework_version: str
    engine: str
    task: str
    signature: Signature
    license: str
    license_from: Literal["spec", "model card"]
    gated: bool
    trust_code: bool


class Lock(Frozen):
    """The whole lock file."""

    lock_version: Literal[1] = 1
    spec: str  # the spec's file name
    model_digest: Sha256  # of the spec's `model` block: see model_digest()
    model: LockedModel
    aws_images: Strings  # region -> AWS's own inference image for this framework; empty where there is none
    digest: Sha256 | Literal[""] = ""  # over everything above: only `modelstacks lock` pins facts; see seal()


def files_revision(files: Iterable[LockedFile]) -> str:
    """A revision for a source that has no name of its own for one: sha256 over every path and content."""
    listing = "".join(f"{file.sha256}  {file.path}\n" for file in files)
    return "sha256:" + hashlib.sha256(listing.encode()).hexdigest()


def lock_path(spec_path: Path) -> Path:
    """The lock's path: deployments/churn.yaml -> deployments/churn.lock.json."""
    return spec_path.with_name(spec_path.stem + ".lock.json")


def model_digest(spec: Spec) -> str:
    """sha256 over the `model` block in canonical JSON: what the lock was made for.

    Defaults are left out, so that a release that adds an option leaves every lock valid.
    """
    return _digest(spec.model.model_dump(mode="json", by_alias=True, exclude_defaults=True))


def _digest(document: object) -> str:
    """sha256 over canonical JSON: the same for every order of keys and every layout."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_lock(path: Path, fix: str = "") -> Lock:
    """Read a lock file.

    Raises:
        LockInvalid: it is missing, damaged, edited by hand, or written by another version; `fix` is the
            command to run.
    """
    fix = fix or f"modelstacks lock {relative(path).removesuffix('.lock.json')}.yaml"
    try:
        content = path.read_bytes()
        lock = Lock.model_validate_json(content)
        if not lock.digest:
            raise LockInvalid(f"{relative(path)}: the lock file was written by another version", fix=fix)
        if lock.digest != _digest({**json.loads(content), "digest": ""}):
            raise LockInvalid(
                f"{relative(path)}: the lock file was edited: its content does not match its digest", fix=fix
            )
        return lock
    except FileNotFoundError:
        raise LockInvalid(f"{relative(path)}: no lock file", fix=fix) from None
    except OSError as error:
        raise LockInvalid(f"{relative(path)}: cannot be read: {error.strerror}", fix=fix) from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the document"
        other = where in ("lock_version", "model.allow_pickle", "model.trust_code")
        what = "was written by another version" if other else f"is damaged at {where}"
        raise LockInvalid(f"{relative(path)}: the lock file {what}", fix=fix) from None


def seal(lock: Lock) -> Lock:
    """The lock with the digest of its content."""
    document = lock.model_dump(mode="json")
    return lock.model_copy(update={"digest": _digest({**document, "digest": ""})})


def write_lock(path: Path, lock: Lock) -> bool:
    """Write a lock file atomically; return whether its bytes changed.

    Raises:
        EnvironmentFault: it cannot be written; a lock that was there is as it was.
    """
    text = seal(lock).model_dump_json(indent=2) + "\n"
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise EnvironmentFault(f"{relative(path)} cannot be written: {error.strerror}") from None
    return True
