"""The lock file: every fact that can change, pinned.

It is committed beside its spec; synth reads it and nothing else.

`churn.yaml` is locked by `churn.lock.json`. A lock is stale when the spec's `model` block, or the bytes of a
local artifact, have changed since.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from modelstacks.core.base import Frozen
from modelstacks.core.errors import EnvironmentFault, LockInvalid, relative
from modelstacks.core.model import MODEL_KINDS, Model, Sha256
from modelstacks.core.spec import Spec

__all__ = [
    "LOCK_VERSION",
    "Lock",
    "lock_path",
    "model_digest",
    "read_lock",
    "seal",
    "write_lock",
]

# Rises when a lock of an earlier version cannot be read any more. Version 2: the model has a `kind`.
LOCK_VERSION: Literal[2] = 2


class Lock(Frozen):
    """The whole lock file."""

    lock_version: Literal[2] = LOCK_VERSION
    # The spec's file name.
    spec: str
    # Of the spec's `model` block: see model_digest().
    model_digest: Sha256
    model: Model
    # Over everything above: only `modelstacks lock` pins facts. See seal().
    digest: Sha256 | Literal[""] = ""


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
    except FileNotFoundError:
        raise LockInvalid(f"{relative(path)}: no lock file", fix=fix) from None
    except OSError as error:
        raise LockInvalid(f"{relative(path)}: cannot be read: {error.strerror}", fix=fix) from None
    except ValidationError as error:
        what = _what_is_wrong(content, error)
        raise LockInvalid(f"{relative(path)}: the lock file {what}", fix=fix) from None
    if lock.digest != _digest({**json.loads(content), "digest": ""}):
        raise LockInvalid(
            f"{relative(path)}: the lock file was edited: its content does not match its digest", fix=fix
        )
    return lock


def _what_is_wrong(content: bytes, error: ValidationError) -> str:
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    version = document.get("lock_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version != LOCK_VERSION:
        return "was written by another version"
    location = error.errors()[0]["loc"]
    # The union's tag is not in the file.
    if location[:1] == ("model",) and location[1:2] in [(kind,) for kind in MODEL_KINDS]:
        location = ("model", *location[2:])
    where = ".".join(map(str, location)) or "the document"
    return f"is damaged at {where}"


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
