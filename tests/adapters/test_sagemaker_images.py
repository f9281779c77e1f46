"""AWS's own images, from the tables that the SageMaker SDK carries: no network, nothing that does not fit."""

from __future__ import annotations

import socket

import pytest

from modelstacks.adapters.sagemaker_images import SageMakerImages


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the tables need no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_an_image_of_the_same_minor_version_is_found_in_every_region() -> None:
    found = SageMakerImages().serving_images("xgboost", "3.2.0")
    assert found["eu-west-1"] == "141502667606.dkr.ecr.eu-west-1.amazonaws.com/sagemaker-xgboost:3.2-0"
    assert {"us-east-1", "eu-central-1", "ap-southeast-2"} <= set(found)
    assert list(found) == sorted(found)
    assert found == SageMakerImages().serving_images("xgboost", "3.2.9")


@pytest.mark.parametrize(
    ("framework", "version"),
    [("xgboost", "99.0.0"), ("lightgbm", "4.7.0"), ("onnxruntime", "1.31.1"), ("scikit-learn", "0.1")],
)
def test_where_aws_has_none_there_is_none(framework: str, version: str) -> None:
    assert SageMakerImages().serving_images(framework, version) == {}


def test_a_hugging_face_image_is_the_one_for_cpus() -> None:
    found = SageMakerImages().serving_images("transformers", "5.5.3")
    assert "huggingface-pytorch-inference" in found["eu-west-1"]
    assert "-cpu-" in found["eu-west-1"]
