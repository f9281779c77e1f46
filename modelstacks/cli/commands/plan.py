"""`modelstacks plan`: what would be deployed, in words, before anything is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from modelstacks.cli.commands.validate import refusal
from modelstacks.cli.project import spec_paths
from modelstacks.core.contract import PREDICTIVE_ROUTES
from modelstacks.core.errors import ModelstacksError
from modelstacks.core.plan.deployments import load_plans
from modelstacks.core.registry import targets

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench
    from modelstacks.core.plan import Plan, Selection
    from modelstacks.core.signature import Tensor


def run(bench: Bench, words: Sequence[str], *, architecture: Selection, as_json: bool) -> int:
    """Show the Plans of the specs; as JSON, the Plans themselves or what is wrong. Returns the exit code."""
    try:
        plans = load_plans(spec_paths(bench.project, words), architecture, bench.project)
    except ModelstacksError as error:
        if not as_json:
            raise
        bench.terminal.json(refusal(error))
        return error.exit_code
    if as_json:
        bench.terminal.json({"plans": [plan.model_dump(mode="json") for plan in plans]})
        return 0
    for plan in plans:
        bench.terminal.data("")
        bench.terminal.table((f"[bold]{plan.stack_name}[/bold]", plan.description), list(_rows(plan)))
    bench.terminal.data("")
    bench.terminal.table(
        ("[bold]routes[/bold]", ""),
        [(f"{route.method} {route.path}", route.summary) for route in PREDICTIVE_ROUTES],
    )
    return 0


def _rows(plan: Plan) -> Iterator[tuple[str, str]]:
    model, scaling, api = plan.model, plan.scaling, plan.api
    yield "chain", _target_summary(plan)
    yield "model", f"{model.source}, {model.revision}, licence {model.license or 'not stated'}"
    yield "engine", f"{model.engine} ({model.framework} {model.framework_version}), {model.task}"
    yield "takes", "; ".join(map(_tensor, model.signature.inputs))
    yield "gives", "; ".join(map(_tensor, model.signature.outputs))
    yield "archive", f"sha256 {model.archive_sha256}, {_bytes(model.archive_bytes)}"
    yield "compute", ", ".join(f"{key} {value}" for key, value in plan.target.model_dump(mode="json").items())
    yield "replicas", f"{scaling.min_replicas} to {scaling.max_replicas}, {_scales_on(plan)}"
    auth = "API key" if api.auth == "api-key" else "SigV4 (IAM)"
    rate = f"{api.throttle.rate} requests/s (burst {api.throttle.burst}){_quota(plan)}"
    yield (
        "api",
        f"{auth}, {rate}, body up to {_bytes(plan.max_body_bytes)}, {api.timeout_seconds} s to answer",
    )
    yield "logs", f"kept {plan.logs.retention_days} days"
    yield "where", f"{plan.aws.account} / {plan.aws.region}" if plan.aws else "any account and region"


def _target_summary(plan: Plan) -> str:
    name = str(plan.target.model_dump().get("target", ""))
    return targets(plan.architecture)[name].summary


def _scales_on(plan: Plan) -> str:
    concurrency = f"{plan.scaling.concurrent_requests_per_replica} concurrent requests each"
    return (
        f"{concurrency}, {plan.scaling.cpu_percent} % CPU"
        if plan.architecture == "self-hosted"
        else concurrency
    )


def _quota(plan: Plan) -> str:
    quota = plan.api.quota
    return f", {quota.requests} requests a {quota.per}" if quota else ""


def _tensor(tensor: Tensor) -> str:
    shape = " x ".join("any" if size < 0 else str(size) for size in tensor.shape)
    return f"{tensor.name}: {tensor.datatype} ({shape})"


def _bytes(count: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count = count / 1024  # type: ignore[assignment]
    return f"{count:.4g} GiB"
