"""What a script finds installed, and what it is told about a requirements.txt."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.project import Project

from modelstacks.core.artifact.scripts import installed, missing_requirements
from modelstacks.core.engines import engine_facts

SERVING = Path(__file__).parents[2] / "serving"


def test_what_is_said_to_be_installed_is_what_the_image_gets() -> None:
    listed = (SERVING / "requirements/script.txt").read_text()
    pinned = {line.split("==")[0] for line in listed.splitlines() if "==" in line}
    assert {"xgboost-cpu" if name == "xgboost" else name for name in installed()} <= pinned
    asked = {name.split(">")[0] for name in engine_facts("script").packages} - {"setuptools"}
    assert {name.replace("xgboost-cpu", "xgboost") for name in asked} <= set(installed())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("torch==2.4\ntransformers[torch]>=4 # why\npandas\n", "asks for torch, transformers; "),
        (
            "Scikit_Learn==1.5\nxgboost-cpu\n-r more.txt\n# note\n",
            "may ask for other versions than",
        ),
    ],
)
def test_what_a_requirements_file_asks_for_in_vain_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/requirements.txt").write_text(text)
    paths = ["code/inference.py", "code/requirements.txt"]
    warning = missing_requirements(tmp_path, paths, ["code/inference.py"])
    assert warning.startswith("code/requirements.txt is not installed, since the container reaches no")
    assert said in warning
    assert missing_requirements(tmp_path, ["code/inference.py"], ["code/inference.py"]) == ""


def test_lock_warns_of_it(project: Project) -> None:
    project.write("models/churn/inference.py", "def model_fn(model_dir): ...")
    project.write("models/churn/requirements.txt", "torch")
    model = "model: {source: artifact, path: models/churn, license: MIT, trust_code: true}\n"
    (warning,) = project.lock(project.spec(model=model)).warnings
    assert warning.startswith("requirements.txt is not installed")
    (project.folder / "models/churn/requirements.txt").unlink()
    assert project.lock(project.spec(model=model)).warnings == ()
