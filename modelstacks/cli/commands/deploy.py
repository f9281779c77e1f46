"""`modelstacks deploy`: the same checks as `up`, then the real `cdk deploy` into AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from modelstacks.cli.command import Command, Section
from modelstacks.cli.options import ArchitectureOption, SpecsArgument
from modelstacks.core.errors import DeploymentFailed, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelstacks.cli.context import CommandContext
    from modelstacks.core.plan import Plan


def deploy(
    ctx: typer.Context, specs: SpecsArgument = None, architecture: ArchitectureOption = "spec"
) -> None:
    """Check specs and locks, then run `cdk deploy` into AWS.

    Arguments after -- are passed to the CDK CLI.
    """
    from modelstacks.cli.handover import cdk_arguments, refuse_another_endpoint
    from modelstacks.cli.project import require_app, spec_paths
    from modelstacks.core.plan.deployments import load_plans

    context: CommandContext = ctx.obj
    require_app(context.project)
    paths = spec_paths(context.project, specs or [])
    plans = load_plans(paths, architecture, context.project)
    context.terminal.say("specs and locks are valid: " + ", ".join(plan.stack_name for plan in plans))
    refuse_another_endpoint()
    builds_images = any(plan.runtime is not None and plan.runtime.kind == "model-server" for plan in plans)
    if builds_images:
        context.terminal.say(f"images are built with {context.cdk.image_builder()}")
    arguments = cdk_arguments(context, paths, plans, architecture)
    code = context.cdk.deploy_into_aws(arguments, builds_images=builds_images)
    if code:
        raise DeploymentFailed(f"cdk deploy failed with exit code {code}; see its output above")
    _name_what_is_left(context, plans)


def _name_what_is_left(context: CommandContext, plans: Sequence[Plan]) -> None:
    """Name the stack of another architecture that is still deployed: it keeps running and costing money."""
    from modelstacks.cli.running import ARCHITECTURES, destroy_command, superseded

    for plan in plans:
        every = [f"{plan.name}-{architecture}" for architecture in ARCHITECTURES]
        others = superseded(every, plans)
        region = plan.aws.region if plan.aws else None
        try:
            left = context.cdk.deployed_in_aws(others, region) if others else ()
        except EnvironmentFault as error:
            context.terminal.say(f"could not check whether {', '.join(others)} still runs: {error}")
            continue
        for stack in left:
            command = destroy_command(stack, aws=True)
            context.terminal.say(f"{stack} is still deployed, and still costs; to remove it: {command}")


COMMAND = Command(
    deploy,
    Section.AWS,
    order=10,
    examples=("modelstacks deploy churn", "modelstacks deploy churn -- --require-approval never"),
    passes_on=True,
)
