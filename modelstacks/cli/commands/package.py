"""`modelstacks package`: prints the path of a locked model's archive, for CDK's asset publishing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument

from modelstacks.cli.command import Command, Section

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext


def package(
    ctx: typer.Context,
    lock_file: Annotated[Path, Argument(metavar="LOCKFILE", help="a .lock.json file")],
) -> None:
    """Print the absolute path of a locked model's archive, and nothing else on stdout.

    CDK's asset publishing runs this.
    """
    from modelstacks.core.artifact.packaging import package as package_model

    context: CommandContext = ctx.obj
    context.terminal.data(str(package_model(lock_file, context.project, context.ports).resolve()))


COMMAND = Command(package, Section.HIDDEN)
