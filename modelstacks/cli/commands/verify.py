"""`modelstacks verify`: send the same requests to a deployed API, here or in AWS, and judge the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from modelstacks.cli.command import Command, Section
from modelstacks.cli.options import JsonOption, NameArgument, OneArchitectureOption


def verify(
    ctx: typer.Context,
    name: NameArgument,
    aws: Annotated[bool, Option("--aws", help="the deployment in AWS, with your own credentials")] = False,
    architecture: OneArchitectureOption = None,
    data: Annotated[
        Path | None,
        Option("--data", metavar="FILE", help="rows to send (CSV or JSON); default: those beside the model"),
    ] = None,
    record: Annotated[
        Path | None, Option("--record", metavar="FILE", help="write verdicts and answers as evidence")
    ] = None,
    overload: Annotated[
        bool, Option("--overload/--no-overload", help="also send many requests at once")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Check the answers of a deployed API, one verdict per line.

    Predictions, content types, protocol, limits, access, overload: the same requests here and in AWS.
    """
    from modelstacks.cli.verifying import Options, run

    run(ctx.obj, name, Options(aws, architecture, data, record, overload, json))


COMMAND = Command(
    verify,
    Section.HERE,
    order=40,
    examples=(
        "modelstacks verify churn --no-overload",
        "modelstacks verify churn --aws --record evidence.json",
    ),
)
