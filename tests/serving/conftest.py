"""Servers that several tests share, one for each engine's artifact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.model_server import ARTIFACTS, ModelServer


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model-server")


@pytest.fixture(scope="session")
def churn(logs: Path) -> Iterator[ModelServer]:
    """XGBoost: 30 named columns of FP32, NaN allowed."""
    with ModelServer.start(ARTIFACTS / "churn-xgboost", logs, model_name="churn") as server:
        yield server


@pytest.fixture(scope="session")
def digits(logs: Path) -> Iterator[ModelServer]:
    """ONNX: 64 pixels of FP32, an image format, two outputs."""
    with ModelServer.start(ARTIFACTS / "digits-onnx", logs, model_name="digits") as server:
        yield server


@pytest.fixture(scope="session")
def diabetes(logs: Path) -> Iterator[ModelServer]:
    """scikit-learn: 10 named columns of FP64, no NaN."""
    with ModelServer.start(ARTIFACTS / "diabetes-sklearn", logs, model_name="diabetes") as server:
        yield server


@pytest.fixture
def start(logs: Path) -> Iterator[Callable[..., ModelServer]]:
    """Starts servers of a test's own; each is stopped after it."""
    started: list[ModelServer] = []

    def starter(directory: Path, **options: Any) -> ModelServer:
        server = ModelServer.start(directory, logs, **options)
        started.append(server)
        return server

    yield starter
    for server in started:
        with server:
            pass
