"""The inspector: what it makes of what the model server says, of one that dies, and of a hostile model."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from support.sandboxes import MECHANISMS, engines, opened, pretender

from modelstacks.adapters.inspector import ModelServerInspector
from modelstacks.adapters.sandbox import Limits
from modelstacks.core.errors import EnvironmentFault, SignatureNeeded, UsageError

ROOT = Path(__file__).parents[2]
KINDS = (*MECHANISMS, "none")
SAID = {
    "engine": "xgboost",
    "framework": "xgboost",
    "framework_version": "3.2.0",
    "task": "classification",
    "signature": {
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 2], "columns": ["a", "b"]}],
        "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}],
        "classes": ["stays", "leaves"],
    },
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with nothing in it."""
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def inspector(
    folder: Path, source: str, *, kind: str = "none", timeout: float = 60, limits: Limits | None = None
) -> ModelServerInspector:
    """One whose model server is a small program."""
    python = pretender(folder / "image", source)
    return ModelServerInspector(lambda _: python, opened(kind), timeout=timeout, limits=limits)


def test_what_the_server_says_becomes_an_inspection(kind: str, tmp_path: Path, model: Path) -> None:
    asked = inspector(tmp_path, f"print({json.dumps(SAID)!r})", kind=kind)
    found = asked.inspect(model, "xgboost", image={}, trust_code=False)
    assert (found.engine, found.framework_version, found.task) == ("xgboost", "3.2.0", "classification")
    assert found.signature.inputs[0].columns == ("a", "b")
    assert found.signature.classes == ("stays", "leaves")


