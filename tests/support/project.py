"""A small project on disk: one spec, one model that is quick to look at, and in-memory ports."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from support.ports import MemoryPorts

from modelstacks.core.lock.locking import LockOutcome, lock

XGBOOST = b'{"learner": {}, "version": [3, 2, 0]}'  # what the format is told by
MODEL = "model: {source: artifact, path: models/churn, license: MIT}\n"


@dataclass
class Project:
    """Its folder is the working directory of the test that uses it, so that messages have relative paths."""

    folder: Path
    ports: MemoryPorts = field(default_factory=MemoryPorts)

    def write(self, path: str, content: bytes | str) -> Path:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def spec(self, name: str = "churn", model: str = MODEL, rest: str = "architecture: managed\n") -> Path:
        path = self.write(f"deployments/{name}.yaml", f"name: {name}\n{model}{rest}")
        return path.relative_to(self.folder)

    def lock(self, spec: Path) -> LockOutcome:
        return lock(spec, self.folder, self.ports.ports())


def new_project(folder: Path) -> Project:
    """A project with a model in models/churn and no spec yet."""
    os.chdir(folder)
    project = Project(folder)
    project.write("models/churn/model.json", XGBOOST)
    return project
