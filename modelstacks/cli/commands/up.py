"""`modelstacks up`: deploy specs into the embedded cloud with the real CDK CLI, and serve on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from modelstacks.cli.command import Command, Section
from modelstacks.cli.options import ArchitectureOption, JsonOption, SpecsArgument

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext
    from modelstacks.cli.deploying import Running


def up(
    ctx: typer.Context,
    specs: SpecsArgument = None,
    architecture: ArchitectureOption = "spec",
    detach: Annotated[
        bool, Option("--detach", "-d", help="leave the embedded cloud running and return")
    ] = False,
    port: Annotated[
        int | None,
        Option(
            "--port",
            "-p",
            min=1024,
            max=65535,
            help="port of the embedded account; default: a free port",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Deploy into the embedded cloud on this machine and serve.

    The real CDK CLI deploys the same template that AWS would get; Ctrl-C stops everything.
    """
    from modelstacks.cli.deploying import deployed_here
    from modelstacks.cli.project import spec_paths
    from modelstacks.cli.serving import watch

    context: CommandContext = ctx.obj
    paths = spec_paths(context.project, specs or [])
    with deployed_here(context, paths, architecture=architecture, port=port, detach=detach) as running:
        _report(context, running, as_json=json)
        if detach:
            context.terminal.say("left running; `modelstacks status` shows it, `modelstacks down` stops it")
        else:
            context.terminal.say("serving; Ctrl-C stops everything")
            watch(context, running.session)


def _report(context: CommandContext, running: Running, *, as_json: bool) -> None:
    """Print URLs, keys, curl lines, and what was accepted without being emulated."""
    from modelstacks.cli.running import superseded

    lines = _curl_lines(context, running)
    unemulated = [
        {"stack": stack.name, "type": resource.type, "logical_id": resource.logical_id}
        for stack in running.status.stacks
        if stack.name in lines
        for resource in stack.unemulated
    ]
    plans = [one.plan for one in running.deployments]
    left = superseded((stack.name for stack in running.status.stacks), plans)
    if as_json:
        context.terminal.json(_as_json(running, lines, unemulated, left))
    else:
        _show(context, running, lines, unemulated, left)


def _curl_lines(context: CommandContext, running: Running) -> dict[str, list[str]]:
    from modelstacks.cli.sample_requests import curl_lines

    status = running.status
    folder = context.project / ".modelstacks" / "requests"
    return {
        one.plan.stack_name: curl_lines(one.api, one.plan, status.credentials, status.region, folder=folder)
        for one in running.deployments
    }


def _as_json(
    running: Running, lines: dict[str, list[str]], unemulated: list[dict[str, str]], left: Sequence[str]
) -> dict[str, Any]:
    from modelstacks.cli.running import destroy_command

    return {
        "endpoint_url": running.status.endpoint_url,
        "deployments": [
            {
                "name": one.plan.name,
                "architecture": one.plan.architecture,
                "stack": one.plan.stack_name,
                "url": one.api.url,
                "api_key": one.api.api_keys[0].value if one.api.api_keys else None,
                "curl": lines[one.plan.stack_name],
            }
            for one in running.deployments
        ],
        "accepted_not_emulated": unemulated,
        "workloads_not_emulated": _ignored(running, lines),
        "superseded": [{"stack": stack, "command": destroy_command(stack)} for stack in left],
        "seconds": round(running.seconds, 3),
    }


def _show(
    context: CommandContext,
    running: Running,
    lines: dict[str, list[str]],
    unemulated: list[dict[str, str]],
    left: Sequence[str],
) -> None:
    from modelstacks.cli.running import destroy_command

    terminal = context.terminal
    terminal.say(f"up in {running.seconds:.1f} s")
    for one in running.deployments:
        key = f"   x-api-key: {one.api.api_keys[0].value}" if one.api.api_keys else ""
        terminal.data(f"\n{one.plan.stack_name}   {one.api.url}{key}")
        for line in lines[one.plan.stack_name]:
            terminal.data(f"  {line}")
    terminal.data("")
    for stack in left:
        terminal.say(
            f"{stack} is still running beside it; in AWS it would still cost; "
            f"to remove it: {destroy_command(stack)}"
        )
    if unemulated:
        terminal.say("accepted, not emulated: " + ", ".join(_counted(unemulated)))
    for ignored in _ignored(running, lines):
        terminal.say(f"accepted, not emulated: {ignored['workload']}: {ignored['what']}")


def _ignored(running: Running, stacks: Mapping[str, object]) -> list[dict[str, str]]:
    """Return what about the workloads of these stacks is not emulated: scaling policies, for example."""
    return [
        {"workload": workload.name, "what": what}
        for workload in running.status.workloads
        if workload.stack in stacks
        for what in workload.unemulated
    ]


def _counted(unemulated: Sequence[dict[str, str]]) -> list[str]:
    """Return one entry per type, with its logical ids."""
    by_type: dict[str, list[str]] = {}
    for one in unemulated:
        by_type.setdefault(one["type"], []).append(one["logical_id"])
    return [f"{kind} ({', '.join(dict.fromkeys(ids))})" for kind, ids in sorted(by_type.items())]


COMMAND = Command(
    up,
    Section.HERE,
    order=10,
    examples=("modelstacks up churn", "modelstacks up churn --architecture both --detach"),
)
