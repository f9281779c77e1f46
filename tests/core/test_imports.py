"""What checking a spec costs: the standard library, pydantic and a YAML reader, and nothing heavier."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = (
    "aws_cdk", "boto3", "botocore", "httpx", "huggingface_hub", "jsii", "moto", "numpy", "picklescan",
    "requests", "rich", "sagemaker", "torch", "transformers", "urllib3",
)  # fmt: skip


def modules_after(code: str) -> set[str]:
    printed = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in printed.stdout.split()}


def test_checking_a_spec_imports_nothing_heavy() -> None:
    loaded = modules_after(
        "from pathlib import Path\n"
        "from modelstacks.core.spec.validation import read_spec\n"
        "read_spec(Path('deployments/churn.yaml'))"
    )
    assert loaded & set(HEAVY) == set()


def test_making_plans_imports_nothing_heavy() -> None:
    """app.py does this before it imports aws_cdk."""
    loaded = modules_after(
        "from pathlib import Path\n"
        "from modelstacks.core.plan.deployments import find_specs, load_plans\n"
        "load_plans(find_specs(Path.cwd()), 'both', Path.cwd())"
    )
    assert loaded & set(HEAVY) == set()
