"""`package`: the locked bytes and no others become the archive."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from support.project import XGBOOST, Project

from modelstacks.core.artifact.archive import file_sha256
from modelstacks.core.artifact.packaging import package
from modelstacks.core.errors import EnvironmentFault, LockInvalid
from modelstacks.core.lock import Lock, write_lock


@pytest.fixture
def lock_file(project: Project) -> Path:
    return project.lock(project.spec()).path


def forget_archives(project: Project) -> None:
    for archive in (project.folder / ".modelstacks/models").iterdir():
        archive.unlink()


def test_the_archive_is_made_of_the_locked_files(project: Project, lock_file: Path) -> None:
    forget_archives(project)
    archive = package(lock_file, project.folder, project.ports.ports())
    assert archive.name == f"{file_sha256(archive)}.tar.gz"
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["model.json"]


def test_an_archive_that_is_there_needs_no_model(project: Project, lock_file: Path) -> None:
    (project.folder / "models/churn/model.json").unlink()
    assert package(lock_file, project.folder, project.ports.ports()).is_file()


def test_a_damaged_archive_is_made_again(project: Project, lock_file: Path) -> None:
    archive = package(lock_file, project.folder, project.ports.ports())
    whole = archive.read_bytes()
    archive.write_bytes(bytes(len(whole)))
    assert package(lock_file, project.folder, project.ports.ports()).read_bytes() == whole


def test_other_bytes_than_the_locked_ones_are_refused(project: Project, lock_file: Path) -> None:
    forget_archives(project)
    project.write("models/churn/model.json", XGBOOST + b" ")
    with pytest.raises(LockInvalid) as refused:
        package(lock_file, project.folder, project.ports.ports())
    assert str(refused.value).startswith(
        "deployments/churn.lock.json: model.json is not what was locked; got sha256 "
    )
    assert str(refused.value).endswith("fix: modelstacks lock deployments/churn.yaml")
    assert list((project.folder / ".modelstacks/models").iterdir()) == []


def test_a_file_that_is_gone_is_refused(project: Project, lock_file: Path) -> None:
    forget_archives(project)
    (project.folder / "models/churn/model.json").rename(project.folder / "models/churn/other.json")
    with pytest.raises(LockInvalid, match=r"model\.json is locked, but artifact no longer has it"):
        package(lock_file, project.folder, project.ports.ports())


def rewrite(lock_file: Path, old: str, new: str) -> None:
    """A lock that says something else, and is sealed."""
    lock = Lock.model_validate_json(lock_file.read_text().replace(old, new))
    write_lock(lock_file, lock)


def test_a_lock_of_another_archive_is_refused(project: Project, lock_file: Path) -> None:
    forget_archives(project)
    text = lock_file.read_text()
    sha256 = text.split('"archive": {\n      "sha256": "')[1][:64]
    rewrite(lock_file, sha256, "0" * 64)
    with pytest.raises(LockInvalid, match="the packaged archive does not match the sha256 in the lock"):
        package(lock_file, project.folder, project.ports.ports())
    assert list((project.folder / ".modelstacks/models").iterdir()) == []


def test_a_lock_by_an_unknown_source_is_refused(project: Project, lock_file: Path) -> None:
    forget_archives(project)
    rewrite(lock_file, '"source": "artifact"', '"source": "floppy-disk"')
    with pytest.raises(
        LockInvalid, match="made by a source that this version does not have; got floppy-disk"
    ):
        package(lock_file, project.folder, project.ports.ports())


def test_a_disk_that_cannot_be_written_is_one_clear_message(project: Project, lock_file: Path) -> None:
    forget_archives(project)
    (project.folder / ".modelstacks/work").rmdir()
    project.write(".modelstacks/work", "a file where the folder should be")
    with pytest.raises(EnvironmentFault, match=r"\.modelstacks/work cannot be written: "):
        package(lock_file, project.folder, project.ports.ports())
