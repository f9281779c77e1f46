"""Lock files: damage is met with the command that mends it; digests move with the model block alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.project import MODEL, Project

from modelstacks.core.errors import EnvironmentFault, LockInvalid
from modelstacks.core.lock import lock_path, model_digest, read_lock
from modelstacks.core.spec.validation import read_spec


def test_a_lock_lies_beside_its_spec() -> None:
    assert lock_path(Path("deployments/churn.yaml")) == Path("deployments/churn.lock.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "deployments/churn.lock.json: the lock file is damaged at the document"),
        ("{}", "deployments/churn.lock.json: the lock file is damaged at spec"),
        ('{"lock_version": 1}', "deployments/churn.lock.json: the lock file was written by another version"),
        ("<<<<<<< HEAD\n{}", "deployments/churn.lock.json: the lock file is damaged at the document"),
    ],
    ids=["empty", "bare", "older", "merge conflict"],
)
def test_a_damaged_lock_is_refused_with_the_command_that_mends_it(
    content: str, message: str, project: Project
) -> None:
    path = project.write("deployments/churn.lock.json", content)
    with pytest.raises(LockInvalid) as refused:
        read_lock(path)
    assert str(refused.value).startswith(message)
    assert str(refused.value).endswith("fix: modelstacks lock deployments/churn.yaml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"engine": "xgboost"', '"engine": "sklearn"'),
        ('"trust_code": false', '"trust_code": true'),
        ('"license": "MIT"', '"license": "GPL-3.0-only"'),
    ],
)
def test_a_lock_that_was_edited_is_refused(project: Project, old: str, new: str) -> None:
    path = project.lock(project.spec()).path
    text = path.read_text()
    edited = text.replace(old, new)
    assert edited != text
    path.write_text(edited)
    with pytest.raises(LockInvalid, match="the lock file was edited: its content does not match its digest"):
        read_lock(path)


def test_the_layout_of_a_lock_is_nobodys_business(project: Project) -> None:
    path = project.lock(project.spec()).path
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert read_lock(path).model.engine == "xgboost"


def test_a_lock_of_an_earlier_version_says_so(project: Project) -> None:
    path = project.lock(project.spec()).path
    document = json.loads(path.read_text())
    del document["model"]["kind"]
    path.write_text(json.dumps({**document, "lock_version": 1, "aws_images": {}}))
    with pytest.raises(LockInvalid, match="was written by another version; fix: modelstacks lock"):
        read_lock(path)


def test_a_missing_lock_is_refused_with_the_command_that_makes_it(project: Project) -> None:
    with pytest.raises(LockInvalid) as refused:
        read_lock(project.folder / "deployments/churn.lock.json")
    assert str(refused.value) == (
        "deployments/churn.lock.json: no lock file; fix: modelstacks lock deployments/churn.yaml"
    )


def test_the_digest_moves_with_the_model_block_alone(project: Project) -> None:
    digest = model_digest(read_spec(project.spec()))
    assert digest == model_digest(
        read_spec(project.spec(rest="architecture: self-hosted\nlogs: {retention_days: 7}\n"))
    )
    written_out = MODEL.replace("license", "trust_code: false, include: [], license")
    assert digest == model_digest(read_spec(project.spec(model=written_out)))  # defaults, spelt out
    assert digest != model_digest(read_spec(project.spec(model=MODEL.replace("MIT", "Apache-2.0"))))


def test_a_lock_that_cannot_be_written_leaves_the_old_one(project: Project) -> None:
    outcome = project.lock(project.spec())
    before = outcome.path.read_bytes()
    (outcome.path.parent / f".{outcome.path.name}.part").mkdir()  # where it would be written first
    project.write("models/churn/signature.json", "{}")
    with pytest.raises(EnvironmentFault, match=r"deployments/churn.lock.json cannot be written: "):
        project.lock(project.spec())
    assert outcome.path.read_bytes() == before
