"""Whether a cloud assembly still is what the app would write: synth is deterministic.

An input is any file of the project that no tool has made. Files are told apart by size and time, as make
does, since some of them are weights.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

__all__ = ["fingerprint", "forget", "recall", "remember"]

MADE_BY_TOOLS = {"node_modules", "__pycache__", "cdk.out", "dist"}
LIBRARIES = ("aws-cdk-lib", "constructs", "cdk-nag")


def fingerprint(project: Path, context: Mapping[str, str]) -> str:
    """sha256 over the context, the libraries' versions, and the name, size and time of every input."""
    digest = hashlib.sha256(repr((str(project), sorted(context.items()), _versions())).encode())
    for path, size, changed in _inputs(project):
        digest.update(f"{path}\0{size}\0{changed}\n".encode())
    return digest.hexdigest()


def recall(assembly: Path, wanted: str) -> bool:
    """Whether the assembly was written for this fingerprint, and to its end."""
    try:
        return _note(assembly).read_text() == wanted and (assembly / "manifest.json").is_file()
    except OSError:
        return False


def forget(assembly: Path) -> None:
    """Note that the assembly is about to be written anew."""
    _note(assembly).unlink(missing_ok=True)


def remember(assembly: Path, fingerprint: str) -> None:
    """Note for which inputs the assembly was written."""
    _note(assembly).write_text(fingerprint)


def _note(assembly: Path) -> Path:
    return assembly.with_name(assembly.name + ".inputs")


def _versions() -> list[str]:
    return [metadata.version(name) for name in LIBRARIES]


def _inputs(project: Path) -> Iterator[tuple[str, int, int]]:
    for folder, folders, files in os.walk(project):
        folders[:] = sorted(one for one in folders if not one.startswith(".") and one not in MADE_BY_TOOLS)
        for name in sorted(files):
            path = os.path.join(folder, name)  # noqa: PTH118  thousands of files: Path would cost more than stat
            try:
                facts = os.stat(path)  # noqa: PTH116
            except OSError:
                continue  # a broken link, or gone this moment
            yield os.path.relpath(path, project), facts.st_size, facts.st_mtime_ns
