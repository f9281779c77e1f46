"""`modelstacks destroy`: remove the stacks of a deployment, from the embedded cloud or from AWS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from modelstacks.cli.command import Command, Section
from modelstacks.cli.options import ArchitectureOption, complete_deployment
from modelstacks.core.errors import DeploymentFailed, EnvironmentFault, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from modelstacks.cli.context import CommandContext
    from modelstacks.core.leftovers import Leftover
    from modelstacks.core.plan import Plan, Selection


def destroy(
    ctx: typer.Context,
    specs: Annotated[
        list[str],
        Argument(
            metavar="SPEC...",
            help="specs: paths, or names of files in deployments/",
            autocompletion=complete_deployment,
        ),
    ],
    architecture: ArchitectureOption = "spec",
    aws: Annotated[bool, Option("--aws", help="from AWS, with your own credentials")] = False,
) -> None:
    """Remove a deployment's stacks from the embedded cloud or AWS.

    With --aws, arguments after -- are passed to the CDK CLI.
    """
    from modelstacks.cli.project import require_app, spec_paths
    from modelstacks.core.plan.deployments import load_plans

    context: CommandContext = ctx.obj
    require_app(context.project)
    paths = spec_paths(context.project, specs)
    plans = load_plans(paths, architecture, context.project)
    if aws:
        _from_aws(context, paths, plans, architecture)
    else:
        _from_embedded_cloud(context, paths, plans, architecture)


def _from_aws(
    context: CommandContext, paths: Sequence[Path], plans: Sequence[Plan], architecture: Selection
) -> None:
    from modelstacks.cli.handover import cdk_arguments, refuse_another_endpoint

    refuse_another_endpoint()
    # Looked up before the deletion, while the stacks exist.
    staying = [one for plan in plans for one in _leftovers(context, plan)]
    code = context.cdk.destroy_in_aws(cdk_arguments(context, paths, plans, architecture))
    if code:
        raise DeploymentFailed(f"cdk destroy failed with exit code {code}; see its output above")
    for one in staying:
        context.terminal.say(
            f"left in the account: {one.what}: {one.why}" + (f"; {one.remove}" if one.remove else "")
        )
    context.terminal.say("docs/leftovers.md lists what publishing and the services leave")


def _leftovers(context: CommandContext, plan: Plan) -> Sequence[Leftover]:
    try:
        return context.cdk.leftovers_in_aws(plan.stack_name, plan.aws.region if plan.aws else None)
    except EnvironmentFault as error:
        context.terminal.say(f"could not look up what {plan.stack_name} will leave: {error}")
        return ()


def _from_embedded_cloud(
    context: CommandContext, paths: Sequence[Path], plans: Sequence[Plan], architecture: Selection
) -> None:
    from modelstacks.cli.console.progress import Progress
    from modelstacks.cli.running import attached, deployed

    stacks = [plan.stack_name for plan in plans]
    with attached(context) as session:
        status = session.status()
        present = {stack.name for stack in status.stacks}
        missing = [stack for stack in stacks if stack not in present]
        if missing:
            running = [f"{name}-{each}" for name, found in deployed(status).items() for each in found]
            raise UsageError(
                "the embedded cloud has no such stack",
                got=", ".join(missing),
                allowed=", ".join(running) or "no stack is deployed",
                fix="--architecture chooses the other stack of a deployment",
            )
        chosen = {"deployment": ",".join(map(str, paths)), "architecture": architecture}
        assembly = context.project / ".modelstacks" / "cdk.out"
        with Progress(context.terminal) as progress:
            with progress.step("synthesize") as step:
                step.result(", ".join(context.cdk.synth(chosen, assembly, step.note)))
            with progress.step("cdk destroy") as step:
                context.cdk.destroy(assembly, status, stacks, step.note)
                step.result(", ".join(stacks))
            with progress.step("stop replicas"):
                for _ in session.reconcile():
                    pass


COMMAND = Command(
    destroy,
    Section.AWS,
    order=20,
    examples=("modelstacks destroy churn", "modelstacks destroy churn --aws -- --force"),
    passes_on=True,
)
