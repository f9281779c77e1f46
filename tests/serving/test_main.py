"""`python -m model_server inspect`: what a model is, in JSON, or in one line why it cannot be loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.model_server import ARTIFACTS, ROOT


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": str(ROOT / "serving")} | environment
    command = [sys.executable, "-m", "model_server", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environ, check=False, timeout=180)


def test_inspect_prints_what_the_model_is() -> None:
    done = run("inspect", ARTIFACTS / "digits-onnx")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["engine"], found["framework"], found["task"]) == ("onnx", "onnxruntime", "classification")
    assert found["framework_version"]
    [given] = found["signature"]["inputs"]
    assert (given["name"], given["datatype"], given["shape"], len(given["columns"])) == (
        "X",
        "FP32",
        [-1, 64],
        64,
    )
    assert [output["name"] for output in found["signature"]["outputs"]] == ["label", "probabilities"]


def test_inspect_says_in_one_line_why_a_model_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    done = run("inspect", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("model.onnx is not a readable ONNX model")
    assert done.stderr.count("\n") == 1


def test_a_command_is_needed() -> None:
    done = run()
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_serve_without_a_name_says_what_is_missing() -> None:
    done = run("serve", MODEL_SERVER_MODEL_NAME="")
    assert done.returncode == 78
    assert "MODEL_SERVER_MODEL_NAME is not set" in json.loads(done.stdout.splitlines()[-1])["message"]
