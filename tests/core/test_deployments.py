"""From specs on disk to Plans: which specs are meant, and when their locks no longer count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.project import MODEL, XGBOOST, Project

from modelstacks.core.errors import LockInvalid, SpecInvalid, UsageError
from modelstacks.core.plan import Plan
from modelstacks.core.plan.deployments import find_specs, load_plans


def test_all_of_deployments_is_meant_by_default(project: Project) -> None:
    project.lock(project.spec("wine"))
    project.spec("churn")
    project.write("deployments/notes.txt", "no spec")
    assert [path.name for path in find_specs(project.folder)] == ["churn.yaml", "wine.yaml"]


def test_files_and_folders_are_named_with_commas(project: Project) -> None:
    project.spec("churn")
    project.spec("wine")
    project.write("more/other.yml", "name: other\n")
    found = find_specs(project.folder, "deployments/wine.yaml, more,deployments/wine.yaml")
    assert [path.name for path in found] == ["wine.yaml", "other.yml"]


def test_names_are_looked_for_in_the_project_from_any_folder(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.spec("churn")
    monkeypatch.chdir(project.folder / "models")
    assert find_specs(project.folder, "deployments/churn.yaml") == [project.folder / "deployments/churn.yaml"]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (
            "deployments/chum.yaml",
            'deployments/chum.yaml does not exist; fix: did you mean "deployments/churn.yaml"?',
        ),
        ("churn", 'churn does not exist; fix: did you mean "deployments/churn.yaml"?'),
        ("x.json", "x.json does not exist; fix: modelstacks init writes a spec to start from"),
        ("models", "models has no spec; allowed: *.yaml; fix: modelstacks init writes one"),
        (" , ", 'no spec is named; got " , "; fix: name a YAML file, or leave it out for all of them'),
    ],
)  # fmt: skip
def test_a_selection_of_nothing_is_refused(selection: str, message: str, project: Project) -> None:
    project.spec("churn")
    with pytest.raises(UsageError) as refused:
        find_specs(project.folder, selection)
    assert str(refused.value) == message


def test_a_project_without_deployments_says_how_to_begin(project: Project) -> None:
    with pytest.raises(UsageError) as refused:
        find_specs(project.folder)
    assert (
        str(refused.value) == "deployments does not exist; fix: modelstacks init writes a spec to start from"
    )


@pytest.mark.parametrize(
    ("architecture", "stacks"),
    [
        ("spec", ["churn-managed"]),
        ("self-hosted", ["churn-self-hosted"]),
        ("managed", ["churn-managed"]),
        ("both", ["churn-self-hosted", "churn-managed"]),
    ],
)
def test_each_architecture_asked_for_makes_a_plan(
    architecture: str, stacks: list[str], project: Project
) -> None:
    spec = project.spec()
    project.lock(spec)
    plans = load_plans([spec], architecture, project.folder)  # type: ignore[arg-type]
    assert [plan.stack_name for plan in plans] == stacks
    assert plans[0].package_command[-2:] == ("package", "deployments/churn.lock.json")


def test_a_plan_is_all_json(project: Project) -> None:
    spec = project.spec(rest="architecture: self-hosted\nself-hosted: {cpu: 512, memory_mib: 1024}\n")
    project.lock(spec)
    (plan,) = load_plans([spec], "spec", project.folder)
    dumped = json.loads(plan.model_dump_json())
    assert dumped["target"]["cpu"] == 512
    assert dumped["runtime"]["environment"]["MODEL_SERVER_ENGINE"] == "xgboost"
    assert isinstance(plan, Plan)


@pytest.mark.parametrize(
    ("seconds", "self_hosted", "managed"), [(29, "29", "27"), (5, "5", "3"), (2, "2", "1")]
)
def test_the_model_server_knows_how_long_it_is_waited_for(
    seconds: int, self_hosted: str, managed: str, project: Project
) -> None:
    rest = f"architecture: managed\napi: {{timeout_seconds: {seconds}}}\nserver: {{target_wait_ms: 250}}\n"
    spec = project.spec(rest=rest)
    project.lock(spec)
    environments = [plan.runtime.environment for plan in load_plans([spec], "both", project.folder)]
    assert [one["MODEL_SERVER_DEADLINE_SECONDS"] for one in environments] == [self_hosted, managed]
    assert {one["MODEL_SERVER_TARGET_WAIT_MS"] for one in environments} == {"250"}


def test_the_same_files_make_the_same_plan_wherever_they_lie(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = project.spec()
    project.lock(spec)
    here = load_plans([spec], "both", project.folder)
    monkeypatch.chdir("/")
    assert load_plans([project.folder / spec], "both", project.folder) == here


def test_two_specs_of_one_name_are_refused(project: Project) -> None:
    first = project.spec("churn")
    second = project.write("deployments/copy.yaml", first.read_text())
    with pytest.raises(SpecInvalid) as refused:
        load_plans([first, second], "spec", project.folder)
    assert str(refused.value) == (
        'deployments/copy.yaml:1: name: is taken by deployments/churn.yaml:1; got "churn"; '
        "fix: names decide the stacks' names: give each spec its own"
    )


def test_faults_of_all_specs_are_shown_together(project: Project) -> None:
    specs = [project.spec(name, rest="architecture: nowhere\n") for name in ("churn", "wine")]
    with pytest.raises(SpecInvalid) as refused:
        load_plans(specs, "spec", project.folder)
    assert [fault.file for fault in refused.value.faults] == [
        "deployments/churn.yaml",
        "deployments/wine.yaml",
    ]


def test_every_missing_lock_is_named_with_one_command_for_all(project: Project) -> None:
    specs = [project.spec("churn"), project.spec("wine")]
    with pytest.raises(LockInvalid) as refused:
        load_plans(specs, "spec", project.folder)
    assert str(refused.value) == (
        "deployments/churn.lock.json: no lock file\ndeployments/wine.lock.json: no lock file; "
        "fix: modelstacks lock deployments/churn.yaml deployments/wine.yaml"
    )


def stale(project: Project, spec: Path) -> str:
    with pytest.raises(LockInvalid) as refused:
        load_plans([spec], "spec", project.folder)
    prefix, suffix = "deployments/churn.lock.json: stale: ", " since it was locked; fix: modelstacks lock "
    text = str(refused.value)
    assert text.startswith(prefix)
    assert text.endswith(suffix + "deployments/churn.yaml")
    return text.removeprefix(prefix).split(suffix)[0]


def test_a_changed_model_block_makes_the_lock_stale(project: Project) -> None:
    project.lock(project.spec())
    changed = project.spec(model=MODEL.replace("MIT", "Apache-2.0"))
    assert stale(project, changed) == "the spec's model block has changed"


def test_a_changed_word_outside_the_model_block_does_not(project: Project) -> None:
    project.lock(project.spec())
    assert load_plans(
        [project.spec(rest="architecture: self-hosted\ntags: {team: red}\n")], "spec", project.folder
    )


def test_a_changed_model_file_makes_the_lock_stale(project: Project) -> None:
    spec = project.spec()
    project.lock(spec)
    project.write("models/churn/model.json", XGBOOST.replace(b"3", b"4"))
    assert stale(project, spec) == "models/churn/model.json has changed"


def test_a_new_file_of_the_model_makes_the_lock_stale(project: Project) -> None:
    spec = project.spec()
    project.lock(spec)
    project.write("models/churn/signature.json", "{}")
    assert stale(project, spec) == "models/churn/signature.json was added"


def test_a_project_without_the_weights_can_still_plan(project: Project) -> None:
    spec = project.spec()
    project.lock(spec)
    (project.folder / "models/churn/model.json").unlink()
    (project.folder / "models/churn").rmdir()
    assert load_plans([spec], "both", project.folder)


def test_what_a_target_cannot_do_is_refused_only_where_it_is_asked_to(project: Project) -> None:
    spec = project.spec(rest="architecture: self-hosted\nserver: {max_body_bytes: 9000000}\n")
    project.lock(spec)
    assert load_plans([spec], "spec", project.folder)
    with pytest.raises(
        SpecInvalid, match=r"churn.yaml:4: server.max_body_bytes: sagemaker-endpoint does not support"
    ):
        load_plans([spec], "both", project.folder)


def test_a_spec_outside_the_project_is_refused(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    for path in (project.spec(), project.lock(project.spec()).path):
        (outside / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match="is outside the project"):
        load_plans([outside / "churn.yaml"], "spec", project.folder)
