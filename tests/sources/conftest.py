"""The small project that sources are tested on, and a lock for those who only need one."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.project import Project, new_project

from modelstacks.core.lock import Lock


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return new_project(tmp_path)


@pytest.fixture
def lock_of_anything(project: Project) -> Lock:
    return project.lock(project.spec()).lock
