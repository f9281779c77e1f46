"""A second self-hosted target as two files: synthesized, deployed into the embedded cloud, predicting."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.drop_in import FIXTURES, ROOT, copy_product, run

from modelstacks.cli.embedded_api import callable_api
from modelstacks.cloud import client

SPEC = """\
name: churn
model: {source: artifact, path: model_artifacts/churn-xgboost, license: Apache-2.0}
architecture: self-hosted
self-hosted: {target: fargate-spot, spot_percent: 30}
"""


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The product with the target's declaration and builder, and a spec that asks for it."""
    folder = copy_product(tmp_path_factory.mktemp("product"))
    shutil.copy(FIXTURES / "target" / "fargate_spot.py", folder / "modelstacks" / "targets")
    shutil.copy(FIXTURES / "builder" / "fargate_spot.py", folder / "stacks" / "targets")
    for name in ("cdk.json", "package.json"):
        shutil.copy(ROOT / name, folder)
    model = "model_artifacts/churn-xgboost"
    shutil.copytree(ROOT / model, folder / model)
    (folder / "deployments").mkdir()
    (folder / "deployments" / "churn.yaml").write_text(SPEC)
    shutil.copy(ROOT / "deployments" / "churn.lock.json", folder / "deployments")
    (folder / "node_modules").symlink_to(ROOT / "node_modules")
    images = ROOT / ".modelstacks" / "images"
    images.mkdir(parents=True, exist_ok=True)
    (folder / ".modelstacks").mkdir()
    (folder / ".modelstacks" / "images").symlink_to(images)
    return folder


def modelstacks(product: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "modelstacks", *words],
        cwd=product,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(product),
            "NO_COLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, f"modelstacks {' '.join(words)}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def cloud(product: Path) -> Iterator[client.Session]:
    try:
        modelstacks(product, "up", "--detach")
        session = client.attach(product)
        assert session is not None
        with session:
            yield session
    finally:
        modelstacks(product, "down")


def test_its_template_has_what_its_block_asks_for(product: Path, tmp_path: Path) -> None:
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    run(product, "app.py", CDK_CONTEXT_JSON=json.dumps(context), CDK_OUTDIR=str(tmp_path))
    template = json.loads((tmp_path / "churn-self-hosted.template.json").read_text())
    [service] = [each for each in template["Resources"].values() if each["Type"] == "AWS::ECS::Service"]
    assert service["Properties"]["CapacityProviderStrategy"] == [
        {"CapacityProvider": "FARGATE", "Weight": 70},
        {"CapacityProvider": "FARGATE_SPOT", "Weight": 30},
    ]
    assert set(template["Outputs"]) >= {"ClusterName", "ServiceName", "LogGroupName"}


@pytest.mark.e2e
@pytest.mark.soak
def test_its_tasks_answer(cloud: client.Session) -> None:
    status = cloud.status()
    [api] = [each for each in status.apis if each.stack == "churn-self-hosted"]
    row = (ROOT / "model_artifacts/churn-xgboost/holdout.csv").read_text().splitlines()[1]
    body = json.dumps({"instances": [[float(cell) for cell in row.split(",")]]}).encode()
    answer = callable_api(api, status).send(
        "POST", "/invocations", body=body, headers={"content-type": "application/json"}
    )
    assert answer.status == 200, answer
    predicted = json.loads((ROOT / "model_artifacts/churn-xgboost/predictions.json").read_text())
    assert json.loads(answer.text)["predictions"][0] == pytest.approx(predicted["predictions"][0], abs=1e-6)
