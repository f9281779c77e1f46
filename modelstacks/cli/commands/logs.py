"""`modelstacks logs`: print the replicas' own log lines, and why a replica died."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from modelstacks.cli.command import Command, Section
from modelstacks.cli.options import JsonOption, NameArgument, OneArchitectureOption
from modelstacks.core.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext
    from modelstacks.cli.interfaces import CloudSession
    from modelstacks.cloud.api import LogLine, Workload


def logs(
    ctx: typer.Context,
    name: NameArgument,
    architecture: OneArchitectureOption = None,
    replica: Annotated[
        str | None, Option("--replica", help="one replica, by the id that `status` shows")
    ] = None,
    follow: Annotated[bool, Option("--follow", "-f", help="keep printing new lines until Ctrl-C")] = False,
    tail: Annotated[int, Option("--tail", min=1, help="number of lines of each replica, from the end")] = 100,
    json: JsonOption = False,
) -> None:
    """Print the replicas' own log lines, and why one died.

    The root cause of each replica that died goes to stderr. --json prints one JSON object per line.
    """
    from modelstacks.cli.running import attached, root_causes, stacks_of

    context: CommandContext = ctx.obj
    with attached(context) as session:
        status = session.status()
        stacks = stacks_of(status, name, architecture)
        workloads = [one for one in status.workloads if one.stack in stacks]
        if replica is not None:
            workloads = [_workload_of(workloads, replica)]

        def show(line: LogLine) -> None:
            context.terminal.data(line.model_dump_json() if json else f"{line.stream}  {line.text}")

        for workload in workloads:
            for line in session.logs(workload=workload.name, replica=replica, tail=tail):
                show(line)
        for cause in root_causes(workloads):
            context.terminal.fault(cause)
        if follow:
            for line in _followed(session, workloads, replica):
                show(line)


def _followed(session: CloudSession, workloads: Sequence[Workload], replica: str | None) -> Iterator[LogLine]:
    """Yield new lines: of one workload as the daemon sends them, of several by filtering all lines here."""
    if len(workloads) == 1:
        yield from session.follow_logs(workload=workloads[0].name, replica=replica)
        return
    mine = {one.log_group for workload in workloads for one in (*workload.died, *workload.replicas)}
    for line in session.follow_logs():
        if line.group in mine:
            yield line


def _workload_of(workloads: Sequence[Workload], replica: str) -> Workload:
    ids = {one.id: workload for workload in workloads for one in (*workload.died, *workload.replicas)}
    if replica not in ids:
        raise UsageError(
            "no such replica",
            got=replica,
            allowed=", ".join(ids) or "none runs",
            fix=did_you_mean(replica, ids),
        )
    return ids[replica]


COMMAND = Command(
    logs,
    Section.HERE,
    order=50,
    examples=("modelstacks logs churn --follow", "modelstacks logs churn --tail 20"),
)
