"""Whether a cloud assembly is still what the app would write, so that synth can be skipped.

Synth is deterministic. Its inputs are the files of the project that no tool made, and those of the toolkit.
They are compared by size and time, as make does, because some of them are weights.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import modelstacks
from modelstacks.core import bundle

__all__ = ["fingerprint", "forget", "recall", "remember"]

MADE_BY_TOOLS = {"node_modules", "__pycache__", "cdk.out", "dist"}
LIBRARIES = ("aws-cdk-lib", "constructs", "cdk-nag", "modelstacks")


def fingerprint(project: Path, context: Mapping[str, str], toolkit: Sequence[Path] | None = None) -> str:
    """Return a sha256 of the context, the libraries' versions, and the name, size and time of every input.

    Args:
        toolkit: the folders of the toolkit's code; by default those of this installation.
    """
    digest = hashlib.sha256(repr((str(project), sorted(context.items()), _versions())).encode())
    for root in (project, *(_toolkit(project) if toolkit is None else toolkit)):
        for path, size, changed in _inputs(root):
            digest.update(f"{path}\0{size}\0{changed}\n".encode())
    return digest.hexdigest()


def recall(assembly: Path, wanted: str) -> bool:
    """Return whether the assembly was written for this fingerprint, and completely."""
    try:
        return _note(assembly).read_text() == wanted and (assembly / "manifest.json").is_file()
    except OSError:
        return False


def forget(assembly: Path) -> None:
    """Record that the assembly is about to be replaced."""
    _note(assembly).unlink(missing_ok=True)


def remember(assembly: Path, fingerprint: str) -> None:
    """Record the inputs for which the assembly was written."""
    _note(assembly).write_text(fingerprint)


def _note(assembly: Path) -> Path:
    return assembly.with_name(assembly.name + ".inputs")


def _versions() -> list[str]:
    return [metadata.version(name) for name in LIBRARIES]


def _toolkit(project: Path) -> list[Path]:
    """Return the folders of the toolkit's own code that are not part of the project."""
    package = Path(modelstacks.__file__).resolve().parent
    folders = {package, bundle.serving().resolve(), bundle.functions().resolve(), package.parent / "stacks"}
    return sorted(one for one in folders if one.is_dir() and not one.is_relative_to(project.resolve()))


def _inputs(project: Path) -> Iterator[tuple[str, int, int]]:
    for folder, folders, files in os.walk(project):
        folders[:] = sorted(one for one in folders if not one.startswith(".") and one not in MADE_BY_TOOLS)
        for name in sorted(files):
            path = os.path.join(folder, name)  # noqa: PTH118  thousands of files: Path would cost more than stat
            try:
                facts = os.stat(path)  # noqa: PTH116
            except OSError:
                # A broken link, or a file that was just deleted.
                continue
            yield os.path.relpath(path, project), facts.st_size, facts.st_mtime_ns
