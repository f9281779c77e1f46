"""A project from `modelstacks new`: every step of its CI workflow runs but the installations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.command_line import ROOT

#: These download packages, which tests do not; tests of the wheel perform the first from a local folder.
INSTALLATIONS = ("pip install -r requirements.txt", "modelstacks setup")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "shop"
    images = ROOT / ".modelstacks" / "images"
    images.mkdir(parents=True, exist_ok=True)
    run(f"modelstacks new {folder} --no-lock", folder.parent)
    (folder / "node_modules").symlink_to(ROOT / "node_modules")
    (folder / ".modelstacks").mkdir()
    (folder / ".modelstacks" / "images").symlink_to(images)
    run("modelstacks lock", folder)
    return folder


def run(command: str, folder: Path) -> str:
    """Run a line of a workflow as GitHub does, with this environment's programs first on the PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_every_step_of_its_workflow_passes(project: Path) -> None:
    workflow = yaml.safe_load((project / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    said = {step: run(step, project) for step in steps if step not in INSTALLATIONS}
    assert "churn.yaml: valid (churn, self-hosted)" in said["modelstacks validate"]
    assert "churn-self-hosted" in said["modelstacks plan"]
    assert "3 passed" in said["pytest tests"]
