"""One wheel and one installation for all the tests here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.cdk import PROJECT
from support.installation import Installation, build, install, share_tools

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(PROJECT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="session")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return install(wheel, "synth,lock,cloud", tmp_path_factory.mktemp("installation") / "environment")


@pytest.fixture(scope="session")
def project(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `modelstacks new` writes in an empty folder, and its lock."""
    empty = tmp_path_factory.mktemp("empty")
    installation.modelstacks(empty, "new", "models", "--no-lock")
    share_tools(empty / "models")
    installation.modelstacks(empty / "models", "lock")
    return empty / "models"


@pytest.fixture(scope="session")
def shop(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CDK app that somebody has, to which they add a model."""
    folder = tmp_path_factory.mktemp("shop") / "shop"
    shutil.copytree(FIXTURES / "shop", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("deployments", "models"):
        shutil.copytree(project / name, folder / name)
    share_tools(folder)
    return folder
