"""Every hostile artifact is refused by its cause or contained, and every real model is accepted.

Each is locked through the real command's own path: the sources, the scanner, the archive, and the model
server in the sandbox. What comes before the model server is refused without starting one.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hostile.benign import Benign, models
from hostile.corpus import SECRET, Case, Kit, cases, exec_of
from support.ports import MemoryPorts
from support.sandboxes import engines

from modelstacks.adapters.inspector import ModelServerInspector
from modelstacks.adapters.sandbox import choose
from modelstacks.adapters.scanner import PickleScanner
from modelstacks.core.errors import UsageError
from modelstacks.core.lock.locking import LockOutcome, lock
from modelstacks.core.ports import ModelInspector, Ports

CASES = cases()
MODELS = models()
#: Benign models that are loaded by their real engine, one of each; the others are accepted up to there.
LOADED = (
    "xgboost-json",
    "lightgbm-text",
    "onnx-with-data",
    "skops",
    "joblib-forest",
    "script-with-arrays",
    "links-inside",
)


def test_there_are_enough_of_each() -> None:
    assert len(CASES) >= 100
    assert len(MODELS) >= 20


def test_the_canaries_show_where_nothing_protects(tmp_path: Path) -> None:
    """Otherwise a corpus that does nothing would pass."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kit = Kit(tmp_path, tmp_path, tmp_path / "canary", server.getsockname()[1])
        (tmp_path / "model.pkl").write_bytes(exec_of(kit))
        loads = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
        environment = {"PATH": os.defpath, "MODEL_OWNERS_SECRET": SECRET}
        done = subprocess.run(
            [sys.executable, "-c", loads, str(tmp_path / "model.pkl")],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        server.settimeout(10)
        server.accept()[0].close()
    assert kit.canary.exists()
    assert SECRET in done.stderr


@dataclass
class Listener:
    """A port of this machine that nobody is to connect to."""

    port: int
    callers: list[object] = field(default_factory=list)


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = Listener(server.getsockname()[1])

        def accept() -> None:
            while True:
                try:
                    connection, caller = server.accept()
                except OSError:
                    return
                found.callers.append(caller)
                connection.close()

        threading.Thread(target=accept, daemon=True).start()
        yield found
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> ModelInspector:
    """The model server with every engine, in the sandbox that this machine has."""
    sandbox = choose("auto")
    if sandbox.kind == "none":
        pytest.skip(f"no sandbox works here: {sandbox.lacking}")
    python = engines(tmp_path_factory.mktemp("image"))
    return ModelServerInspector(lambda _: python, lambda: sandbox)


@pytest.fixture
def kit(tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kit]:
    project, outside = tmp_path / "project", tmp_path / "outside"
    (project / "models/m").mkdir(parents=True)
    (project / "deployments").mkdir()
    outside.mkdir()
    (outside / "secret").write_text(f"{SECRET}\n")
    monkeypatch.setenv("MODEL_OWNERS_SECRET", SECRET)
    monkeypatch.chdir(project)
    made = Kit(project / "models/m", outside, tmp_path / "canary", listener.port)
    yield made
    assert not made.canary.exists()
    assert listener.callers == []
    assert [path.name for path in outside.iterdir() if path.name not in ("secret", "model.json")] == []
    assert {path.name for path in tmp_path.iterdir()} == {"project", "outside"}


def locked(case: Case | Benign, kit: Kit, inspector: ModelInspector | None) -> LockOutcome:
    """Build the case, write a spec that names it, and lock it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case.build(kit)
    memory = MemoryPorts()
    for key, content in kit.objects.items():
        memory.objects.put("bucket", key, content)
    if kit.repository:
        memory.hub.repositories["acme/m"] = {"a" * 40: kit.repository}
        memory.inspector.inspection = replace(memory.inspector.inspection, task="text-classification")
    trust = ", trust_code: true" if case.trust else ""
    spec = Path("deployments/m.yaml")
    spec.write_text(f"name: model\nmodel: {{{case.model}, license: MIT{trust}}}\narchitecture: managed\n")
    doors = memory.ports()
    ports = Ports(
        doors.hub, doors.objects, doors.secrets, doors.images, inspector or doors.inspector, PickleScanner()
    )
    return lock(spec, Path.cwd(), ports)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_artifact_is_refused_by_its_cause_or_contained(
    case: Case, kit: Kit, request: pytest.FixtureRequest
) -> None:
    loaded = case.name.startswith(("engine-", "contained-"))
    inspector = request.getfixturevalue("inspector") if loaded else None
    if not case.says:
        assert locked(case, kit, inspector).changed
        return
    with pytest.raises(UsageError) as refused:
        locked(case, kit, inspector)
    message = str(refused.value)
    assert case.says in message
    assert SECRET not in message
    assert "\n" not in message
    assert message.isprintable()
    assert not Path("deployments/m.lock.json").exists()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_real_model_is_accepted(model: Benign, kit: Kit, request: pytest.FixtureRequest) -> None:
    inspector = request.getfixturevalue("inspector") if model.name in LOADED else None
    outcome = locked(model, kit, inspector)
    assert outcome.lock.model.engine == model.engine
    assert outcome.lock.model.trust_code == model.trust
