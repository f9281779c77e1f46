"""`modelstacks plan`: describe what would be deployed, before anything is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from modelstacks.cli.command import Command, Section
from modelstacks.cli.options import ArchitectureOption, JsonOption, SpecsArgument

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext
    from modelstacks.core.model import Model
    from modelstacks.core.plan import Plan
    from modelstacks.core.registry import Target
    from modelstacks.core.signature import Tensor


def plan(
    ctx: typer.Context,
    specs: SpecsArgument = None,
    architecture: ArchitectureOption = "spec",
    json: JsonOption = False,
) -> int:
    """Show what would be deployed.

    With --json, a refused spec or lock is reported as JSON too.
    """
    from modelstacks.cli.console.refusals import refusal
    from modelstacks.cli.project import spec_paths
    from modelstacks.core.errors import ModelstacksError
    from modelstacks.core.plan.deployments import load_plans

    context: CommandContext = ctx.obj
    try:
        plans = load_plans(spec_paths(context.project, specs or []), architecture, context.project)
    except ModelstacksError as error:
        if not json:
            raise
        context.terminal.json(refusal(error))
        return error.exit_code
    if json:
        context.terminal.json({"plans": [one.model_dump(mode="json") for one in plans]})
    else:
        _show(context, plans)
    return 0


def _show(context: CommandContext, plans: list[Plan]) -> None:
    from modelstacks.core.contract import routes

    for one in plans:
        context.terminal.data("")
        context.terminal.table((f"[bold]{one.stack_name}[/bold]", one.description), list(_rows(one)))
    contracts = {contract for one in plans for contract in one.contracts}
    context.terminal.data("")
    context.terminal.table(
        ("[bold]routes[/bold]", ""),
        [(f"{route.method} {route.path}", route.summary) for route in routes(contracts)],
    )


def _rows(one: Plan) -> Iterator[tuple[str, str]]:
    scaling, api = one.scaling, one.api
    yield "chain", _target(one).summary
    yield from _model(one.model)
    yield "compute", ", ".join(f"{key} {value}" for key, value in one.target.model_dump(mode="json").items())
    if defaults := "\n".join(_defaults(one)):
        yield "defaults", defaults
    replicas = f"{scaling.min_replicas} to {scaling.max_replicas}"
    yield "replicas", f"{replicas}, {scaling.concurrent_requests_per_replica} concurrent requests each"
    yield "needs", "\n".join(_needs(one))
    auth = "API key" if api.auth == "api-key" else "SigV4 (IAM)"
    rate = f"{api.throttle.rate} requests/s (burst {api.throttle.burst}){_quota(one)}"
    yield (
        "api",
        f"{auth}, {rate}, body up to {_bytes(one.max_body_bytes)}, timeout {api.timeout_seconds} s",
    )
    yield "logs", f"kept {one.logs.retention_days} days"
    yield "where", f"{one.aws.account} / {one.aws.region}" if one.aws else "any account and region"


def _model(model: Model) -> Iterator[tuple[str, str]]:
    licence = f"licence {model.license or 'not stated'}"
    if model.kind == "remote":
        yield "model", f"{model.source}, {model.model_id} at {model.provider}, {licence}"
        yield "runs in", model.region or "no AWS region: its provider is outside AWS"
        yield "key", f"secret {model.secret}" if model.secret else "IAM"
        return
    yield "model", f"{model.source}, {model.revision}, {licence}"
    yield "engine", f"{model.engine} ({model.framework} {model.framework_version}), {model.task}"
    yield "takes", "; ".join(map(_tensor, model.signature.inputs))
    yield "gives", "; ".join(map(_tensor, model.signature.outputs))
    yield "archive", f"sha256 {model.archive.sha256}, {_bytes(model.archive.size)}"


def _target(one: Plan) -> Target:
    from modelstacks.core.registry import targets

    return targets()[one.target.target]


def _defaults(one: Plan) -> Iterator[str]:
    """Yield why each field of the compute block that has its default has it."""
    for field, why in _target(one).reasons.items():
        if getattr(one.target, field) == type(one.target).model_fields[field].default:
            yield f"{field}: {why}"


def _needs(one: Plan) -> Iterator[str]:
    """Yield what the account is billed for by the hour, or has a quota for."""
    from modelstacks.core.plan.capacity import capacity

    for unit in capacity(one):
        if not unit.billed and unit.quota is None:
            continue
        amount = f"{unit.least:g}" if unit.least == unit.most else f"{unit.least:g} to {unit.most:g}"
        during = f", {unit.peak:g} during an update" if unit.peak != unit.most else ""
        kind = unit.resource.removeprefix("AWS::")
        what = kind if unit.measure == "resource" else f"{unit.measure} ({kind})"
        quota = unit.quota
        limit = f"; quota: {' '.join(filter(None, (quota.service, quota.code, quota.name)))}" if quota else ""
        yield f"{amount} {unit.size} {what}{during}{limit}".replace("  ", " ")


def _quota(one: Plan) -> str:
    quota = one.api.quota
    return f", {quota.requests} requests a {quota.per}" if quota else ""


def _tensor(tensor: Tensor) -> str:
    shape = " x ".join("any" if size < 0 else str(size) for size in tensor.shape)
    return f"{tensor.name}: {tensor.datatype} ({shape})"


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count = count / 1024
    return f"{count:.4g} GiB"


COMMAND = Command(plan, Section.MODELS, order=30, examples=("modelstacks plan churn --architecture both",))
