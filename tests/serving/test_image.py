"""The image without Docker: its install script run into a clean folder, and the Dockerfile's promises."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from support.model_server import ARTIFACTS, ROOT, ModelServer, predictions

from modelstacks.core.engines import engine_facts, engines

SERVING = ROOT / "serving"
REQUIREMENTS = SERVING / "requirements"
OLDER = Path(__file__).parent / "engines" / "older_models"
ENGINES = ["lightgbm", "onnx", "script", "sklearn", "transformers", "xgboost"]


def install(folder: Path, engine: str, **arguments: str) -> None:
    """Does what the Dockerfile's build stage does, for one engine."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    environment = os.environ | {"PYTHON": sys.executable} | ({"UV": uv} if uv else {}) | arguments
    subprocess.run(["sh", SERVING / "install.sh", folder, engine], check=True, env=environment, timeout=280)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the Dockerfile's build stage makes, for one engine."""
    folder = tmp_path_factory.mktemp("image") / "model-server"
    install(folder, "onnx")
    yield folder
    shutil.rmtree(folder)


def test_the_installed_server_answers_and_writes_nothing_into_its_own_folder(
    prefix: Path, logs: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in prefix.rglob("*")}
    python = str(prefix / "venv" / "bin" / "python")
    with ModelServer.start(
        ARTIFACTS / "digits-onnx", logs, python=python, environment={"PYTHONPATH": ""}
    ) as server:
        rows = np.load(ARTIFACTS / "digits-onnx" / "holdout.npy").tolist()
        answer = httpx.post(f"{server.url}/invocations", json={"instances": rows})
        np.testing.assert_allclose(
            answer.json()["predictions"], predictions("digits-onnx"), rtol=1e-5, atol=1e-8
        )
        assert server.terminate() == 0
    assert {path: path.stat().st_mtime_ns for path in prefix.rglob("*")} == before


def test_an_older_release_of_the_library_answers_as_it_did_when_it_saved_the_model(
    tmp_path: Path, logs: Path
) -> None:
    install(tmp_path / "image", "xgboost", FRAMEWORK_VERSION="2.1")
    model = tmp_path / "model"
    model.mkdir()
    shutil.copy(OLDER / "xgboost-2.1.json", model / "model.json")
    saved = json.loads((OLDER / "xgboost-2.1-predictions.json").read_text(encoding="utf-8"))
    python = str(tmp_path / "image" / "venv" / "bin" / "python")
    with ModelServer.start(model, logs, python=python, environment={"PYTHONPATH": ""}) as server:
        [ready] = [line for line in server.log() if line["message"] == "ready"]
        assert ready["framework_version"] == "2.1.4"
        answer = httpx.post(f"{server.url}/invocations", json={"instances": saved["rows"]})
        np.testing.assert_allclose(answer.json()["predictions"], saved["predictions"], rtol=1e-6)
    shutil.rmtree(tmp_path / "image")


def test_an_engine_that_is_not_installed_is_one_clear_line(prefix: Path, logs: Path) -> None:
    python = str(prefix / "venv" / "bin" / "python")
    with ModelServer.start(
        ARTIFACTS / "churn-xgboost", logs, python=python, environment={"PYTHONPATH": ""}, wait=False
    ) as server:
        assert server.process.wait(60) == 78
        assert "No module named 'xgboost'" in server.log()[-1]["message"]


def test_the_script_names_its_engines(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", SERVING / "install.sh", tmp_path, "torch"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert all(engine in done.stderr for engine in ENGINES)


@pytest.mark.parametrize("name", ["_columns", "base", "torch"])
def test_the_script_installs_only_engines(tmp_path: Path, name: str) -> None:
    done = subprocess.run(["sh", SERVING / "install.sh", tmp_path, name], capture_output=True, check=False)
    assert done.returncode == 2


def test_the_script_refuses_a_version_without_pins(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", SERVING / "install.sh", tmp_path, "sklearn"],
        capture_output=True,
        env=os.environ | {"FRAMEWORK_VERSION": "0.24"},
        text=True,
        check=False,
    )
    assert done.returncode == 2


def test_where_uv_fails_pip_installs_and_both_are_given_the_systems_certificates(tmp_path: Path) -> None:
    """With stand-ins for the interpreter and for uv, which note how they are called and install nothing."""
    calls = tmp_path / "calls"
    note = f'echo "$0 $* certs=$UV_SYSTEM_CERTS bundle=$REQUESTS_CA_BUNDLE" >> {calls}'
    python, uv = tmp_path / "python3", tmp_path / "uv"
    made = f'"-m venv "*) mkdir -p "$3/bin" && cp {python} "$3/bin/python";;'
    asked = f"*sysconfig*) echo {tmp_path}/site;;"
    python.write_text(f'#!/bin/sh\n{note}\ncase "$*" in {made} {asked} esac\n')
    uv.write_text(f"#!/bin/sh\n{note}\nexit 2\n")
    for program in (python, uv):
        program.chmod(0o755)
    (tmp_path / "site").mkdir()
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(python), "UV": str(uv)}
    bundle = tmp_path / "bundle.pem"
    subprocess.run(
        ["sh", SERVING / "install.sh", tmp_path / "image", "onnx"],
        check=True,
        env=environment | {"REQUESTS_CA_BUNDLE": str(bundle)},
        timeout=60,
    )
    lines = calls.read_text().splitlines()
    tried = next(i for i, line in enumerate(lines) if line.startswith(f"{uv} pip install"))
    then = next(i for i, line in enumerate(lines) if "-m pip install" in line and "onnx.txt" in line)
    assert tried < then
    assert f"certs=true bundle={bundle}" in lines[tried]
    assert "--require-hashes" in lines[then]


