"""`modelstacks deploy`: the same checks as `up`, then the real `cdk deploy` into AWS."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelstacks.cli.project import require_app, spec_paths
from modelstacks.core.deployments import load_plans
from modelstacks.core.errors import DeploymentFailed, EnvironmentFault

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench
    from modelstacks.core.plan import Selection


def run(bench: Bench, words: Sequence[str], *, architecture: Selection) -> None:
    """Check, then hand over to the CDK CLI with the caller's own credentials and terminal."""
    require_app(bench.project)
    paths = spec_paths(bench.project, words)
    plans = load_plans(paths, architecture, bench.project)
    bench.terminal.say("specs and locks are fine: " + ", ".join(plan.stack_name for plan in plans))
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        raise EnvironmentFault(
            f"AWS_ENDPOINT_URL points to {endpoint}: this would not reach AWS",
            fix="unset AWS_ENDPOINT_URL, or use `modelstacks up` for the embedded cloud",
        )
    code = bench.cdk.deploy_into_aws(
        [
            *(plan.stack_name for plan in plans),
            "-c",
            f"deployment={','.join(map(str, paths))}",
            "-c",
            f"architecture={architecture}",
            *bench.cdk_arguments,
        ]
    )
    if code:
        raise DeploymentFailed(f"cdk deploy ended with exit code {code}; its own words stand above")
