"""What is in the wheel and in the sdist, and what is not."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.cdk import PROJECT
from support.installation import build


def files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tracked(folder: str) -> set[str]:
    """The files of a folder that git has, by their paths in it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.removeprefix(f"{folder}/") for line in listed.stdout.split()}


def test_site_packages_gets_one_package(wheel: Path) -> None:
    top = {name.split("/")[0] for name in files(wheel)}
    assert {name for name in top if not name.endswith(".dist-info")} == {"modelstacks"}


@pytest.mark.parametrize(
    ("folder", "place"), [("stacks", "cdk"), ("serving", "bundle/serving"), ("lambda", "bundle/lambda")]
)
def test_a_folder_is_in_its_place_whole_and_nothing_else_is(wheel: Path, folder: str, place: str) -> None:
    prefix = f"modelstacks/{place}/"
    held = {
        name.removeprefix(prefix): content
        for name, content in files(wheel).items()
        if name.startswith(prefix)
    }
    assert held.keys() == tracked(folder)
    for name, content in held.items():
        assert content == (PROJECT / folder / name).read_bytes(), name


def test_the_toolkit_is_whole(wheel: Path) -> None:
    held = {name.removeprefix("modelstacks/") for name in files(wheel)}
    assert {name for name in tracked("modelstacks") if name != "cdk/__init__.py"} <= held


def test_no_cache_and_no_test_is_in_it(wheel: Path) -> None:
    odd = ("__pycache__", ".pyc", ".pytest_cache", ".mypy_cache", ".ruff_cache", "egg-info", "/test_")
    template = "modelstacks/cli/project_template/tests/"  # a file that `modelstacks new` writes
    names = [name for name in files(wheel) if not name.startswith(template)]
    assert not [name for name in names if any(part in name for part in odd)]


def test_nothing_in_the_published_stacks_imports_them_by_their_folders_name(wheel: Path) -> None:
    for name, content in files(wheel).items():
        if name.startswith("modelstacks/cdk/"):
            assert b"from stacks" not in content, name
            assert b"import stacks" not in content, name


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    sdist = build(PROJECT, tmp_path / "sdist", "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    again = build(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "again", "wheel")
    assert files(again) == files(wheel)
