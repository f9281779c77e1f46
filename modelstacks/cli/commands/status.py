"""`modelstacks status`: show what runs in the embedded cloud."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from modelstacks.cli.command import Command, Section
from modelstacks.cli.options import JsonOption
from modelstacks.cli.project import DEPLOYMENTS, deployment_names
from modelstacks.core.errors import SpecInvalid, relative

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext
    from modelstacks.cloud.api import Replica, Status, Workload

#: Characters of a reason in the table; --json has all of them.
LONGEST_REASON = 160
COLOURS = {
    "healthy": "green",
    "stable": "green",
    "starting": "yellow",
    "draining": "yellow",
    "unhealthy": "red",
    "failed": "red",
}


def status(ctx: typer.Context, json: JsonOption = False) -> None:
    """Show what runs: APIs, keys, replicas and their health.

    It succeeds too if nothing is running.
    """
    context: CommandContext = ctx.obj
    session = context.cloud.attach(context.project)
    if session is None:
        if json:
            context.terminal.json({"running": False})
        else:
            context.terminal.data("the embedded cloud is not running; `modelstacks up` starts it")
        return
    try:
        current = session.status()
    finally:
        session.close()
    if json:
        context.terminal.json({"running": True, **current.model_dump(mode="json")})
    else:
        _show(context, current)


def _show(context: CommandContext, status: Status) -> None:
    from modelstacks.cli.running import destroy_command

    terminal = context.terminal
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
    for name, file, wanted in _beside_the_spec(context, status):
        terminal.data(
            f"{name} is deployed, but {file} says {wanted}; in AWS it would still cost money; "
            f"to remove it: {destroy_command(name)}"
        )
    for refusal in status.refusals[-3:]:
        terminal.data(f"refused at {refusal.time}: {refusal.hop}: {refusal.reason}")


def _beside_the_spec(context: CommandContext, status: Status) -> Iterator[tuple[str, str, str]]:
    """Yield each running stack whose architecture its spec does not name, with the spec's file and value."""
    from modelstacks.cli.running import deployed
    from modelstacks.core.spec.validation import read_spec

    running = deployed(status)
    for name in deployment_names(context.project):
        path = context.project / DEPLOYMENTS / f"{name}.yaml"
        try:
            spec = read_spec(path)
        except SpecInvalid:
            # `validate` reports it.
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
    """Return text from elsewhere, short enough for the table, with its square brackets escaped."""
    return (text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "...").replace("[", "\\[")


COMMAND = Command(status, Section.HERE, order=20, examples=("modelstacks status --json",))
