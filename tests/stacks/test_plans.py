"""What modelstacks.cdk offers to an app that somebody wrote: names that load late, plans, plain errors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cdk import PROJECT

from modelstacks.core.errors import UsageError


def python(cwd: Path, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_published_names_are_there_and_no_others() -> None:
    import modelstacks.cdk as cdk

    assert all(getattr(cdk, name) for name in cdk.__all__)
    assert set(cdk.__all__) <= set(dir(cdk))
    with pytest.raises(AttributeError, match="no attribute 'ModelStacks'"):
        _ = cdk.ModelStacks


def test_a_plan_is_loaded_without_the_cdk(tmp_path: Path) -> None:
    done = python(
        tmp_path,
        "import sys; from modelstacks.cdk import load_plan\n"
        f"plan = load_plan({str(PROJECT / 'deployments' / 'churn.yaml')!r}, architecture='managed')\n"
        "print(plan.stack_name, plan.lock_file, 'aws_cdk' in sys.modules, 'stacks' in sys.modules)",
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["churn-managed", "deployments/churn.lock.json", "False", "False"]


def test_a_spec_without_a_cdk_json_is_in_the_project_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelstacks.cdk import load_plan

    for folder in ("deployments", "model_artifacts"):
        shutil.copytree(PROJECT / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    assert load_plan("deployments/churn.yaml").lock_file == "deployments/churn.lock.json"
    assert load_plan("deployments/churn.yaml", project=tmp_path).architecture == "self-hosted"


def test_a_fault_that_nothing_catches_is_a_message_and_no_traceback(tmp_path: Path) -> None:
    done = python(tmp_path, "from modelstacks.cdk import load_plan; load_plan('deployments/churn.yaml')")
    assert done.returncode == 1
    assert done.stderr.startswith("deployments/churn.yaml does not exist")
    assert "Traceback" not in done.stderr


def test_another_programs_faults_keep_their_traceback(tmp_path: Path) -> None:
    done = python(
        tmp_path,
        "from modelstacks.cdk import load_plan\n"
        "try:\n    load_plan('deployments/churn.yaml')\nexcept Exception:\n    pass\n"
        "1 / 0",
    )
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_a_fault_can_be_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelstacks.cdk import load_plan

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(UsageError, match="does not exist"):
        load_plan("nowhere.yaml")
