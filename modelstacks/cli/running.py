"""The running embedded cloud: which stacks, APIs and workloads belong to which deployment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, get_args

from modelstacks.core.errors import EnvironmentFault, UsageError, did_you_mean
from modelstacks.core.spec import Architecture

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext
    from modelstacks.cli.interfaces import CloudSession
    from modelstacks.cloud.api import Api, Status, Workload
    from modelstacks.core.plan import Plan

ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)


@contextmanager
def attached(context: CommandContext) -> Iterator[CloudSession]:
    """Connect to the project's embedded cloud. Raises EnvironmentFault if none is running."""
    session = context.cloud.attach(context.project)
    if session is None:
        raise EnvironmentFault(
            "the embedded cloud is not running",
            fix="modelstacks up --detach starts it",
        )
    try:
        yield session
    finally:
        session.close()


def deployed(status: Status) -> dict[str, list[Architecture]]:
    """Map each deployment's name to the architectures that run, from the names of the stacks."""
    found: dict[str, list[Architecture]] = {}
    for stack in status.stacks:
        name, architecture = split(stack.name)
        if architecture is not None:
            found.setdefault(name, []).append(architecture)
    return {name: sorted(found[name], reverse=True) for name in sorted(found)}


def split(stack_name: str) -> tuple[str, Architecture | None]:
    """Split churn-self-hosted into ("churn", "self-hosted"); other stacks have no architecture."""
    for architecture in ARCHITECTURES:
        if stack_name.endswith(f"-{architecture}"):
            return stack_name.removesuffix(f"-{architecture}"), architecture
    return stack_name, None


def superseded(stacks: Iterable[str], plans: Sequence[Plan]) -> list[str]:
    """Return the stacks of these Plans' deployments that none of the Plans describes.

    A change of `architecture` in a spec leaves one behind, which keeps running and, in AWS, costing money.
    """
    planned = {plan.stack_name for plan in plans}
    names = {plan.name for plan in plans}
    return sorted(stack for stack in stacks if split(stack)[0] in names and stack not in planned)


def destroy_command(stack: str, *, aws: bool = False) -> str:
    """Return the command line that removes one stack."""
    name, architecture = split(stack)
    return f"modelstacks destroy {name} --architecture {architecture}" + (" --aws" if aws else "")


def stacks_of(status: Status, name: str, architecture: str | None) -> list[str]:
    """Return the stacks of a deployment, self-hosted first. Raises UsageError if it does not run."""
    running = deployed(status)
    if name not in running:
        raise UsageError(
            "no such deployment in the embedded cloud",
            got=name,
            allowed=", ".join(running) or "none runs",
            fix=did_you_mean(name, running) or "modelstacks up deploys it",
        )
    if architecture is not None and architecture not in running[name]:
        raise UsageError(
            f"{name} does not run as this architecture",
            got=architecture,
            allowed=", ".join(running[name]),
            fix=f"modelstacks up {name} --architecture {architecture}",
        )
    chosen = [architecture] if architecture is not None else running[name]
    return [f"{name}-{one}" for one in chosen]


def api_of(status: Status, stack: str) -> Api:
    """Return the REST API of a stack. Raises UsageError if it does not exist yet."""
    for api in status.apis:
        if api.stack == stack:
            return api
    state = next((one.status for one in status.stacks if one.name == stack), "missing")
    raise UsageError(
        f"the stack {stack} has no API", got=f"stack status {state}", fix="modelstacks up deploys it again"
    )


def root_causes(workloads: Sequence[Workload]) -> list[str]:
    """Return one sentence per reason for which replicas died, and per workload that gave up."""
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