def test_the_process_gets_no_credentials(
    kind: str, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("HF_TOKEN", "hush")
    source = "import json, os, sys; sys.exit(json.dumps({**os.environ, 'cwd': os.listdir()}))"
    with pytest.raises(UsageError) as refused:
        inspector(tmp_path, source, kind=kind).inspect(model, "sklearn", image={}, trust_code=True)
    environment = json.loads(str(refused.value).partition("load the model: ")[2])
    assert "hush" not in environment.values()
    assert environment["MODEL_SERVER_ENGINE"] == "sklearn"
    assert environment["MODEL_SERVER_TRUST_CODE"] == "true"
    assert environment["cwd"] == []


def test_the_engines_own_reason_is_passed_on(kind: str, tmp_path: Path, model: Path) -> None:
    source = "import sys; print('noise', file=sys.stderr); sys.exit('model.json has no trees')"
    with pytest.raises(UsageError) as refused:
        inspector(tmp_path, source, kind=kind).inspect(model, "xgboost", image={}, trust_code=False)
    assert str(refused.value) == "the xgboost engine cannot load the model: model.json has no trees"


def test_a_signature_to_correct_is_passed_on_with_the_reason(kind: str, tmp_path: Path, model: Path) -> None:
    source = "import sys; print('{\"skeleton\": {\"inputs\": []}}'); sys.exit('it does not name its columns')"
    with pytest.raises(SignatureNeeded, match="it does not name its columns") as refused:
        inspector(tmp_path, source, kind=kind).inspect(model, "sklearn", image={}, trust_code=False)
    assert refused.value.skeleton == {"inputs": []}


def test_a_reason_cannot_command_the_terminal(tmp_path: Path, model: Path) -> None:
    source = r"import sys; sys.exit('\x1b]0;owned\x07 \u202eno trees')"
    with pytest.raises(UsageError, match=r"model: \?\]0;owned\? \?no trees$"):
        inspector(tmp_path, source).inspect(model, "xgboost", image={}, trust_code=False)


@pytest.mark.parametrize(
    "source",
    [
        "import os; os.kill(os.getpid(), 11)",
        "import sys; sys.exit(3)",
        "print('no json')",
        "print('{}')",
        "print('[' * 200_000)",
        "import sys; sys.stdout.buffer.write(bytes(range(128, 256)))",
    ],
    ids=["a crash", "an unknown exit code", "no json", "nothing in it", "deep json", "no text"],
)
def test_an_engine_that_dies_is_one_clear_message(
    source: str, kind: str, tmp_path: Path, model: Path
) -> None:
    with pytest.raises(EnvironmentFault, match=r"^the onnx engine died while it loaded the model: ") as died:
        inspector(tmp_path, source, kind=kind).inspect(model, "onnx", image={}, trust_code=False)
    assert len(str(died.value)) < 1200
    assert "\n" not in str(died.value)


def test_a_crash_is_named(kind: str, tmp_path: Path, model: Path) -> None:
    with pytest.raises(EnvironmentFault, match="killed by SIGABRT"):
        inspector(tmp_path, "import os; os.abort()", kind=kind).inspect(
            model, "onnx", image={}, trust_code=False
        )


def test_an_engine_that_hangs_is_stopped(kind: str, tmp_path: Path, model: Path) -> None:
    asked = inspector(tmp_path, "import time; time.sleep(600)", kind=kind, timeout=1)
    with pytest.raises(
        UsageError, match=r"the onnx engine did not load the model in 1 s; allowed: 1 s .*fix:"
    ):
        asked.inspect(model, "onnx", image={}, trust_code=False)


def test_an_engine_that_computes_for_ever_is_stopped(kind: str, tmp_path: Path, model: Path) -> None:
    asked = inspector(tmp_path, "while True: pass", kind=kind, limits=Limits(cpu_seconds=1))
    with pytest.raises(UsageError, match=r"used up its processor time.*allowed: 1 s of all threads.*fix:"):
        asked.inspect(model, "onnx", image={}, trust_code=False)


def test_an_engine_that_the_kernel_ends_for_its_memory(kind: str, tmp_path: Path, model: Path) -> None:
    source = "import os; os.kill(os.getpid(), 9)"  # as the kernel does when the machine's memory is gone
    with pytest.raises(UsageError, match=r"ran out of memory.*allowed: 1.0 GiB.*fix:"):
        inspector(tmp_path, source, kind=kind, limits=Limits(memory=1 << 30)).inspect(
            model, "onnx", image={}, trust_code=False
        )


def test_an_engine_that_writes_for_ever_is_stopped(kind: str, tmp_path: Path, model: Path) -> None:
    source = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
    with pytest.raises((UsageError, EnvironmentFault)):
        inspector(tmp_path, source, kind=kind, limits=Limits(file_bytes=1 << 20)).inspect(
            model, "onnx", image={}, trust_code=False
        )


def test_an_interpreter_that_is_not_there_is_one_clear_message(
    kind: str, tmp_path: Path, model: Path
) -> None:
    absent = ModelServerInspector(lambda _: tmp_path / "absent", opened(kind))
    with pytest.raises(EnvironmentFault, match="absent cannot be run: No such file or directory"):
        absent.inspect(model, "onnx", image={}, trust_code=False)


@pytest.mark.parametrize(
    ("artifact", "engine", "task"),
    [
        ("churn-xgboost", "xgboost", "classification"),
        ("breast-cancer-lightgbm", "lightgbm", "classification"),
        ("digits-onnx", "onnx", "classification"),
        ("diabetes-sklearn", "sklearn", "regression"),
        ("sentiment-bert", "transformers", "text-classification"),
    ],
)
def test_a_real_model_in_a_real_engine(
    artifact: str, engine: str, task: str, kind: str, tmp_path: Path
) -> None:
    """The whole way, with this interpreter's own libraries in place of an installed image."""
    python = engines(tmp_path / "image")
    asked = ModelServerInspector(lambda _: python, opened(kind))
    found = asked.inspect(ROOT / "model_artifacts" / artifact, engine, image={}, trust_code=False)
    assert (found.engine, found.task) == (engine, task)
    assert found.signature.inputs


HOSTILE = """
import json, os, socket, subprocess
def attempt(work, *arguments):
    try:
        work(*arguments)
    except OSError as error:
        return type(error).__name__
    return "done"
def model_fn(folder):
    raise ValueError(json.dumps({{
        "read a key": attempt(open, {key!r}),
        "write beside it": attempt(open, {canary!r}, "w"),
        "write into the model": attempt(open, folder + "/canary", "w"),
        "connect": attempt(socket.create_connection, ("127.0.0.1", {port}), 5),
        "unix socket": attempt(lambda: socket.socket(socket.AF_UNIX).connect({bus!r})),
        "fork": attempt(os.fork),
        "start a program": attempt(subprocess.run, ["/bin/sh", "-c", "echo > {canary}"]),
    }}))
"""


@pytest.mark.parametrize("kind", MECHANISMS)
def test_a_trusted_script_reaches_nothing_of_the_machine(kind: str, tmp_path: Path, model: Path) -> None:
    (home := tmp_path / "home").mkdir()
    (home / "id_rsa").write_text("a key")
    python = engines(tmp_path / "image")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(home / "bus"))
        bus.listen()
        (model / "inference.py").write_text(
            HOSTILE.format(
                key=str(home / "id_rsa"),
                canary=str(home / "canary"),
                bus=str(home / "bus"),
                port=server.getsockname()[1],
            )
        )
        with pytest.raises(UsageError) as refused:
            ModelServerInspector(lambda _: python, opened(kind)).inspect(
                model, "script", image={}, trust_code=True
            )
    found = json.loads(str(refused.value).partition("ValueError: ")[2])
    assert len(found) == 7
    assert not [what for what, came_of_it in found.items() if came_of_it == "done"]
    assert sorted(path.name for path in home.iterdir()) == ["bus", "id_rsa"]
    assert [path.name for path in model.iterdir()] == ["inference.py"]


def test_a_model_that_needs_more_memory_than_there_is(kind: str, tmp_path: Path) -> None:
    python = engines(tmp_path / "image")
    asked = ModelServerInspector(lambda _: python, opened(kind), limits=Limits(memory=512 << 20))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "inference.py").write_text("def model_fn(folder): return bytearray(4 << 30)\n")
    with pytest.raises(UsageError, match=r"the script engine ran out of memory.*allowed: 0.5 GiB.*fix:"):
        asked.inspect(folder, "script", image={}, trust_code=True)


@pytest.mark.parametrize(
    ("said", "taken"), [("1.5.2", "1.5.2"), (None, None), ("1.5\x1b[31m", None), (15, None), ("9" * 99, None)]
)
def test_the_version_that_saved_the_model_is_a_version_or_unknown(
    said: object, taken: str | None, tmp_path: Path, model: Path
) -> None:
    asked = inspector(tmp_path, f"print({json.dumps({**SAID, 'saved_with': said})!r})")
    assert asked.inspect(model, "xgboost", image={}, trust_code=False).saved_with == taken
