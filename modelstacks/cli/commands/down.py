"""`modelstacks down`: stop everything that this project started here, and clean up after a crash."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from modelstacks.cli.command import Command, Section
from modelstacks.cli.options import JsonOption
from modelstacks.core.errors import EnvironmentFault, relative

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext


def down(
    ctx: typer.Context,
    purge: Annotated[
        bool, Option("--purge", help="also delete .modelstacks/: logs, packaged models, installed images")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Stop the embedded cloud, and clean up after a crash.

    It succeeds too if nothing is running.
    """
    context: CommandContext = ctx.obj
    session = context.cloud.attach(context.project)
    ended: tuple[int, ...] = ()
    if session is not None:
        session.shutdown()
        done = "stopped the embedded cloud and everything in it"
    else:
        ended = context.cloud.clean(context.project)
        done = (
            f"cleaned up after a run that crashed: ended {len(ended)} process{'es' * (len(ended) != 1)}"
            if ended
            else "nothing was running"
        )
    state = context.project / ".modelstacks"
    if purge and state.exists():
        try:
            shutil.rmtree(state)
        except OSError as error:
            raise EnvironmentFault(f"cannot delete {relative(state)}: {error.strerror}") from None
        done += f"; deleted {relative(state)}"
    if json:
        context.terminal.json({"stopped": session is not None, "ended_pids": list(ended), "purged": purge})
    else:
        context.terminal.data(done)


COMMAND = Command(down, Section.HERE, order=60, examples=("modelstacks down --purge",))
