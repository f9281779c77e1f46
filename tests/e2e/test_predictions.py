"""What comes back over HTTP, from both architectures, is what the trainer predicted."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from e2e.conftest import ARCHITECTURES, EXAMPLES, Cloud
from e2e.holdout import holdout, numbers, words

pytestmark = pytest.mark.e2e

TOLERANCE = 1e-5
TABULAR = [name for name in EXAMPLES if (holdout(name).folder / "holdout.npy").is_file()]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("deployment", EXAMPLES)
def test_answers_as_its_trainer_did(cloud: Cloud, deployment: str, architecture: str) -> None:
    held_out = holdout(deployment)
    answer = cloud.predict(deployment, architecture, held_out.body)
    assert answer.status == 200, answer.text
    predictions = json.loads(answer.body)["predictions"]
    assert len(predictions) == len(held_out.predictions)
    np.testing.assert_allclose(
        numbers(predictions), numbers(held_out.predictions), rtol=TOLERANCE, atol=TOLERANCE
    )
    assert words(predictions) == words(held_out.predictions)


@pytest.mark.parametrize("deployment", EXAMPLES)
def test_both_architectures_send_the_same_bytes(cloud: Cloud, deployment: str) -> None:
    body = holdout(deployment).body
    first, second = (cloud.predict(deployment, architecture, body) for architecture in ARCHITECTURES)
    assert first.status == second.status == 200
    assert first.body == second.body
    assert first.headers["content-type"] == second.headers["content-type"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("deployment", TABULAR)
def test_takes_csv_and_answers_csv(cloud: Cloud, deployment: str, architecture: str) -> None:
    held_out = holdout(deployment)
    answer = cloud.call(
        deployment,
        architecture,
        "POST",
        "/invocations",
        body=(held_out.folder / "holdout.csv").read_bytes(),
        headers={"content-type": "text/csv"},
    )
    assert answer.status == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    cells = [float(cell) for line in answer.text.split() for cell in line.split(",")]
    np.testing.assert_allclose(cells, numbers(held_out.predictions), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("deployment", TABULAR)
def test_takes_npy_and_answers_npy(cloud: Cloud, deployment: str, architecture: str) -> None:
    held_out = holdout(deployment)
    answer = cloud.call(
        deployment,
        architecture,
        "POST",
        "/invocations",
        body=(held_out.folder / "holdout.npy").read_bytes(),
        headers={"content-type": "application/x-npy", "accept": "application/x-npy"},
    )
    assert answer.status == 200, answer.text
    assert answer.headers["content-type"] == "application/x-npy"
    predictions = np.load(io.BytesIO(answer.body))
    np.testing.assert_allclose(
        predictions.ravel(), numbers(held_out.predictions), rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_takes_an_image_as_it_is(cloud: Cloud, architecture: str) -> None:
    held_out = holdout("digits")
    answer = cloud.call(
        "digits",
        architecture,
        "POST",
        "/invocations",
        body=(held_out.folder / "holdout.png").read_bytes(),
        headers={"content-type": "application/octet-stream"},
    )
    assert answer.status == 200, answer.text
    (prediction,) = json.loads(answer.body)["predictions"]
    np.testing.assert_allclose(prediction, held_out.predictions[0], rtol=1e-3, atol=1e-3)
