"""init, validate, lock, plan, package: what happens before anything is deployed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from modelstacks.core.registry import sources


def test_init_writes_a_spec_that_is_valid(cli, project: Path) -> None:
    assert cli("init", "--name", "mine").out == "deployments/mine.yaml\n"
    ran = cli("validate", "deployments/mine.yaml")
    assert (ran.code, ran.out) == (0, "deployments/mine.yaml: valid (mine, self-hosted)\n")


@pytest.mark.parametrize("source", sources())
def test_init_writes_a_valid_spec_from_every_source(cli, source: str) -> None:
    cli("init", "--source", source, "--name", "mine", "--architecture", "managed")
    assert cli("validate", "mine").out == "deployments/mine.yaml: valid (mine, managed)\n"


def test_the_defaults_that_init_shows_as_comments_are_valid_when_taken_in(cli, project: Path) -> None:
    cli("init", "--name", "mine")
    path = project / "deployments" / "mine.yaml"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line.removeprefix("# ") if ": {" in line else line for line in lines))
    assert "\nmanaged: {" in path.read_text()
    assert cli("validate", "mine").code == 0


def test_init_names_the_schema_only_where_the_project_has_it(cli, project: Path) -> None:
    cli("init", "--name", "mine")
    assert "yaml-language-server" not in (project / "deployments" / "mine.yaml").read_text()
    (project / "docs" / "schema").mkdir(parents=True)
    (project / "docs" / "schema" / "spec.schema.json").write_text("{}")
    cli("init", "--name", "yours")
    line = "# yaml-language-server: $schema=../docs/schema/spec.schema.json"
    assert (project / "deployments" / "yours.yaml").read_text().splitlines()[0] == line


def test_init_refuses_to_overwrite(cli, project: Path) -> None:
    before = (project / "deployments" / "churn.yaml").read_text()
    ran = cli("init", "--name", "churn")
    assert ran.code == 2
    assert "deployments/churn.yaml already exists" in ran.err
    assert (project / "deployments" / "churn.yaml").read_text() == before


def test_init_names_the_sources_it_knows(cli) -> None:
    ran = cli("init", "--source", "artefact")
    assert ran.code == 2
    assert "unknown model source; got artefact; allowed: artifact" in ran.err
    assert 'did you mean "artifact"?' in ran.err


@pytest.mark.parametrize("name", ["Mine", "a", "9lives", "with_underscore", "x" * 40])
def test_init_refuses_a_name_that_no_stack_can_have(cli, name: str) -> None:
    ran = cli("init", "--name", name)
    assert ran.code == 2
    assert f"this name cannot be part of a stack's name; got {name}" in ran.err


def test_validate_reports_every_fault_of_every_spec_at_once(cli, project: Path) -> None:
    (project / "deployments" / "bad.yaml").write_text(
        "name: Bad\nmodel: {source: artifact, path: x, license: MIT}\narchitecture: hosted\nscalling: {}\n"
    )
    ran = cli("validate")
    assert ran.code == 2
    assert ran.out == ""
    for line in ("bad.yaml:1: name", "bad.yaml:3: architecture", "bad.yaml:4: scalling"):
        assert line in ran.err
    assert ran.err.splitlines()[-1] == "modelstacks: 3 faults in the spec"


def test_validate_as_json_puts_the_faults_on_stdout(cli, project: Path) -> None:
    (project / "deployments" / "bad.yaml").write_text("name: ok\narchitecture: managed\n")
    ran = cli("validate", "bad", "--json")
    assert ran.code == 2
    assert ran.json()["valid"] is False
    assert [(fault["line"], fault["field"]) for fault in ran.json()["faults"]] == [(1, "model")]
    assert cli("validate", "churn", "--json").json() == {
        "valid": True,
        "specs": [{"file": "deployments/churn.yaml", "name": "churn"}],
        "warnings": [],
    }


def test_an_unknown_deployment_name_is_told_with_the_known_ones(cli) -> None:
    ran = cli("plan", "chrun")
    assert ran.code == 2
    assert (
        'no such file, and no deployment of this name; got chrun; allowed: churn; fix: did you mean "churn"?'
        in (ran.err)
    )


def test_a_project_without_specs_says_how_to_begin(cli, project: Path) -> None:
    for path in (project / "deployments").iterdir():
        path.unlink()
    ran = cli("validate")
    assert ran.code == 2
    assert "there is no spec in deployments; fix: modelstacks init" in ran.err


def test_lock_says_whether_anything_changed(cli, project: Path) -> None:
    assert "churn.lock.json: unchanged (xgboost, classification, Apache-2.0" in cli("lock").out
    (project / "deployments" / "churn.lock.json").unlink()
    ran = cli("lock", "churn", "--json")
    assert ran.json()["locks"][0]["changed"] is True
    assert (project / "deployments" / "churn.lock.json").exists()


def test_lock_validates_every_spec_before_it_resolves_the_first(cli, project: Path) -> None:
    (project / "deployments" / "churn.lock.json").unlink()
    (project / "deployments" / "zzz.yaml").write_text("name: Bad\n")
    assert cli("lock").code == 2
    assert not (project / "deployments" / "churn.lock.json").exists()


@pytest.mark.parametrize("command", ["plan", "up", "deploy"])
def test_a_missing_lock_is_exit_code_3_with_the_command_that_mends_it(
    cli, project: Path, command: str
) -> None:
    (project / "deployments" / "churn.lock.json").unlink()
    ran = cli(command)
    assert ran.code == 3
    assert "fix: modelstacks lock deployments/churn.yaml" in ran.err


def test_a_stale_lock_is_exit_code_3(cli, project: Path) -> None:
    model = project / "model_artifacts" / "churn-xgboost" / "signature.json"
    model.write_text(model.read_text() + "\n")
    ran = cli("plan")
    assert ran.code == 3
    assert "signature.json has changed" in ran.err


def test_plan_shows_both_architectures_in_words(cli) -> None:
    out = cli("plan", "--architecture", "both").out
    for words in (
        "churn-self-hosted",
        "churn-managed",
        "2 to 8",
        "100 requests/s",
        "POST /invocations",
        "Fargate",
        "memory_mib: The minimum that Fargate supports with one vCPU.",
        "startup_seconds: ",
        "2 to 8 x86_64 vCPU (ECS::TaskDefinition), 16 during an update; quota: fargate L-3032A538",
        "2 to 8 ml.m5.large instance (SageMaker::Endpoint), 16 during an update; quota: sagemaker ml",
    ):
        assert words in out


def test_plan_gives_reasons_for_defaults_alone(cli, project: Path) -> None:
    spec = project / "deployments" / "churn.yaml"
    spec.write_text(spec.read_text() + "self-hosted: {memory_mib: 4096}\n")
    out = cli("plan").out
    assert "cpu: Enough for tabular models" in out
    assert "memory_mib: The least" not in out


def test_validate_warns_of_a_model_path_that_does_not_exist(cli, project: Path) -> None:
    spec = project / "deployments" / "churn.yaml"
    spec.write_text(spec.read_text().replace("churn-xgboost", "churn-xgbost"))
    ran = cli("validate", "churn")
    assert ran.code == 0
    line = 1 + next(i for i, text in enumerate(spec.read_text().splitlines()) if "churn-xgbost" in text)
    assert ran.err == (
        f"warning: deployments/churn.yaml:{line}: model.path: does not exist in the project; "
        'got "model_artifacts/churn-xgbost"; fix: did you mean "model_artifacts/churn-xgboost"?\n'
    )
    [warning] = cli("validate", "churn", "--json").json()["warnings"]
    assert (warning["field"], warning["line"]) == ("model.path", line)


def test_plan_as_json_reports_a_bad_spec_as_json(cli, project: Path) -> None:
    (project / "deployments" / "bad.yaml").write_text("name: ok\narchitecture: managed\n")
    ran = cli("plan", "bad", "--json")
    assert ran.code == 2
    assert [(fault["line"], fault["field"]) for fault in ran.json()["faults"]] == [(1, "model")]


def test_plan_as_json_reports_a_missing_lock_as_json(cli, project: Path) -> None:
    (project / "deployments" / "churn.lock.json").unlink()
    ran = cli("plan", "churn", "--json")
    assert ran.code == 3
    assert ran.json()["valid"] is False
    assert ran.json()["error"]["fix"] == "modelstacks lock deployments/churn.yaml"


def test_plan_as_json_is_the_plan(cli) -> None:
    plans = cli("plan", "--json", "-a", "both").json()["plans"]
    assert [plan["stack_name"] for plan in plans] == ["churn-self-hosted", "churn-managed"]
    assert plans[0]["model"] == plans[1]["model"]


def test_package_prints_the_path_of_the_locked_archive_and_nothing_else(cli, project: Path) -> None:
    ran = cli("package", "deployments/churn.lock.json")
    archive = Path(ran.out.strip())
    assert ran.out.count("\n") == 1
    assert archive.name == f"{hashlib.sha256(archive.read_bytes()).hexdigest()}.tar.gz"
    assert archive.is_absolute()
