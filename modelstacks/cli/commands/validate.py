"""`modelstacks validate`: find every fault of every spec in one pass, and what looks wrong in a valid one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from modelstacks.cli.command import Command, Section
from modelstacks.cli.options import JsonOption, SpecsArgument

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext
    from modelstacks.core.errors import Fault
    from modelstacks.core.spec.validation import CheckedSpec


def validate(ctx: typer.Context, specs: SpecsArgument = None, json: JsonOption = False) -> int:
    """Find all faults in the specs at once.

    Each fault names file, line, field, what it got, what is allowed, and a suggestion.
    """
    from modelstacks.cli.console.refusals import refusal
    from modelstacks.cli.project import spec_paths
    from modelstacks.core.errors import SpecInvalid, relative
    from modelstacks.core.spec.validation import check_specs

    context: CommandContext = ctx.obj
    paths = spec_paths(context.project, specs or [])
    try:
        checked = check_specs(paths)
    except SpecInvalid as error:
        if not json:
            raise
        context.terminal.json(refusal(error))
        return error.exit_code
    warnings = [fault for one in checked for fault in _doubts(one, context)]
    if json:
        valid = [
            {"file": relative(path), "name": one.spec.name} for path, one in zip(paths, checked, strict=True)
        ]
        context.terminal.json(
            {"valid": True, "specs": valid, "warnings": [asdict(warning) for warning in warnings]}
        )
        return 0
    for path, one in zip(paths, checked, strict=True):
        context.terminal.data(f"{relative(path)}: valid ({one.spec.name}, {one.spec.architecture})")
    for warning in warnings:
        context.terminal.say(f"warning: {warning}")
    return 0


def _doubts(one: CheckedSpec, context: CommandContext) -> list[Fault]:
    from modelstacks.core.errors import Fault
    from modelstacks.core.registry import sources

    source = sources()[one.spec.model.source]
    return [
        Fault(
            one.document.file,
            one.document.line(tuple(doubt.field.split("."))),
            doubt.field,
            doubt.what,
            got=doubt.got,
            fix=doubt.fix,
        )
        for doubt in source.doubts(one.spec.model, context.project)
    ]


COMMAND = Command(
    validate,
    Section.MODELS,
    order=10,
    examples=("modelstacks validate", "modelstacks validate churn --json"),
)
