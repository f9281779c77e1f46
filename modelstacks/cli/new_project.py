"""Writes a user's own project: the files of modelstacks/cli/project_template/ and a small model.

The project is written into a temporary folder beside its place and renamed at the end, so that a failure
leaves nothing behind.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from modelstacks import __version__
from modelstacks.core import bundle
from modelstacks.core.errors import EnvironmentFault, UsageError

__all__ = ["create", "written_files"]

TEMPLATE = Path(__file__).parent / "project_template"
EXAMPLE = "models/churn"
EXAMPLE_FILES = ("model.json", "signature.json", "holdout.csv", "predictions.json")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")


def create(folder: Path) -> None:
    """Write a project into a folder that does not exist or is empty.

    Raises UsageError for any other folder and for a bad name, EnvironmentFault if it cannot be written.
    """
    folder = folder.resolve()
    _refuse_name(folder.name)
    _refuse_existing(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            made = Path(temporary) / folder.name
            _write(made, folder.name)
            made.replace(folder)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write the project {folder}: {(error.strerror or str(error)).lower()}"
        ) from None


def written_files(folder: Path) -> list[str]:
    """Return the paths of a project's files, relative to it, sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _refuse_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise UsageError(
            "this name does not suit a project's folder",
            got=name or "the root folder",
            allowed="up to 63 letters, digits, dots, hyphens and underscores, beginning with a letter",
        )


def _refuse_existing(folder: Path) -> None:
    if folder.is_dir():
        if any(folder.iterdir()):
            raise UsageError(
                f"{folder} is not empty", fix="name a folder that does not exist, or an empty one"
            )
    elif folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists and is not a folder", fix="name a folder that does not exist")


def _write(made: Path, name: str) -> None:
    values = {"NAME": name, "VERSION": __version__}
    for source in sorted(TEMPLATE.rglob("*")):
        parts = source.relative_to(TEMPLATE).parts
        if source.is_dir() or "__pycache__" in parts:
            continue
        # The template's own .gitignore and .github would be obeyed where the template is kept.
        target = made.joinpath(*(re.sub("^dot-", ".", part) for part in parts))
        target.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8")
        if source.suffix in (".md", ".txt"):
            text = re.sub(r"\b(NAME|VERSION)\b", lambda found: values[found[0]], text)
        target.write_text(text, encoding="utf-8")
    example = made / EXAMPLE
    example.mkdir(parents=True)
    for file in EXAMPLE_FILES:
        shutil.copyfile(bundle.example_model() / file, example / file)