def pins(path: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+==[^ ;\\]+)", path.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("engine", [*ENGINES, "base"])
def test_pins_are_the_ones_that_the_tests_run_with_and_hashed(engine: str) -> None:
    path = SERVING / "requirements" / f"{engine}.txt"
    assert pins(path) <= pins(ROOT / "requirements.txt")
    entries = re.split(r"(?m)^(?=[a-z0-9-]+==)", path.read_text(encoding="utf-8"))[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


def test_every_engine_has_its_requirements() -> None:
    modules = {path.stem for path in (SERVING / "model_server" / "engines").glob("[!_]*.py")}
    assert modules == set(ENGINES) == {path.stem for path in REQUIREMENTS.glob("*[a-z].txt")} - {"base"}


def test_the_versions_that_a_spec_can_choose_are_those_with_pins() -> None:
    older = {path.stem for path in REQUIREMENTS.glob("*[0-9].txt")}
    assert older == {f"{name}-{series}" for name, facts in engines().items() for series in facts.older_series}


@pytest.mark.parametrize(
    ("engine", "package", "series"),
    [
        (engine, package, series)
        for engine, package in (("sklearn", "scikit-learn"), ("xgboost", "xgboost-cpu"))
        for series in engine_facts(engine).older_series
    ],
)
def test_older_pins_have_the_chosen_release_and_hashes(engine: str, package: str, series: str) -> None:
    path = REQUIREMENTS / f"{engine}-{series}.txt"
    assert any(pin.startswith(f"{package}=={series}.") for pin in pins(path))
    entries = re.split(r"(?m)^(?=[a-z0-9-]+==)", path.read_text(encoding="utf-8"))[1:]
    assert all("--hash=sha256:" in entry for entry in entries)


def stages() -> list[str]:
    return re.split(r"(?m)^FROM ", (SERVING / "Dockerfile").read_text(encoding="utf-8"))


def test_the_image_is_slim_names_no_user_and_keeps_its_root_read_only() -> None:
    arguments, build, final = stages()
    assert "slim" in arguments
    assert "@sha256:" in arguments
    assert "sh install.sh /opt/model-server" in build
    assert "COPY --from=build /opt/model-server /opt/model-server" in final
    # SageMaker's hosting containers have to run as root; ECS's task definition names user 1000 instead.
    assert not re.search(r"(?m)^USER\b", final)
    assert "useradd --uid 1000 " in final
    assert 'VOLUME ["/opt/ml/model", "/tmp"]' in final
    assert 'ENTRYPOINT ["python", "-m", "model_server"]' in final
    assert 'CMD ["serve"]' in final
    assert not re.search(r"gcc|build-essential|pip install", final)


@pytest.mark.skipif(
    shutil.which("hadolint", path=str(Path(sys.executable).parent)) is None, reason="no hadolint here"
)
def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, SERVING / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_version_that_a_spec_chooses_reaches_the_install_script() -> None:
    from modelstacks.adapters.dockerfile import read
    from modelstacks.core.plan.runtime import image_arguments

    text = (SERVING / "Dockerfile").read_text(encoding="utf-8")
    chosen = read(text, image_arguments("sklearn", [], "1.5")).installation
    assert (chosen.arguments, chosen.environment["FRAMEWORK_VERSION"]) == (("sklearn",), "1.5")
    own = read(text, image_arguments("sklearn", [])).installation
    assert own.environment["FRAMEWORK_VERSION"] == ""
