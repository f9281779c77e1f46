"""`modelstacks setup`: install the CDK CLI that the project pins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from modelstacks.cli.command import Command, Section

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext


def setup(ctx: typer.Context) -> None:
    """Install the CDK CLI that the project pins.

    npm installs it into node_modules, as package.json says; npm and Node come with the Python packages, so
    neither has to be installed on the machine. It is the same as `npm ci`.
    """
    from modelstacks.cli.project import require_app

    context: CommandContext = ctx.obj
    require_app(context.project)
    context.terminal.data(f"CDK CLI {context.cdk.install()}")


COMMAND = Command(setup, Section.START, order=15, examples=("modelstacks setup",))
