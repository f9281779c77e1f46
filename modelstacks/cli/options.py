"""Arguments and options that several commands have, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Context, Option

from modelstacks.cli.project import deployment_names, find_project

__all__ = [
    "ArchitectureChoice",
    "ArchitectureOption",
    "JsonOption",
    "NameArgument",
    "OneArchitecture",
    "OneArchitectureOption",
    "SpecsArgument",
    "complete_deployment",
]

ArchitectureChoice = Literal["spec", "both", "self-hosted", "managed"]
OneArchitecture = Literal["self-hosted", "managed"]


def complete_deployment(ctx: Context, incomplete: str) -> list[str]:
    """Return the names in deployments/ that begin with what was typed."""
    project = (ctx.find_root().params or {}).get("project") or find_project(Path.cwd())
    return [name for name in deployment_names(Path(project)) if name.startswith(incomplete)]


SpecsArgument = Annotated[
    list[str] | None,
    Argument(
        metavar="[SPEC]...",
        help="specs: paths, or names of files in deployments/; default: all of deployments/",
        show_default=False,
        autocompletion=complete_deployment,
    ),
]
NameArgument = Annotated[
    str, Argument(metavar="NAME", help="the name of a deployment", autocompletion=complete_deployment)
]
ArchitectureOption = Annotated[
    ArchitectureChoice,
    Option("--architecture", "-a", help="the architecture of the spec, one of the two, or both side by side"),
]
OneArchitectureOption = Annotated[
    OneArchitecture | None,
    Option("--architecture", "-a", help="one architecture, if the deployment runs as both"),
]
JsonOption = Annotated[bool, Option("--json", help="print the report as JSON to stdout")]
