"""The small project that sources are tested on."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.project import Project, new_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return new_project(tmp_path)
