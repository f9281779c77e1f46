"""A model's files with the names of modules: none is imported when it is locked, whatever its source."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.project import Project, new_project
from support.sandboxes import MECHANISMS, engines, opened

from modelstacks.adapters.inspector import ModelServerInspector
from modelstacks.core.lock.locking import LockOutcome, lock
from modelstacks.core.ports import Ports

CHURN = Path(__file__).parents[2] / "model_artifacts/churn-xgboost/model.json"
#: Imported by the model server, by its libraries, or by the interpreter itself before anything else.
NAMES = (
    "xgboost.py",
    "orjson.py",
    "model_server.py",
    "json.py",
    "sitecustomize.py",
    "usercustomize.py",
    "numpy/__init__.py",
    "scipy/__init__.py",
    "uvloop.abi3.so",
)
SETTINGS = {"pyvenv.cfg": b"home = .\ninclude-system-site-packages = true\n", "evil.pth": b"import xgboost\n"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path)
    return new_project(tmp_path / "project")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def files(canary: Path) -> dict[str, bytes]:
    """A real model, and beside it files that leave a canary and stop the process when they are imported."""
    code = f"open({str(canary)!r}, 'w').close()\nraise SystemExit('imported from the model')\n".encode()
    return {"model.json": CHURN.read_bytes(), **dict.fromkeys(NAMES, code), **SETTINGS}


def archive(content: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def lock_for_real(project: Project, model: str, kind: str) -> LockOutcome:
    """Lock with the real engines in place of an inspector that only says so."""
    python = engines(project.folder.parent / "image")
    memory = project.ports
    inspector = ModelServerInspector(lambda _: python, opened(kind))
    ports = Ports(memory.hub, memory.objects, memory.secrets, memory.images, inspector, memory.scanner)
    return lock(project.spec(model=f"model: {{{model}, license: MIT}}\n"), project.folder, ports)


@pytest.mark.parametrize("kind", [*MECHANISMS, "none"])
class TestAModelThatShadowsModules:
    def test_in_an_archive(self, kind: str, project: Project, canary: Path) -> None:
        project.write("models/churn.tar.gz", archive(files(canary)))
        outcome = lock_for_real(project, "source: artifact, path: models/churn.tar.gz", kind)
        assert outcome.lock.model.framework_version.startswith("3.")
        assert not canary.exists()

    def test_in_an_archive_that_takes_all_its_files(self, kind: str, project: Project, canary: Path) -> None:
        project.write("models/churn.tar.gz", archive(files(canary)))
        model = "source: artifact, path: models/churn.tar.gz, include: ['*']"
        assert lock_for_real(project, model, kind).lock.model.engine == "xgboost"
        assert not canary.exists()

    def test_in_a_folder(self, kind: str, project: Project, canary: Path) -> None:
        for name, content in files(canary).items():
            project.write(f"models/churn/{name}", content)
        assert lock_for_real(project, "source: artifact, path: models/churn", kind).lock.model.engine
        assert not canary.exists()

    def test_in_s3(self, kind: str, project: Project, canary: Path) -> None:
        project.ports.objects.put("models", "churn/model.tar.gz", archive(files(canary)))
        model = "source: artifact, path: 's3://models/churn/model.tar.gz', include: ['*']"
        assert lock_for_real(project, model, kind).lock.model.engine == "xgboost"
        assert not canary.exists()

    def test_in_a_hub_repository_taken_with_include(self, kind: str, project: Project, canary: Path) -> None:
        project.ports.hub.repositories["acme/churn"] = {"a" * 40: files(canary)}
        model = "source: huggingface, id: acme/churn, include: ['model.json', '*.py', '*.pth', 'pyvenv.cfg']"
        assert lock_for_real(project, model, kind).lock.model.engine == "xgboost"
        assert not canary.exists()
