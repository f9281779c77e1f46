"""The inspector: what it makes of what the model server says, and of a server that dies."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from modelstacks.adapters.inspector import ModelServerInspector
from modelstacks.core.errors import EnvironmentFault, SignatureNeeded, UsageError

ROOT = Path(__file__).parents[2]
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


def inspector(folder: Path, script: str, timeout: float = 60) -> ModelServerInspector:
    """One whose interpreter is a shell script."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return ModelServerInspector(lambda _: python, timeout=timeout)


def test_what_the_server_says_becomes_an_inspection(tmp_path: Path) -> None:
    (tmp_path / "said.json").write_text(json.dumps(SAID))
    found = inspector(tmp_path, f"cat {tmp_path}/said.json").inspect(tmp_path, "xgboost", trust_code=False)
    assert (found.engine, found.framework_version, found.task) == ("xgboost", "3.2.0", "classification")
    assert found.signature.inputs[0].columns == ("a", "b")
    assert found.signature.classes == ("stays", "leaves")


def test_the_process_gets_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("HF_TOKEN", "hush")
    (tmp_path / "said.json").write_text(json.dumps(SAID))
    script = f"env > {tmp_path}/environment; cat {tmp_path}/said.json"
    inspector(tmp_path, script).inspect(tmp_path, "sklearn", trust_code=True)
    environment = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines())
    assert "hush" not in environment.values()
    assert environment["MODEL_SERVER_ENGINE"] == "sklearn"
    assert environment["MODEL_SERVER_TRUST_CODE"] == "true"


def test_the_engines_own_reason_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        inspector(tmp_path, "echo noise >&2; echo 'model.json has no trees' >&2; exit 1").inspect(
            tmp_path, "xgboost", trust_code=False
        )
    assert str(refused.value) == "the xgboost engine cannot load the model: model.json has no trees"


def test_a_signature_to_correct_is_passed_on_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "said.json").write_text(json.dumps({"skeleton": {"inputs": []}}))
    with pytest.raises(SignatureNeeded, match="it does not name its columns") as refused:
        inspector(
            tmp_path, f"cat {tmp_path}/said.json; echo 'it does not name its columns' >&2; exit 1"
        ).inspect(tmp_path, "sklearn", trust_code=False)
    assert refused.value.skeleton == {"inputs": []}


@pytest.mark.parametrize("script", ["kill -SEGV $$", "exit 3", "echo no json", "echo '{}'"])
def test_an_engine_that_dies_is_one_clear_message(script: str, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"^the onnx engine died while it loaded the model: "):
        inspector(tmp_path, script).inspect(tmp_path, "onnx", trust_code=False)


def test_an_engine_that_hangs_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the onnx engine did not load the model in 0 s"):
        inspector(tmp_path, "exec sleep 60", timeout=0.2).inspect(tmp_path, "onnx", trust_code=False)


def test_an_interpreter_that_is_not_there_is_one_clear_message(tmp_path: Path) -> None:
    absent = ModelServerInspector(lambda _: tmp_path / "absent")
    with pytest.raises(EnvironmentFault, match="absent cannot be run: No such file or directory"):
        absent.inspect(tmp_path, "onnx", trust_code=False)


def test_a_real_model_in_a_real_engine(tmp_path: Path) -> None:
    """The whole way, with this interpreter's own libraries in place of an installed image."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT}/serving exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    folder = ROOT / "model_artifacts/churn-xgboost"
    found = ModelServerInspector(lambda _: python).inspect(folder, "xgboost", trust_code=False)
    assert (found.engine, found.framework, found.task) == ("xgboost", "xgboost", "classification")
    assert found.signature.inputs[0].shape == (-1, 30)
