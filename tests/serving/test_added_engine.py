"""An engine is a module and its data file: a dropped one is served, installed, locked and deployed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import pytest
from support.drop_in import FIXTURES, copy_product, run
from support.model_server import ModelServer

from modelstacks.core.engines import read_engines
from modelstacks.core.errors import EnvironmentFault

MODEL = {"columns": ["width", "height"], "centroids": {"small": [1.0, 1.0], "large": [10.0, 10.0]}}
ROWS = [[2.0, 0.5], [8.0, 12.0]]
SPEC = "name: sizes\nmodel: {source: artifact, path: model, license: MIT}\narchitecture: managed\n"


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The product with the engine's two files dropped in, and a project that deploys a model of it."""
    folder = copy_product(tmp_path_factory.mktemp("product"))
    for file in ("nearest.py", "nearest.json"):
        shutil.copy(FIXTURES / "engine" / file, folder / "serving" / "model_server" / "engines")
    (folder / "model").mkdir()
    (folder / "model" / "sizes.centroids.json").write_text(json.dumps(MODEL))
    (folder / "sizes.yaml").write_text(SPEC)
    return folder


def test_the_server_chooses_and_serves_it(product: Path, logs: Path) -> None:
    environment = {"PYTHONPATH": str(product / "serving")}
    with ModelServer.start(product / "model", logs, model_name="sizes", environment=environment) as server:
        answer = httpx.post(f"{server.url}/invocations", json={"instances": ROWS})
        assert answer.json() == {"predictions": ["small", "large"]}
        assert httpx.get(f"{server.url}/v2/models/sizes").json()["platform"] == "numpy_nearest"


def test_its_outputs_are_streamed_as_events_where_it_can_and_the_caller_asks(
    product: Path, logs: Path
) -> None:
    environment = {"PYTHONPATH": str(product / "serving")}
    with ModelServer.start(product / "model", logs, environment=environment) as server:
        headers = {"accept": "text/event-stream"}
        answer = httpx.post(f"{server.url}/invocations", json={"instances": ROWS}, headers=headers)
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.text == 'data: {"predictions":["small"]}\n\ndata: {"predictions":["large"]}\n\n'
        refused = httpx.post(f"{server.url}/invocations", json={"instances": [["a", 1]]}, headers=headers)
        assert refused.status_code == 422
        described = httpx.get(f"{server.url}/openapi.json").json()["paths"]["/invocations"]["post"]
        assert headers["accept"] in described["responses"]["200"]["content"]


def test_the_toolkit_installs_locks_and_deploys_it(product: Path) -> None:
    run(product, "-m", "modelstacks", "lock", "sizes.yaml")
    locked = json.loads((product / "sizes.lock.json").read_text())
    assert locked["model"]["engine"] == "nearest"
    assert locked["model"]["signature"]["inputs"][0]["columns"] == ["width", "height"]
    context = json.dumps({"deployment": "sizes.yaml"})
    run(product, "app.py", CDK_OUTDIR=str(product / "cdk.out"), CDK_CONTEXT_JSON=context)
    assets = json.loads((product / "cdk.out" / "sizes-managed.assets.json").read_text())
    arguments = [image["source"]["dockerBuildArgs"] for image in assets["dockerImages"].values()]
    assert arguments == [{"ENGINE": "nearest"}]


def test_routes_that_an_engine_cannot_answer_are_refused_at_start(product: Path, logs: Path) -> None:
    listed = json.loads((product / "serving" / "model_server" / "routes.json").read_text())
    listed["groups"]["embeddings"] = "vectors"
    server = product / "other"
    shutil.copytree(product / "serving", server)
    (server / "model_server" / "routes.json").write_text(json.dumps(listed))
    with ModelServer.start(
        product / "model",
        logs,
        wait=False,
        environment={"PYTHONPATH": str(server)},
        contracts="predictive,embeddings",
    ) as running:
        assert running.process.wait(60) == 78
    reason = running.log()[-1]["message"]
    assert "MODEL_SERVER_CONTRACTS has embeddings, which the nearest engine cannot answer" in reason
    assert "allowed: predictive" in reason


def test_a_data_file_that_describes_no_engine_names_the_member_and_the_fix(tmp_path: Path) -> None:
    folder = tmp_path / "model_server" / "engines"
    folder.mkdir(parents=True)
    (folder / "odd.py").touch()
    assert read_engines(tmp_path)["odd"].contracts == ("predictive",)
    (folder / "odd.json").write_text('{"package": []}')
    with pytest.raises(EnvironmentFault, match=r"odd\.json does not describe an engine.*packages"):
        read_engines(tmp_path)
