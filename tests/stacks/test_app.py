"""app.py as the CDK CLI runs it: a program of its own, told what to do by its environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cdk import CONTEXT, PROJECT


def run(
    cwd: Path, *options: str, outdir: Path | None = None, **context: str
) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "JSII_", "CDK_"))
    }
    environment["CDK_CONTEXT_JSON"] = json.dumps({**CONTEXT, **context})
    if outdir:
        environment["CDK_OUTDIR"] = str(outdir)
    command = [sys.executable, *options, str(PROJECT / "app.py")]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_cdk_json_runs_this_app() -> None:
    settings = json.loads((PROJECT / "cdk.json").read_text())
    assert settings["app"].split()[-1] == "app.py"
    assert settings["versionReporting"] is False, (
        "it would add a resource that tells AWS what libraries are used"
    )


def test_every_example_becomes_both_architectures_without_a_word(tmp_path: Path) -> None:
    done = run(tmp_path, "-O", outdir=tmp_path / "cdk.out", architecture="both")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    names = {path.stem for path in (PROJECT / "deployments").glob("*.yaml")}
    made = {
        path.name.removesuffix(".template.json") for path in (tmp_path / "cdk.out").glob("*.template.json")
    }
    assert made == {f"{name}-{each}" for name in names for each in ("self-hosted", "managed")}


def test_a_chosen_spec_becomes_the_architecture_that_it_names(tmp_path: Path) -> None:
    done = run(PROJECT, "-O", outdir=tmp_path, deployment="deployments/churn.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.glob("*.template.json")] == ["churn-self-hosted.template.json"]


def test_a_spec_that_does_not_exist_is_told_before_the_cdk_is_loaded(tmp_path: Path) -> None:
    done = run(PROJECT, "-X", "importtime", outdir=tmp_path, deployment="deployments/chrun.yaml")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert len(lines) == 1
    assert lines[0].startswith("deployments/chrun.yaml does not exist")
    assert 'did you mean "deployments/churn.yaml"?' in lines[0]
    assert "aws_cdk" not in done.stderr


def test_an_unknown_architecture_is_told_with_the_known_ones(tmp_path: Path) -> None:
    done = run(PROJECT, outdir=tmp_path, architecture="manged")
    assert done.returncode == 2
    assert done.stderr == (
        '-c architecture=... says which architectures to deploy; got "manged"; '
        'allowed: spec, both, self-hosted, managed; fix: did you mean "managed"?\n'
    )


def test_an_unknown_place_for_archives_is_told_with_the_known_ones(tmp_path: Path) -> None:
    done = run(PROJECT, outdir=tmp_path, archives="asembly")
    assert done.returncode == 2
    assert done.stderr == (
        '-c archives=... says where models\' archives come from; got "asembly"; '
        'allowed: auto, assembly, command; fix: did you mean "assembly"?\n'
    )


def test_an_archive_that_the_assembly_lacks_is_told_with_the_command_that_packages_it(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for folder in ("deployments", "model_artifacts"):
        shutil.copytree(PROJECT / folder, project / folder)
    environment = {**os.environ, "CDK_CONTEXT_JSON": json.dumps({**CONTEXT, "archives": "assembly"})}
    environment |= {"CDK_OUTDIR": str(tmp_path / "cdk.out"), "PYTHONPATH": str(PROJECT)}
    program = "import pathlib; from modelstacks.cdk import main; raise SystemExit(main(pathlib.Path.cwd()))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert done.stderr.startswith(".modelstacks/models/")
    assert "no such file; fix: modelstacks package deployments/" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_spec_without_a_lock_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    spec = tmp_path / "fresh.yaml"
    text = (PROJECT / "deployments" / "churn.yaml").read_text()
    spec.write_text(text)
    done = run(PROJECT, outdir=tmp_path / "cdk.out", deployment=str(spec))
    assert done.returncode == 3
    assert "no lock file; fix: modelstacks lock " in done.stderr
    assert "Traceback" not in done.stderr


def test_all_faults_of_a_spec_are_told_at_once(tmp_path: Path) -> None:
    spec = tmp_path / "odd.yaml"
    spec.write_text("name: Odd Name\nmodel: {source: artifact, path: m}\narchitecture: serverless\n")
    done = run(PROJECT, outdir=tmp_path / "cdk.out", deployment=str(spec))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) >= 2
    assert "Traceback" not in done.stderr


def test_a_python_without_our_packages_is_told_what_to_run(tmp_path: Path) -> None:
    done = run(tmp_path, "-S", "-I", outdir=tmp_path)
    assert done.returncode == 4
    assert "make setup" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("variable", ["CONTEXT_OVERFLOW_LOCATION_ENV"])
def test_context_that_did_not_fit_the_environment_is_read_from_its_file(
    tmp_path: Path, variable: str
) -> None:
    overflow = tmp_path / "context.json"
    overflow.write_text(json.dumps({"architecture": "neither"}))
    environment = {**os.environ, variable: str(overflow)}
    done = subprocess.run(
        [sys.executable, str(PROJECT / "app.py")],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert 'got "neither"' in done.stderr
