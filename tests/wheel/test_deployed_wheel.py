"""The installed wheel deploys into the embedded cloud: a new project, and somebody's own CDK app."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installation import Installation

from modelstacks.adapters.deployed_api import Answer
from modelstacks.cli.embedded_api import callable_api
from modelstacks.cloud import client

# Two deploys of several minutes each on a busy machine.
pytestmark = [pytest.mark.e2e, pytest.mark.soak]


@pytest.fixture(scope="module")
def cloud(installation: Installation, project: Path) -> Iterator[client.Session]:
    """The new project, deployed into the embedded cloud."""
    try:
        installation.modelstacks(project, "up", "--detach")
        session = client.attach(project)
        assert session is not None
        with session:
            yield session
    finally:
        installation.modelstacks(project, "down")


def rows(project: Path) -> list[list[float]]:
    """Some of the held-out rows of the project's model."""
    with (project / "models" / "churn" / "holdout.csv").open(newline="") as file:
        table = list(csv.reader(file))
    return [[float(cell) for cell in row] for row in table[1:6]]


def predict(cloud: client.Session, stack: str, values: list[list[float]]) -> Answer:
    """POST /invocations of a stack's API, through API Gateway."""
    status = cloud.status()
    (api,) = (one for one in status.apis if one.stack == stack)
    body = json.dumps({"instances": values}).encode()
    return callable_api(api, status).send(
        "POST", "/invocations", body=body, headers={"content-type": "application/json"}
    )


def test_a_new_project_predicts(installation: Installation, project: Path, cloud: client.Session) -> None:
    values = rows(project)
    (project / "rows.json").write_text(json.dumps({"instances": values}))
    answer = json.loads(installation.modelstacks(project, "invoke", "churn", "--data", "rows.json"))
    assert len(answer["predictions"]) == len(values)
    assert json.loads(predict(cloud, "churn-self-hosted", values).text) == answer


def test_an_app_with_its_own_stacks_and_vpc_deploys_the_construct_and_predicts(
    installation: Installation, project: Path, shop: Path, cloud: client.Session
) -> None:
    settings = json.loads(installation.modelstacks(project, "env", "--json"))["environment"]
    cdk = str(shop / "node_modules" / ".bin" / "cdk")
    options = ["--require-approval", "never", "--method", "direct"]
    done = installation.run(shop, cdk, "deploy", "--all", *options, variables=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    for _ in cloud.reconcile():
        pass
    values = rows(project)
    answer = predict(cloud, "shop", values)
    assert answer.status == 200, answer
    assert answer.text == predict(cloud, "churn-self-hosted", values).text
