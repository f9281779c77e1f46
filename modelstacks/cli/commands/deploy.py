"""`modelstacks deploy`: the same checks as `up`, then the real `cdk deploy` into AWS."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelstacks.cli.project import require_app, spec_paths
from modelstacks.cli.running import ARCHITECTURES, destroy_command, superseded
from modelstacks.core.errors import DeploymentFailed, EnvironmentFault
from modelstacks.core.plan.deployments import load_plans

if TYPE_CHECKING:
    from pathlib import Path

    from modelstacks.cli.bench import Bench
    from modelstacks.core.plan import Plan, Selection


def run(bench: Bench, words: Sequence[str], *, architecture: Selection) -> None:
    """Check, then hand over to the CDK CLI with the caller's own credentials and terminal."""
    require_app(bench.project)
    paths = spec_paths(bench.project, words)
    plans = load_plans(paths, architecture, bench.project)
    bench.terminal.say("specs and locks are valid: " + ", ".join(plan.stack_name for plan in plans))
    refuse_another_endpoint()
    code = bench.cdk.deploy_into_aws(cdk_arguments(bench, paths, plans, architecture))
    if code:
        raise DeploymentFailed(f"cdk deploy failed with exit code {code}; see its output above")
    _name_what_is_left(bench, plans)


def refuse_another_endpoint() -> None:
    """Raise EnvironmentFault where the AWS endpoint variable names something other than AWS."""
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        raise EnvironmentFault(
            f"AWS_ENDPOINT_URL points to {endpoint}: this would not reach AWS",
            fix="unset AWS_ENDPOINT_URL, or use `modelstacks up` for the embedded cloud",
        )


def cdk_arguments(
    bench: Bench, paths: Sequence[Path], plans: Sequence[Plan], architecture: Selection
) -> list[str]:
    """What `cdk deploy` and `cdk destroy` are given: the stacks, the context, the caller's own arguments."""
    return [
        *(plan.stack_name for plan in plans),
        "-c",
        f"deployment={','.join(map(str, paths))}",
        "-c",
        f"architecture={architecture}",
        *bench.cdk_arguments,
    ]


def _name_what_is_left(bench: Bench, plans: Sequence[Plan]) -> None:
    """After a change of architecture the old stack still runs and still costs."""
    for plan in plans:
        every = [f"{plan.name}-{architecture}" for architecture in ARCHITECTURES]
        others = superseded(every, plans)
        try:
            left = bench.cdk.deployed_in_aws(others, plan.aws.region if plan.aws else None) if others else ()
        except EnvironmentFault as error:
            bench.terminal.say(f"could not check whether {', '.join(others)} still runs: {error}")
            continue
        for stack in left:
            command = destroy_command(stack, aws=True)
            bench.terminal.say(f"{stack} is still deployed, and still costs; to remove it: {command}")
