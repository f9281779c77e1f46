"""Finds the project's folder, and the specs that the words on a command line name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelstacks.core.errors import UsageError, did_you_mean, relative

__all__ = ["DEPLOYMENTS", "deployment_names", "find_project", "require_app", "spec_paths"]

MARKER = "cdk.json"
DEPLOYMENTS = "deployments"


def find_project(start: Path) -> Path:
    """Return the nearest folder from `start` upwards with a cdk.json, or `start` itself if there is none."""
    start = start.resolve()
    return next((folder for folder in (start, *start.parents) if (folder / MARKER).is_file()), start)


def require_app(project: Path) -> None:
    """Raise UsageError if the project has no CDK app to deploy."""
    if not (project / MARKER).is_file():
        raise UsageError(
            f"no {MARKER} here or in a folder above",
            got=str(project),
            fix="run the command inside a modelstacks project, or name it: modelstacks --project DIR",
        )


def deployment_names(project: Path) -> list[str]:
    """Return the names of the specs in deployments/, sorted."""
    return sorted(path.stem for path in (project / DEPLOYMENTS).glob("*.yaml"))


def spec_paths(project: Path, words: Sequence[str]) -> list[Path]:
    """Return the specs that words on the command line name: paths, or names in deployments/.

    Without words, every spec of deployments/; for a folder, every spec in it.
    Raises UsageError for a word that is neither, and if there is no spec at all.
    """
    if not words:
        found = sorted((project / DEPLOYMENTS).glob("*.yaml"))
        if not found:
            raise UsageError(
                f"there is no spec in {relative(project / DEPLOYMENTS)}",
                fix="modelstacks init writes one to start from",
            )
        return found
    paths: list[Path] = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            inside = sorted(path.glob("*.yaml"))
            if not inside:
                raise UsageError(f"there is no spec (*.yaml) in the folder {word}")
            paths += inside
        elif path.exists() or path.suffix in {".yaml", ".yml"}:
            # A missing file is reported when it is read, like any other fault of a spec.
            paths.append(path)
        elif word in (names := deployment_names(project)):
            paths.append(project / DEPLOYMENTS / f"{word}.yaml")
        else:
            raise UsageError(
                "no such file, and no deployment of this name",
                got=word,
                allowed=", ".join(names) or "the path of a spec",
                fix=did_you_mean(word, names),
            )
    return list(dict.fromkeys(path.resolve() for path in paths))
