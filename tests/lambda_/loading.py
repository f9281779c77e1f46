"""Loads the function's handler as Lambda does: by its path, with its environment."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

HANDLER = Path(__file__).parents[2] / "lambda" / "invoke" / "handler.py"
VARIABLES = {"ENDPOINT_NAME": "churn-managed", "MAX_BODY_BYTES": "1000", "READ_TIMEOUT_SECONDS": "1"}


def load_handler(environment: dict[str, str]) -> ModuleType:
    """The module, cold started with `environment` beside what Lambda itself sets."""
    lambdas_own = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in {**lambdas_own, "AWS_DEFAULT_REGION": "eu-west-1", **environment}.items():
            patch.setenv(name, value)
        spec = importlib.util.spec_from_file_location("invoke_handler", HANDLER)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(__import__("sys").modules, "invoke_handler", module)  # dataclasses look themselves up
        spec.loader.exec_module(module)
    return module
