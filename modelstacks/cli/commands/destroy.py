"""`modelstacks destroy`: remove the stacks of a deployment, from the embedded cloud or from AWS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelstacks.cli.commands.deploy import cdk_arguments, refuse_another_endpoint
from modelstacks.cli.console.progress import Progress
from modelstacks.cli.project import require_app, spec_paths
from modelstacks.cli.running import attached, deployed
from modelstacks.core.errors import DeploymentFailed, EnvironmentFault, UsageError
from modelstacks.core.plan.deployments import load_plans

if TYPE_CHECKING:
    from pathlib import Path

    from modelstacks.cli.bench import Bench
    from modelstacks.core.leftovers import Leftover
    from modelstacks.core.plan import Plan, Selection


def run(bench: Bench, words: Sequence[str], *, architecture: Selection, aws: bool) -> None:
    """Run `cdk destroy` for the chosen architecture of each deployment."""
    require_app(bench.project)
    paths = spec_paths(bench.project, words)
    plans = load_plans(paths, architecture, bench.project)
    if aws:
        _from_aws(bench, paths, plans, architecture)
    else:
        _from_embedded_cloud(bench, paths, plans, architecture)


def _from_aws(bench: Bench, paths: Sequence[Path], plans: Sequence[Plan], architecture: Selection) -> None:
    refuse_another_endpoint()
    staying = [one for plan in plans for one in _leftovers(bench, plan)]  # asked while the stacks are there
    code = bench.cdk.destroy_in_aws(cdk_arguments(bench, paths, plans, architecture))
    if code:
        raise DeploymentFailed(f"cdk destroy failed with exit code {code}; see its output above")
    for one in staying:
        bench.terminal.say(
            f"left in the account: {one.what}: {one.why}" + (f"; {one.remove}" if one.remove else "")
        )
    bench.terminal.say("docs/leftovers.md lists what publishing and the services leave")


def _leftovers(bench: Bench, plan: Plan) -> Sequence[Leftover]:
    try:
        return bench.cdk.leftovers_in_aws(plan.stack_name, plan.aws.region if plan.aws else None)
    except EnvironmentFault as error:
        bench.terminal.say(f"could not look up what {plan.stack_name} will leave: {error}")
        return ()


def _from_embedded_cloud(
    bench: Bench, paths: Sequence[Path], plans: Sequence[Plan], architecture: Selection
) -> None:
    stacks = [plan.stack_name for plan in plans]
    with attached(bench) as session:
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
        context = {"deployment": ",".join(map(str, paths)), "architecture": architecture}
        assembly = bench.project / ".modelstacks" / "cdk.out"
        with Progress(bench.terminal) as progress:
            with progress.step("synthesize") as step:
                step.result(", ".join(bench.cdk.synth(context, assembly, step.note)))
            with progress.step("cdk destroy") as step:
                bench.cdk.destroy(assembly, status, stacks, step.note)
                step.result(", ".join(stacks))
            with progress.step("stop replicas"):
                for _ in session.reconcile():
                    pass
