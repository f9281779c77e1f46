"""`lock`: what is written, when it is written, and what is refused before anything is."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from support.model_server import ROOT
from support.ports import CLASSIFIER
from support.project import MODEL, XGBOOST, Project

from modelstacks.core.artifact.archive import file_sha256
from modelstacks.core.artifact.packaging import archive_path
from modelstacks.core.errors import SpecInvalid, UsageError
from modelstacks.core.lock import read_lock
from modelstacks.core.plan import ModelServer
from modelstacks.core.plan.deployments import load_plans

ONNX = Path(__file__).parents[2] / "model_artifacts/digits-onnx/model.onnx"


def refusal(project: Project, spec: Path) -> str:
    with pytest.raises(UsageError) as refused:
        project.lock(spec)
    assert not list(project.folder.glob("deployments/*.lock.json"))
    assert not list(project.folder.rglob("*.part"))
    return str(refused.value)


def test_a_lock_pins_every_file_and_the_archive_of_them(project: Project) -> None:
    outcome = project.lock(project.spec())
    assert (outcome.path, outcome.changed) == (Path("deployments/churn.lock.json"), True)
    written = read_lock(outcome.path)
    assert written == outcome.lock
    (file,) = written.model.files
    assert (file.path, file.size) == ("model.json", len(XGBOOST))
    assert file.sha256 == file_sha256(project.folder / "models/churn/model.json")
    archive = archive_path(project.folder, written.model.archive.sha256)
    assert file_sha256(archive) == written.model.archive.sha256
    assert archive.stat().st_size == written.model.archive.size


def test_a_second_lock_with_nothing_changed_says_so_and_writes_nothing(project: Project) -> None:
    spec = project.spec()
    before = project.lock(spec).path.stat()
    again = project.lock(spec)
    assert not again.changed
    assert again.path.stat().st_mtime_ns == before.st_mtime_ns


def test_the_same_model_makes_the_same_bytes_on_another_machine(project: Project) -> None:
    first = project.lock(project.spec()).path.read_bytes()
    (project.folder / "models/churn/model.json").touch()
    project.write("models/churn/README.md", "# about\n")
    (project.folder / "deployments/churn.lock.json").unlink()
    assert project.lock(project.spec()).path.read_bytes() == first


def test_a_changed_model_changes_the_lock(project: Project) -> None:
    before = project.lock(project.spec()).lock.model
    project.write("models/churn/model.json", XGBOOST + b"\n")
    outcome = project.lock(project.spec())
    assert outcome.changed
    assert outcome.lock.model.revision != before.revision
    assert outcome.lock.model.archive != before.archive


def test_the_inspector_is_shown_what_the_archive_holds(project: Project) -> None:
    project.write("models/churn/holdout.csv", "a,b\n")
    project.write("models/churn/signature.json", "{}")
    project.lock(project.spec())
    assert project.ports.inspector.shown == [("xgboost", ("model.json", "signature.json"), False)]


def test_each_step_is_reported_before_it_begins(project: Project) -> None:
    from modelstacks.core.lock.locking import lock

    said: list[str] = []
    lock(project.spec(), project.folder, project.ports.ports(), report=said.append)
    assert said == [
        "resolving the model from artifact",
        "loading it in the xgboost engine",
    ]


def test_a_spec_with_faults_is_not_locked(project: Project) -> None:
    with pytest.raises(SpecInvalid, match=r"deployments/churn.yaml:3: architecture: unknown value"):
        project.lock(project.spec(rest="architecture: nowhere\n"))


def test_a_model_that_the_engine_cannot_load_is_refused(project: Project) -> None:
    project.ports.inspector.refuses = "the xgboost engine cannot load the model: it has no trees"
    assert refusal(project, project.spec()) == "the xgboost engine cannot load the model: it has no trees"


def test_a_model_that_the_engine_serves_for_another_task_is_refused(project: Project) -> None:
    config = b'{"architectures": ["BertForSequenceClassification"], "model_type": "bert"}'
    project.ports.hub.repositories["org/bert"] = {
        "a" * 40: {"config.json": config, "model.onnx": ONNX.read_bytes(), "tokenizer.json": b"{}"}
    }
    project.ports.inspector.inspection = replace(CLASSIFIER, task="feature-extraction")
    model = "model: {source: huggingface, id: org/bert, task: text-classification, license: MIT}\n"
    message = refusal(project, project.spec(model=model))
    assert message == (
        "org/bert: the source says it is for text-classification, the engine serves "
        "feature-extraction; fix: set model.task: feature-extraction, or choose another model"
    )


def test_a_pickle_needs_an_explicit_yes(project: Project) -> None:
    (project.folder / "models/churn/model.json").unlink()
    project.write("models/churn/model.pkl", b"\x80\x04N.")
    message = refusal(project, project.spec())
    assert message.startswith("models/churn: this model runs code when it is loaded: model.pkl is a pickle")
    assert "trust_code: true" in message
    assert project.ports.inspector.shown == []  # it was not loaded to find out


@pytest.mark.parametrize("script", ["inference.py", "code/inference.py"])
def test_a_script_needs_an_explicit_yes_even_beside_a_model_that_needs_none(
    project: Project, script: str
) -> None:
    project.write(f"models/churn/{script}", "def model_fn(d): ...")
    message = refusal(project, project.spec())
    assert f"{script} is Python code, which runs as it is" in message
    assert "leave other files out with model.include" in message
    assert project.ports.inspector.shown == []
    without = MODEL.replace("license", "include: [model.json], license")
    assert project.lock(project.spec(model=without)).lock.model.engine == "xgboost"
    trusted = project.lock(
        project.spec(model=MODEL.replace("license", "trust_code: true, license"))
    ).lock.model
    assert (trusted.engine, trusted.trust_code) == ("script", True)


def test_a_pickle_is_scanned_before_it_is_loaded(project: Project) -> None:
    (project.folder / "models/churn/model.json").unlink()
    project.write("models/churn/model.pkl", b"\x80\x04N.")
    allowed = MODEL.replace("license", "trust_code: true, license")
    project.ports.scanner.findings = ["model.pkl imports posix.system"]
    message = refusal(project, project.spec(model=allowed))
    assert "loading it would run code that no model needs: model.pkl imports posix.system" in message
    assert project.ports.scanner.scanned == ["model.pkl"]
    assert project.ports.inspector.shown == []

    project.ports.scanner.findings = []
    assert project.lock(project.spec(model=allowed)).lock.model.trust_code
    assert project.ports.inspector.shown == [("sklearn", ("model.pkl",), True)]


def test_allowing_pickles_does_not_make_a_safe_model_one(project: Project) -> None:
    outcome = project.lock(project.spec(model=MODEL.replace("license", "trust_code: true, license")))
    assert not outcome.lock.model.trust_code


@pytest.mark.parametrize(
    ("card", "spec", "license", "said_by"),
    [
        ("", "MIT", "MIT", "spec"),
        ("---\nlicense: mit\n---\n", "", "mit", "model card"),
        ("---\nlicense: mit\n---\n", "MIT", "MIT", "spec"),
    ],
)
def test_the_licence_comes_from_the_spec_or_the_model_card(
    card: str,
    spec: str,
    license: str,
    said_by: str,
    project: Project,
) -> None:
    project.write("models/churn/README.md", card)
    model = MODEL.replace(", license: MIT", f", license: {spec}" if spec else "")
    locked = project.lock(project.spec(model=model)).lock.model
    assert (locked.license, locked.license_from) == (license, said_by)


def test_a_model_without_a_licence_is_not_locked(project: Project) -> None:
    assert "names the licence of the model" in refusal(
        project, project.spec(model=MODEL.replace(", license: MIT", ""))
    )


def test_the_spec_and_the_model_card_must_agree(project: Project) -> None:
    project.write("models/churn/README.md", "---\nlicense: gpl-3.0\n---\n")
    assert "the spec says MIT, the model card says gpl-3.0" in refusal(project, project.spec())


def test_a_model_that_is_not_there_is_refused(project: Project) -> None:
    message = refusal(project, project.spec(model=MODEL.replace("models/churn", "models/chum")))
    assert message.startswith("model.path: models/chum does not exist in ")


def test_nothing_of_the_work_is_left_behind(project: Project) -> None:
    project.lock(project.spec())
    assert list((project.folder / ".modelstacks/work").iterdir()) == []


def test_a_lock_is_readable_json_with_one_fact_a_line(project: Project) -> None:
    text = project.lock(project.spec()).path.read_text()
    assert text.endswith("}\n")
    assert max(map(len, text.splitlines())) < 160
    assert json.loads(text)["lock_version"] == 2


def test_a_model_that_does_not_name_its_columns_leaves_a_signature_to_correct(project: Project) -> None:
    skeleton = {"inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}], "outputs": []}
    project.ports.inspector.refuses = "the engine cannot tell the columns"
    project.ports.inspector.skeleton = skeleton
    told = refusal(project, project.spec())
    assert told == (
        "the engine cannot tell the columns; fix: correct deployments/churn.signature.json, which was "
        "written for you, and put it beside the model as signature.json (docs/signature.md)"
    )
    assert json.loads((project.folder / "deployments/churn.signature.json").read_text()) == skeleton


def test_what_is_scanned_and_loaded_is_what_was_packed(project: Project) -> None:
    """A folder can change between a look and a load; the unpacked archive cannot."""
    (project.folder / "models/churn/model.json").unlink()
    project.write("models/churn/model.pkl", b"\x80\x04N.")
    project.lock(project.spec(model=MODEL.replace("license", "trust_code: true, license")))
    (scanned,) = project.ports.scanner.places
    assert not scanned.is_relative_to(project.folder / "models")
    assert project.ports.inspector.places == [scanned]


def test_a_skops_file_that_names_other_libraries_needs_an_explicit_yes(project: Project) -> None:
    (project.folder / "models/churn/model.json").unlink()
    with zipfile.ZipFile(project.folder / "models/churn/model.skops", "w") as archive:
        archive.writestr("schema.json", '{"__module__": "os", "__class__": "system"}')
    assert "model.skops names os.system, which is no plain part of" in refusal(project, project.spec())
    project.ports.inspector.inspection = replace(CLASSIFIER, engine="sklearn")
    locked = project.lock(project.spec(model=MODEL.replace("license", "trust_code: true, license"))).lock
    assert locked.model.trust_code
    assert project.ports.scanner.scanned == ["model.skops"]


@pytest.mark.parametrize("trust", ["", "trust_code: true, "])
def test_a_network_with_code_of_its_own_is_refused_with_and_without_trust(
    trust: str, project: Project
) -> None:
    (project.folder / "models/churn/model.json").unlink()
    config = {"model_type": "mine", "auto_map": {"AutoModel": "modeling.Mine"}}
    project.write("models/churn/config.json", json.dumps(config))
    project.write("models/churn/model.safetensors", (2).to_bytes(8, "little") + b"{}")
    message = refusal(project, project.spec(model=MODEL.replace("license", f"{trust}license")))
    assert "models/churn needs its own Python code (auto_map in config.json), which is never run" in message
    assert "modeling.Mine" in message


@pytest.mark.parametrize("saved", [None, "3.2.0", "3.2.7"])
def test_a_model_of_the_served_release_series_locks_without_a_warning(
    project: Project, saved: str | None
) -> None:
    project.ports.inspector.inspection = replace(CLASSIFIER, saved_with=saved)
    assert project.lock(project.spec()).warnings == ()


def test_a_model_of_another_minor_version_locks_with_one_warning(project: Project) -> None:
    sklearn = replace(CLASSIFIER, framework="scikit-learn", framework_version="1.9.1", saved_with="1.5.2")
    project.ports.inspector.inspection = sklearn
    (warning,) = project.lock(project.spec()).warnings
    assert warning.startswith("saved with scikit-learn 1.5.2, served with 1.9.1: predictions may differ;")


@pytest.mark.parametrize("saved", ["0.24.2", "2.0.0"])
def test_a_model_of_another_major_version_is_refused(project: Project, saved: str) -> None:
    sklearn = replace(CLASSIFIER, framework="scikit-learn", framework_version="1.9.1", saved_with=saved)
    project.ports.inspector.inspection = sklearn
    assert f"saved with scikit-learn {saved}, served with 1.9.1: another major" in refusal(
        project, project.spec()
    )


def test_xgboost_reads_what_older_major_versions_saved_and_not_what_newer_ones_did(project: Project) -> None:
    project.ports.inspector.inspection = replace(CLASSIFIER, saved_with="1.7.6")
    (warning,) = project.lock(project.spec()).warnings
    assert warning.startswith("saved with xgboost 1.7.6, served with 3.2.0")
    (project.folder / "deployments/churn.lock.json").unlink()
    project.ports.inspector.inspection = replace(CLASSIFIER, saved_with="4.0.0")
    assert "another major version" in refusal(project, project.spec())


def sklearn_spec(project: Project, version: str) -> Path:
    (project.folder / "models/churn/model.json").unlink()
    project.write("models/churn/model.pkl", b"\x80\x04N.")
    given = f'trust_code: true, framework_version: "{version}", license'
    return project.spec(model=MODEL.replace("license", given))


def image_of(project: Project) -> dict[str, str]:
    (plan,) = load_plans([Path("deployments/churn.yaml")], "self-hosted", project.folder)
    assert isinstance(plan.runtime, ModelServer)
    return plan.runtime.image_arguments


def test_the_spec_chooses_the_version_that_the_model_is_loaded_with(project: Project) -> None:
    project.lock(sklearn_spec(project, "1.5"))
    assert project.ports.inspector.images == [{"ENGINE": "sklearn", "FRAMEWORK_VERSION": "1.5"}]
    assert image_of(project) == {"ENGINE": "sklearn", "FRAMEWORK_VERSION": "1.5"}


def test_a_spec_that_chooses_no_version_gets_the_images_own(project: Project) -> None:
    project.lock(project.spec())
    assert project.ports.inspector.images == [{"ENGINE": "xgboost"}]
    assert image_of(project) == {"ENGINE": "xgboost"}


def test_a_version_without_pins_is_refused_with_those_that_have_some(project: Project) -> None:
    message = refusal(project, sklearn_spec(project, "1.2"))
    assert "the sklearn engine cannot be built with this version" in message
    assert "allowed: 1.5, 1.6, 1.7, 1.8" in message
    assert project.ports.inspector.shown == []


def test_an_engine_with_one_version_refuses_any_other(project: Project) -> None:
    (project.folder / "models/churn/model.json").unlink()
    tree = ROOT / "model_artifacts" / "breast-cancer-lightgbm" / "model.txt"
    project.write("models/churn/model.txt", tree.read_bytes())
    spec = project.spec(model=MODEL.replace("license", 'framework_version: "1.5", license'))
    assert "the lightgbm engine has one version" in refusal(project, spec)
