"""`modelstacks lock`: resolve everything that can change, into one lock file per spec."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from modelstacks.cli.command import Command, Section
from modelstacks.cli.options import JsonOption, SpecsArgument

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext
    from modelstacks.core.model import Model


def lock(ctx: typer.Context, specs: SpecsArgument = None, json: JsonOption = False) -> None:
    """Pin everything that can change into a lock file.

    Revisions, checksums, framework, signature and licence go to NAME.lock.json, which you commit.
    """
    from modelstacks.cli.project import spec_paths
    from modelstacks.core.errors import relative
    from modelstacks.core.lock.locking import lock as lock_spec
    from modelstacks.core.spec.validation import read_specs

    context: CommandContext = ctx.obj
    paths = spec_paths(context.project, specs or [])
    # All specs are validated before the first is resolved.
    read_specs(paths)
    context.warn_without_sandbox()
    report = []
    for path in paths:
        outcome = lock_spec(path, context.project, context.ports, report=context.terminal.say)
        model = outcome.lock.model
        report.append(
            {
                "spec": relative(path),
                "lock": relative(outcome.path),
                "changed": outcome.changed,
                **_identity(model),
                "warnings": list(outcome.warnings),
            }
        )
        if not json:
            done = "written" if outcome.changed else "unchanged"
            context.terminal.data(f"{relative(outcome.path)}: {done} ({_summary(model)})")
    if json:
        context.terminal.json({"locks": report})


def _identity(model: Model) -> dict[str, str]:
    if model.kind == "artifact":
        return {"revision": model.revision, "archive_sha256": model.archive.sha256}
    return {"provider": model.provider, "model_id": model.model_id}


def _summary(model: Model) -> str:
    if model.kind == "artifact":
        return f"{model.engine}, {model.task}, {model.license}, sha256 {model.archive.sha256[:12]}"
    return f"{model.provider}, {model.model_id}, {model.task}, {model.license or 'no licence'}"


COMMAND = Command(lock, Section.MODELS, order=20, examples=("modelstacks lock deployments/churn.yaml",))
