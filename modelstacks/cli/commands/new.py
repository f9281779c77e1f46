"""`modelstacks new`: write a project of the user's own, with one working example."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from modelstacks.cli.command import Command, Section
from modelstacks.core.errors import ModelstacksError, relative

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext

SPEC = "deployments/churn.yaml"


def new(
    ctx: typer.Context,
    project: Annotated[
        Path,
        Argument(metavar="PROJECT", help="the folder to write; it must not exist, or be empty"),
    ],
    lock: Annotated[
        bool, Option("--lock/--no-lock", help="lock the example, which installs its engine the first time")
    ] = True,
) -> None:
    """Write a project of your own, with one working example.

    A CDK app, a spec with a small model, pinned requirements, a test and a CI workflow. The files are yours;
    upgrading modelstacks means changing one pin.
    """
    from modelstacks.cli.new_project import create, written_files

    context: CommandContext = ctx.obj
    create(project)
    for path in written_files(project):
        context.terminal.data(relative(project / path))
    locked = lock and _locked(context, project.resolve())
    steps = ["python3 -m venv .venv && . .venv/bin/activate", "pip install -r requirements.txt"]
    steps += ["modelstacks setup"] + ([] if locked else ["modelstacks lock"]) + ["modelstacks up"]
    context.terminal.say("next:\n" + "\n".join(f"    {step}" for step in [f"cd {relative(project)}", *steps]))


def _locked(context: CommandContext, project: Path) -> bool:
    """Lock the example; the project is complete without, so a failure is only reported."""
    from modelstacks.core.lock.locking import lock as lock_spec

    context.project = project
    try:
        outcome = lock_spec(project / SPEC, project, context.ports, report=context.terminal.say)
    except ModelstacksError as error:
        context.terminal.say(f"{SPEC} is not locked yet: {error}")
        return False
    context.terminal.data(relative(outcome.path))
    return True


COMMAND = Command(new, Section.START, order=10, examples=("modelstacks new my-models && cd my-models",))
