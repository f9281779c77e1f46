"""/openapi.json is true of the deployed API: schemathesis reads it there and asks what it describes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.conftest import ARCHITECTURES, Cloud

pytestmark = pytest.mark.e2e

# The deployments whose callers come with a key, since schemathesis cannot sign, by kind of input.
DEPLOYMENTS = ("churn", "digits")

# What no schema can say: that a text is CSV with the model's columns, bytes are an array of its shape, and a
# tensor's data has as many values as its shape.
SETTINGS = """
[[operations]]
include-method = "POST"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "422"]
"""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_every_answer_is_as_described(
    cloud: Cloud, deployment: str, architecture: str, tmp_path: Path
) -> None:
    api = cloud.api(deployment, architecture)
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    # The address comes from the document's `servers`, the name of the header from its security scheme.
    asked = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis", "--config-file", "schemathesis.toml", "run",
            f"{api.url}/openapi.json", "--header", f"x-api-key: {api.api_keys[0].value}",
            "--seed", "7", "--max-examples", "25", "--generation-database", "none", "--no-color",
            "--rate-limit", "50/s",  # the API's own throttle, 100 a second, is no fault of an answer
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stdout[-8000:] + asked.stderr[-2000:]
    assert "8 selected / 8 total" in asked.stdout


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("deployment", "scheme"),
    [("churn", {"type": "apiKey", "in": "header", "name": "x-api-key"}), ("breast-cancer", "awsSigv4")],
    ids=["key", "signature"],
)
def test_it_says_how_callers_identify_themselves_and_names_no_inner_route(
    cloud: Cloud, deployment: str, scheme: object, architecture: str
) -> None:
    document = json.loads(cloud.call(deployment, architecture, "GET", "/openapi.json").body)
    (found,) = document["components"]["securitySchemes"].values()
    assert scheme in (found, found.get("x-amazon-apigateway-authtype"))
    assert [list(one) for one in document["security"]] == [list(document["components"]["securitySchemes"])]
    assert "/metrics" not in document["paths"]
    for path in document["paths"].values():
        for operation in path.values():
            assert {"200", "400", "403", "413", "429", "503", "504"} <= operation["responses"].keys()
