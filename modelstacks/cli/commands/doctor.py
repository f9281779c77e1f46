"""`modelstacks doctor`: check what this machine, or with --aws the account, lacks, and how to fix it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from modelstacks.cli.command import Command, Section
from modelstacks.cli.options import JsonOption
from modelstacks.core.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelstacks.cli.context import CommandContext
    from modelstacks.cli.doctor.check import Check

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


def doctor(
    ctx: typer.Context,
    aws: Annotated[
        bool, Option("--aws", help="also check the AWS account, with your own credentials; changes nothing")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Check what this machine lacks, and how to fix it.

    It fails if `up`, or with --aws a deploy, would fail.
    """
    from modelstacks.cli.doctor import examine

    context: CommandContext = ctx.obj
    checks = examine(context, aws=aws)
    if json:
        context.terminal.json({"checks": [asdict(check) for check in checks]})
    else:
        _show(context, checks)
    failed = [check for check in checks if check.state == "failed"]
    if failed:
        raise EnvironmentFault(
            f"{len(failed)} check{'s' * (len(failed) != 1)} failed: {', '.join(c.name for c in failed)}",
            fix=failed[0].fix,
        )


def _show(context: CommandContext, checks: Sequence[Check]) -> None:
    context.terminal.table(
        ("check", "", "found", "fix"),
        [
            (
                check.name,
                f"[{COLOURS[check.state]}]{check.state}[/{COLOURS[check.state]}]",
                check.found.replace("[", "\\["),
                check.fix.replace("[", "\\["),
            )
            for check in checks
        ],
    )


COMMAND = Command(doctor, Section.CHECKS, order=10, examples=("modelstacks doctor --aws",))
