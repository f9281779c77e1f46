"""From a spec file to a Plan, for CDK apps that people write themselves."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

from modelstacks.core.errors import ModelstacksError
from modelstacks.core.plan import Plan, deployments
from modelstacks.core.spec import Architecture

__all__ = ["load_plan"]


def load_plan(
    spec: str | os.PathLike[str],
    *,
    architecture: Architecture | None = None,
    project: str | os.PathLike[str] | None = None,
) -> Plan:
    """The Plan that a spec and its lock file make, offline and the same on every machine.

    Args:
        spec: the YAML file; a relative path starts at the working directory, or else at the project.
        architecture: "self-hosted" or "managed"; None takes the one that the spec names.
        project: the folder that the spec's own paths start at. By default the folder of the nearest cdk.json
            from the spec upwards, or else the working directory.

    Raises:
        ModelstacksError: the spec or its lock is missing, wrong or stale. Uncaught, it ends the program with
            its message instead of a traceback.

    Example:
        plan = load_plan("deployments/churn.yaml", architecture="managed")
        ModelApi(self, "Churn", plan=plan, vpc=vpc)
    """
    _show_our_errors_as_messages()
    root = Path(project) if project is not None else _project(Path(spec))
    [file] = deployments.find_specs(root, str(spec))
    [plan] = deployments.load_plans([file], architecture or "spec", root)
    return plan


def _project(spec: Path) -> Path:
    folders = spec.resolve().parents
    return next((folder for folder in folders if (folder / "cdk.json").is_file()), Path.cwd())


def _show_our_errors_as_messages() -> None:
    """Print the message alone of a ModelstacksError that nothing catches; it says all that a user needs."""
    if getattr(sys.excepthook, "__module__", None) == __name__:
        return
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, ModelstacksError):
            sys.stderr.write(f"{error}\n")
        else:
            usual(kind, error, traceback)

    sys.excepthook = hook
