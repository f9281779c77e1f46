"""The artifact source: a folder, an archive or S3, pinned to bytes that can be had again."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from support.project import XGBOOST, Project

from modelstacks.core.artifact.model_files import MOST_FILES
from modelstacks.core.artifact.packaging import package
from modelstacks.core.errors import LockInvalid, UsageError
from modelstacks.core.model import files_revision
from modelstacks.core.plan.deployments import load_plans


def tar_gz(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("_dot_", "."))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def model(path: str, more: str = "") -> str:
    return f"model: {{source: artifact, path: '{path}', license: MIT{more}}}\n"


def locked_files(project: Project, spec: Path) -> list[str]:
    return [file.path for file in project.lock(spec).lock.model.files]


def repackaged(project: Project) -> list[str]:
    """The names in an archive that is made anew from what the source has."""
    for archive in (project.folder / ".modelstacks/models").iterdir():
        archive.unlink()
    made = package(project.folder / "deployments/churn.lock.json", project.folder, project.ports.ports())
    with tarfile.open(made) as tar:
        return tar.getnames()


def test_a_folder_is_pinned_by_the_bytes_of_its_model(project: Project) -> None:
    locked = project.lock(project.spec()).lock.model
    assert locked.revision == files_revision(locked.files)
    assert locked.origin == {"path": "models/churn"}
    assert repackaged(project) == ["model.json"]


def test_include_takes_what_it_says(project: Project) -> None:
    project.write("models/churn/labels.txt", "a\nb\n")
    spec = project.spec(model=model("models/churn", ", include: ['model.json', '*.txt']"))
    assert locked_files(project, spec) == ["labels.txt", "model.json"]


def test_an_archive_in_the_project_is_unpacked(project: Project) -> None:
    project.write("models/churn.tar.gz", tar_gz(model_dot_json=XGBOOST, notes_dot_txt=b"x"))
    spec = project.spec(model=model("models/churn.tar.gz"))
    assert locked_files(project, spec) == ["model.json"]
    assert repackaged(project) == ["model.json"]


def test_an_archive_that_has_changed_makes_the_lock_stale(project: Project) -> None:
    project.write("models/churn.tar.gz", tar_gz(model_dot_json=XGBOOST))
    spec = project.spec(model=model("models/churn.tar.gz"))
    project.lock(spec)
    project.write("models/churn.tar.gz", tar_gz(model_dot_json=XGBOOST + b" "))
    with pytest.raises(LockInvalid, match=r"stale: models/churn.tar.gz has changed"):
        load_plans([spec], "spec", project.folder)


def test_an_archive_with_a_file_outside_itself_is_refused(project: Project) -> None:
    project.write("models/churn.tar.gz", tar_gz(**{"../evil": b"x", "model_dot_json": XGBOOST}))
    with pytest.raises(UsageError, match=r"models/churn.tar.gz: '../evil' would be written outside"):
        project.lock(project.spec(model=model("models/churn.tar.gz")))
    assert not list(project.folder.rglob("evil"))


def test_objects_below_a_prefix_are_pinned_to_their_versions(project: Project) -> None:
    store = project.ports.objects
    store.put("models", "churn/v1/model.json", b"an older one")
    store.put("models", "churn/v1/model.json", XGBOOST)
    store.put("models", "churn/v10/model.json", b"a neighbour")
    store.put("models", "churn/v1/", b"")  # the console's "folder"
    locked = project.lock(project.spec(model=model("s3://models/churn/v1"))).lock.model
    assert locked.origin == {"bucket": "models", "prefix": "churn/v1/"}
    assert [(file.path, file.origin) for file in locked.files] == [("model.json", {"version_id": "v2"})]

    store.put("models", "churn/v1/model.json", b"overwritten since")
    assert repackaged(project) == ["model.json"]  # from the version that was locked


def test_an_archive_in_s3_is_pinned_to_its_version(project: Project) -> None:
    store = project.ports.objects
    store.put("models", "churn/model.tar.gz", tar_gz(model_dot_json=XGBOOST))
    store.put("models", "churn/model.tar.gz.bak", b"another object with that prefix")
    locked = project.lock(project.spec(model=model("s3://models/churn/model.tar.gz"))).lock.model
    assert locked.origin["version_id"] == "v1"
    store.put("models", "churn/model.tar.gz", tar_gz(model_dot_json=b"overwritten since"))
    assert repackaged(project) == ["model.json"]


def test_a_prefix_with_nothing_below_it_is_refused(project: Project) -> None:
    with pytest.raises(UsageError, match=r"model.path: found no objects at s3://models/churn"):
        project.lock(project.spec(model=model("s3://models/churn")))


def test_a_bucket_without_versions_is_refused(project: Project) -> None:
    project.ports.objects.versioned = False
    project.ports.objects.put("models", "churn/model.json", XGBOOST)
    with pytest.raises(
        UsageError, match=r"bucket models has no versioning.*put-bucket-versioning --bucket models"
    ):
        project.lock(project.spec(model=model("s3://models/churn")))


@pytest.mark.parametrize("key", ["churn/../evil", "churn//model.json", "churn/a\\b"])
def test_a_key_that_is_no_path_is_refused(key: str, project: Project) -> None:
    project.ports.objects.put("models", key, XGBOOST)
    project.ports.objects.put("models", "churn/model.json", XGBOOST)
    with pytest.raises(UsageError, match=r"s3://models/churn: '.*; fix: rename it"):
        project.lock(project.spec(model=model("s3://models/churn")))
    assert project.ports.objects.downloaded == []


def test_a_listing_of_more_objects_than_a_model_has_is_refused_before_any_is_fetched(
    project: Project,
) -> None:
    for number in range(MOST_FILES + 1):
        project.ports.objects.put("models", f"churn/{number}", b"")
    with pytest.raises(UsageError, match="s3://models/churn: it holds more than 10000 files"):
        project.lock(project.spec(model=model("s3://models/churn")))
    assert project.ports.objects.downloaded == []


def test_a_path_that_is_a_link_out_of_the_project_is_refused(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "model.json").write_bytes(XGBOOST)
    (project.folder / "models/elsewhere").symlink_to(outside)
    with pytest.raises(
        UsageError, match=r"model.path: models/elsewhere is a link to a target outside the project; got /"
    ):
        project.lock(project.spec(model=model("models/elsewhere")))


def test_a_file_that_became_a_link_makes_the_lock_stale(project: Project, tmp_path: Path) -> None:
    spec = project.spec()
    project.lock(spec)
    (project.folder / "models/churn/model.json").rename(project.folder / "same.json")
    (project.folder / "models/churn/model.json").symlink_to(project.folder / "same.json")
    with pytest.raises(LockInvalid, match=r"'model.json' is a link out of the model's folder"):
        load_plans([spec], "spec", project.folder)


def test_a_lock_that_names_a_file_outside_the_model_is_refused(project: Project) -> None:
    spec = project.spec()
    lock = project.lock(spec).path
    lock.write_text(lock.read_text().replace('"path": "model.json"', '"path": "../../../etc/hosts"'))
    with pytest.raises(LockInvalid, match=r"churn.lock.json: the lock file is damaged at model.files.0.path"):
        package(lock, project.folder, project.ports.ports())


def test_a_lock_from_s3_is_never_stale_offline(project: Project) -> None:
    project.ports.objects.put("models", "churn/model.json", XGBOOST)
    spec = project.spec(model=model("s3://models/churn"))
    project.lock(spec)
    project.ports.objects.put("models", "churn/model.json", b"overwritten since")
    assert load_plans([spec], "spec", project.folder)


def test_a_file_that_is_gone_makes_the_lock_stale(project: Project) -> None:
    project.write("models/churn/signature.json", "{}")
    spec = project.spec()
    project.lock(spec)
    (project.folder / "models/churn/signature.json").unlink()
    with pytest.raises(LockInvalid, match=r"stale: models/churn/signature.json was removed"):
        load_plans([spec], "spec", project.folder)


def test_a_model_that_no_longer_is_one_makes_the_lock_stale(project: Project) -> None:
    spec = project.spec()
    project.lock(spec)
    project.write("models/churn/model.json", "{}")
    with pytest.raises(LockInvalid, match="stale: models/churn has no model that can be identified"):
        load_plans([spec], "spec", project.folder)


def test_the_model_must_be_there_to_be_packaged(project: Project) -> None:
    project.lock(project.spec())
    (project.folder / "models/churn/model.json").unlink()
    (project.folder / "models/churn").rmdir()
    with pytest.raises(UsageError, match=r"models/churn does not exist .* but the lock was made from it"):
        repackaged(project)
