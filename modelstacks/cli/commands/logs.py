"""`modelstacks logs`: the replicas' own lines, and why one died."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from modelstacks.cli.running import attached, stacks_of
from modelstacks.core.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench, CloudSession
    from modelstacks.cloud.api import LogLine, Workload


def run(
    bench: Bench,
    name: str,
    *,
    architecture: str | None,
    replica: str | None,
    follow: bool,
    tail: int,
    as_json: bool,
) -> None:
    """Print the lines, then on stderr the root cause of each replica that has died."""
    with attached(bench) as session:
        status = session.status()
        stacks = stacks_of(status, name, architecture)
        workloads = [one for one in status.workloads if one.stack in stacks]
        if replica is not None:
            workloads = [_holder(workloads, replica)]

        def show(line: LogLine) -> None:
            if as_json:
                bench.terminal.data(line.model_dump_json())
            else:
                bench.terminal.data(f"{line.stream}  {line.text}")

        for workload in workloads:
            for line in session.logs(workload=workload.name, replica=replica, tail=tail):
                show(line)
        for cause in root_causes(workloads):
            bench.terminal.fault(cause)
        if follow:
            for line in _followed(session, workloads, replica):
                show(line)


def root_causes(workloads: Sequence[Workload]) -> list[str]:
    """One sentence for each cause of which replicas died, and for each workload that gave up for another."""
    causes: list[str] = []
    for workload in workloads:
        victims: dict[str, list[str]] = {}
        for replica in (*workload.died, *workload.replicas):
            if replica.state == "failed" and replica.reason:
                victims.setdefault(replica.reason, []).append(replica.id)
        for reason, ids in victims.items():
            before = f" (and {len(ids) - 1} before it)" if len(ids) > 1 else ""
            causes.append(f"{workload.name}: replica {ids[-1]} died{before}: {reason}")
        if workload.state == "failed" and workload.reason and not any(r in workload.reason for r in victims):
            causes.append(f"{workload.name} gave up: {workload.reason}")
    return causes


def _followed(session: CloudSession, workloads: Sequence[Workload], replica: str | None) -> Iterator[LogLine]:
    """New lines of one workload as the daemon sends them; of several, those of all, sorted out here."""
    if len(workloads) == 1:
        yield from session.follow_logs(workload=workloads[0].name, replica=replica)
        return
    mine = {one.log_group for workload in workloads for one in (*workload.died, *workload.replicas)}
    for line in session.follow_logs():
        if line.group in mine:
            yield line


def _holder(workloads: Sequence[Workload], replica: str) -> Workload:
    ids = {one.id: workload for workload in workloads for one in (*workload.died, *workload.replicas)}
    if replica not in ids:
        raise UsageError(
            "no such replica",
            got=replica,
            allowed=", ".join(ids) or "none runs",
            fix=did_you_mean(replica, ids),
        )
    return ids[replica]
