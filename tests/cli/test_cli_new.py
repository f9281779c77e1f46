"""new: a project of the user's own, complete or not there at all (its workflow: test_new_project.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.command_line import ROOT, FakeCdk

from modelstacks import __version__
from modelstacks.cli import new_project
from modelstacks.core.plan.deployments import load_plans
from modelstacks.core.ports import Ports

TEMPLATE = ROOT / "modelstacks" / "cli" / "project_template"
FILES = [
    ".github/workflows/ci.yml",
    ".gitignore",
    "README.md",
    "app.py",
    "cdk.json",
    "deployments/churn.lock.json",
    "deployments/churn.yaml",
    "models/churn/holdout.csv",
    "models/churn/model.json",
    "models/churn/predictions.json",
    "models/churn/signature.json",
    "package-lock.json",
    "package.json",
    "requirements.txt",
    "tests/test_churn.py",
]


def test_a_new_project_is_locked_and_can_be_planned(cli, tmp_path: Path) -> None:
    ran = cli("new", "mine")
    assert ran.code == 0, ran.err
    assert sorted(ran.out.splitlines()) == sorted(f"mine/{name}" for name in FILES)
    project = tmp_path / "mine"
    (plan,) = load_plans([project / "deployments" / "churn.yaml"], "spec", project)
    assert plan.stack_name == "churn-self-hosted"


def test_the_next_steps_are_printed(cli) -> None:
    steps = [line.strip() for line in cli("new", "mine").err.split("next:\n")[1].splitlines()]
    assert steps == [
        "cd mine",
        "python3 -m venv .venv && . .venv/bin/activate",
        "pip install -r requirements.txt",
        "modelstacks setup",
        "modelstacks up",
    ]
    assert "modelstacks lock" in cli("new", "unlocked", "--no-lock").err.split("next:\n")[1]


def test_a_project_that_cannot_be_locked_here_is_complete_without_a_lock(cli, tmp_path: Path) -> None:
    def without_boto3(_: Path) -> Ports:
        raise ModuleNotFoundError("No module named 'boto3'", name="boto3")

    ran = cli("new", "mine", ports=without_boto3)
    assert ran.code == 0
    assert "deployments/churn.yaml is not locked yet: this command needs the Python package" in ran.err
    assert "modelstacks lock" in ran.err.split("next:\n")[1]
    unlocked = [name for name in FILES if name != "deployments/churn.lock.json"]
    assert new_project.written_files(tmp_path / "mine") == unlocked


def test_the_requirements_pin_the_installed_version(cli, tmp_path: Path) -> None:
    cli("new", "mine", "--no-lock")
    lines = (tmp_path / "mine" / "requirements.txt").read_text().splitlines()
    assert f"modelstacks[synth,lock,cloud]=={__version__}" in lines


def test_the_readme_bears_the_projects_name(cli, tmp_path: Path) -> None:
    cli("new", "mine", "--no-lock")
    assert (tmp_path / "mine" / "README.md").read_text().startswith("# mine\n")
    assert "NAME" not in (tmp_path / "mine" / "README.md").read_text()


@pytest.mark.parametrize("name", ["9lives", "with space", "a/..", "-", "semi;colon", "ümlaut", "x" * 80])
def test_a_bad_name_is_refused_and_nothing_is_written(cli, tmp_path: Path, name: str) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    ran = cli("new", "--no-lock", "--", name)
    assert ran.code == 2, ran.err
    assert "this name does not suit a project's folder" in ran.err or "is not empty" in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_folder_with_something_in_it_is_refused_and_left_alone(cli, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    ran = cli("new", "mine")
    assert ran.code == 2
    assert "mine is not empty; fix: name a folder that does not exist, or an empty one" in ran.err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_used(cli, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert cli("new", "mine", "--no-lock").code == 0
    assert (tmp_path / "mine" / "app.py").exists()


def test_a_file_in_the_way_is_refused(cli, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    ran = cli("new", "mine")
    assert (ran.code, "exists and is not a folder" in ran.err) == (2, True)


def test_a_failure_in_the_middle_leaves_nothing(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example model is the last thing that is written."""
    monkeypatch.setattr(new_project, "EXAMPLE_FILES", ("model.json", "not-there.json"))
    before = sorted(path.name for path in tmp_path.iterdir())
    ran = cli("new", "mine")
    assert (ran.code, "cannot write the project" in ran.err) == (4, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_template_pins_and_flags_are_those_of_this_repository() -> None:
    pinned = [
        json.loads((folder / "package.json").read_text())["devDependencies"] for folder in (ROOT, TEMPLATE)
    ]
    assert pinned[0] == pinned[1]
    locks = [
        json.loads((folder / "package-lock.json").read_text())["packages"] for folder in (ROOT, TEMPLATE)
    ]
    assert locks[0]["node_modules/aws-cdk"] == locks[1]["node_modules/aws-cdk"]
    ours, theirs = (json.loads((folder / "cdk.json").read_text()) for folder in (ROOT, TEMPLATE))
    assert (ours["app"], ours["context"]) == (theirs["app"], theirs["context"])


def test_the_workflow_is_valid_and_runs_the_documented_commands() -> None:
    workflow = yaml.safe_load((TEMPLATE / "dot-github" / "workflows" / "ci.yml").read_text())
    runs = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert runs[:2] == ["pip install -r requirements.txt", "modelstacks setup"]
    assert runs[-1] == "pytest tests"


def test_setup_installs_the_cdk_cli_of_the_project(cli, cdk: FakeCdk) -> None:
    ran = cli("setup")
    assert (ran.code, ran.out) == (0, "CDK CLI 2.1148.1 at /cdk\n")
    assert cdk.calls == ["install"]


def test_setup_needs_a_project(cli, project: Path, cdk: FakeCdk) -> None:
    (project / "cdk.json").unlink()
    assert (cli("setup").code, cdk.calls) == (2, [])


def test_a_new_project_synthesizes_from_any_folder(cli, tmp_path: Path) -> None:
    """Its app.py is run as the CDK CLI runs it, from another working directory."""
    cli("new", "mine")
    project = tmp_path / "mine"
    context = json.loads((project / "cdk.json").read_text())["context"]
    ran = subprocess.run(
        [sys.executable, "-O", str(project / "app.py")],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "CDK_OUTDIR": str(tmp_path / "out"),
            "CDK_CONTEXT_JSON": json.dumps(context),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out" / "churn-self-hosted.template.json").exists()
