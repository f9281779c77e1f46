"""`modelstacks status`: what runs in the embedded cloud."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from modelstacks.cli.project import DEPLOYMENTS, deployment_names
from modelstacks.cli.running import deployed, destroy_command
from modelstacks.core.errors import SpecInvalid, relative
from modelstacks.core.spec.validation import read_spec

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench
    from modelstacks.cloud.api import Replica, Status, Workload

LONGEST_REASON = 160  # characters; --json has all of them
COLOURS = {
    "healthy": "green",
    "stable": "green",
    "starting": "yellow",
    "draining": "yellow",
    "unhealthy": "red",
    "failed": "red",
}


def run(bench: Bench, *, as_json: bool) -> None:
    """Show the status; that nothing runs is an answer too, not a failure."""
    session = bench.cloud.attach(bench.project)
    if session is None:
        if as_json:
            bench.terminal.json({"running": False})
        else:
            bench.terminal.data("the embedded cloud is not running; `modelstacks up` starts it")
        return
    try:
        status = session.status()
    finally:
        session.close()
    if as_json:
        bench.terminal.json({"running": True, **status.model_dump(mode="json")})
    else:
        _show(bench, status)


def _show(bench: Bench, status: Status) -> None:
    terminal = bench.terminal
    terminal.data(
        f"embedded cloud on {status.endpoint_url} (account {status.account}, {status.region}), "
        f"pid {status.pid}, since {status.started_at}"
    )
    if status.problem is not None:
        terminal.fault(status.problem)
    if not status.stacks:
        terminal.data("no stack is deployed")
    if status.apis:
        terminal.table(
            ("API", "URL", "API key"),
            [
                (api.stack or api.name, api.url, ", ".join(key.value for key in api.api_keys))
                for api in status.apis
            ],
        )
    rows = []
    for workload in status.workloads:
        rows.append(_workload(workload))
        rows += [_replica(replica) for replica in workload.replicas]
    if rows:
        terminal.table(("workload", "stack", "state", "pid", "port", ""), rows)
    for stack in status.stacks:
        if "COMPLETE" not in stack.status or "ROLLBACK" in stack.status:
            terminal.data(f"stack {stack.name}: {stack.status}")
    for name, file, wanted in _beside_the_spec(bench, status):
        terminal.data(
            f"{name} is deployed, though {file} says {wanted}; in AWS it would still cost; "
            f"to remove it: {destroy_command(name)}"
        )
    for refusal in status.refusals[-3:]:
        terminal.data(f"refused at {refusal.time}: {refusal.hop}: {refusal.reason}")


def _beside_the_spec(bench: Bench, status: Status) -> Iterator[tuple[str, str, str]]:
    """Stacks of the architecture that the deployment's spec does not name, with the spec and its word."""
    running = deployed(status)
    for name in deployment_names(bench.project):
        path = bench.project / DEPLOYMENTS / f"{name}.yaml"
        try:
            spec = read_spec(path)
        except SpecInvalid:  # `validate` reports it
            continue
        for architecture in running.get(spec.name, ()):
            if architecture != spec.architecture:
                yield f"{spec.name}-{architecture}", relative(path), spec.architecture


def _workload(workload: Workload) -> tuple[str, ...]:
    ready = sum(replica.state == "healthy" for replica in workload.replicas)
    count = f"{ready} of {workload.desired} ready" if workload.desired else "starts on demand"
    return (
        workload.name,
        workload.stack or "",
        _coloured(workload.state),
        "",
        "",
        _plain(workload.reason or count),
    )


def _replica(replica: Replica) -> tuple[str, ...]:
    return (
        f"  {replica.id}",
        "",
        _coloured(replica.state),
        str(replica.pid or ""),
        str(replica.port or ""),
        _plain(replica.reason or ""),
    )


def _coloured(state: str) -> str:
    colour = COLOURS.get(state)
    return f"[{colour}]{state}[/{colour}]" if colour else state


def _plain(text: str) -> str:
    """Text of others, cut to a table's measure; a square bracket in it is no markup."""
    return (text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "...").replace("[", "\\[")
