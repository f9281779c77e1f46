"""A language model from a hub: locked by the command, deployed as both architectures, asked over HTTP."""

from __future__ import annotations

import json

import pytest
from e2e.conftest import ARCHITECTURES, HUB_MODEL, Cloud
from support.tiny_models import GENERATOR

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_continues_texts_as_the_library_does(cloud: Cloud, architecture: str) -> None:
    answer = cloud.predict(HUB_MODEL, architecture, json.loads((GENERATOR / "holdout.json").read_bytes()))
    assert answer.status == 200, answer.text
    expected = json.loads((GENERATOR / "predictions.json").read_bytes())["predictions"]
    assert json.loads(answer.body) == {"predictions": expected}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_seed_makes_a_sample_repeatable(cloud: Cloud, architecture: str) -> None:
    parameters = {"do_sample": True, "temperature": 1.3, "max_new_tokens": 12, "seed": 7}
    body = {"inputs": ["The data set"], "parameters": parameters}
    first, second = (cloud.predict(HUB_MODEL, architecture, body) for _ in range(2))
    assert first.status == 200, first.text
    assert first.body == second.body
    other = cloud.predict(HUB_MODEL, architecture, body | {"parameters": parameters | {"seed": 8}})
    assert other.body != first.body


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_parameter_out_of_bounds_is_named(cloud: Cloud, architecture: str) -> None:
    answer = cloud.predict(HUB_MODEL, architecture, {"inputs": ["a"], "parameters": {"max_new_tokens": 0}})
    assert answer.status == 422, answer.text
    assert [fault["field"] for fault in json.loads(answer.body)["errors"]] == ["parameters.max_new_tokens"]


def test_the_lock_holds_the_commit_and_no_address(cloud: Cloud) -> None:
    text = (cloud.project / "deployments" / f"{HUB_MODEL}.lock.json").read_text()
    model = json.loads(text)["model"]
    assert model["revision"] == model["origin"]["commit"]
    assert len(model["revision"]) == 40
    assert "http://" not in text
