"""The curl lines of `up`: bodies that the model accepts, short enough for a terminal."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from support.command_line import api

from modelstacks.cli.sample_requests import LONGEST_BODY, curl_lines, example_body
from modelstacks.cloud.api import Credentials
from modelstacks.core.plan import Plan
from modelstacks.core.plan.deployments import load_plans
from modelstacks.core.signature import Signature, Tensor

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = (Tensor(name="y", datatype="FP32", shape=(-1,)),)
AGE = Tensor(name="age", datatype="FP64", shape=(-1,))
CITY = Tensor(name="city", datatype="BYTES", shape=(-1,), examples=("Bonn", "Oslo"))
FLOOR = Tensor(name="floor", datatype="INT64", shape=(-1,), examples=("3", "7"))
MATRIX = Tensor(name="m", datatype="FP32", shape=(-1, 2, -1))


@pytest.mark.parametrize(
    ("inputs", "body"),
    [
        ((Tensor(name="x", datatype="FP32", shape=(-1, 3)),), {"instances": [[0.0, 0.0, 0.0]]}),
        ((MATRIX,), {"instances": [[[0.0], [0.0]]]}),
        ((Tensor(name="b", datatype="BOOL", shape=(-1,)),), {"instances": [False]}),
        ((Tensor(name="text", datatype="BYTES", shape=(-1,)),), {"inputs": ["It was a pleasure."]}),
        ((AGE, CITY, FLOOR), {"inputs": {"age": [0.0], "city": ["Bonn"], "floor": [3]}}),
        ((AGE, MATRIX), {"inputs": {"age": [0.0], "m": [[[0.0], [0.0]]]}}),
    ],
)
def test_the_example_has_every_input_in_values_that_the_model_knows(
    inputs: tuple[Tensor, ...], body: dict
) -> None:
    assert example_body(Signature(inputs=inputs, outputs=OUTPUT)) == body


@pytest.fixture(scope="module")
def plan() -> Plan:
    (made,) = load_plans([ROOT / "deployments" / "churn.yaml"], "self-hosted", ROOT)
    return made


def lines_of(plan: Plan, tensor: Tensor, folder: Path) -> list[str]:
    model = plan.model.model_copy(update={"signature": Signature(inputs=(tensor,), outputs=OUTPUT)})
    keys = Credentials(access_key_id="AKIA", secret_access_key="secret")
    changed = plan.model_copy(update={"model": model})
    return curl_lines(api("churn-self-hosted"), changed, keys, "us-east-1", folder=folder)


def test_a_long_body_goes_through_a_file(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = Tensor(name="image", datatype="FP32", shape=(-1, 3, 224, 224))
    predict, *_ = lines_of(plan, image, tmp_path / "requests")
    assert len(predict) < LONGEST_BODY
    assert "@requests/churn.json" in shlex.split(predict)
    [row] = json.loads((tmp_path / "requests" / "churn.json").read_text())["instances"]
    assert (len(row), len(row[0]), len(row[0][0])) == (3, 224, 224)


def test_a_short_body_is_on_the_line_and_leaves_no_file(plan: Plan, tmp_path: Path) -> None:
    predict, *_ = lines_of(plan, Tensor(name="x", datatype="FP32", shape=(-1, 2)), tmp_path / "requests")
    assert '{"instances":[[0.0,0.0]]}' in shlex.split(predict)
    assert not (tmp_path / "requests").exists()
