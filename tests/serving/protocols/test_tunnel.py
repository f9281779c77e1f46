"""Every route through POST /invocations, as SageMaker forwards it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from support.model_server import ARTIFACTS, ModelServer, predictions

ROWS = np.load(ARTIFACTS / "digits-onnx" / "holdout.npy").astype(np.float32)
HEADER = "X-Amzn-SageMaker-Custom-Attributes"


@pytest.fixture(scope="module")
def behind(logs: Path) -> Iterator[ModelServer]:
    """The digits' server with SageMaker in front of it."""
    with ModelServer.start(ARTIFACTS / "digits-onnx", logs, model_name="digits", tunnel=True) as server:
        yield server


def tunnel(
    server: ModelServer, attributes: str, content: bytes = b"", content_type: str = "application/json"
) -> httpx.Response:
    return httpx.post(
        f"{server.url}/invocations",
        content=content,
        headers={HEADER: attributes, "content-type": content_type},
    )


@pytest.mark.parametrize(
    "path", ["/ping", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/digits", "/openapi.json"]
)
def test_a_get_route_answers_as_it_does_without_the_tunnel(behind: ModelServer, path: str) -> None:
    direct = httpx.get(f"{behind.url}{path}")
    through = tunnel(behind, f"modelstacks-route=GET {path}; request-id=call-7")
    assert (through.status_code, through.content) == (direct.status_code, direct.content)
    assert through.headers["x-request-id"] == "call-7"
    assert through.headers[HEADER] == "request-id=call-7"


def test_binary_tensors_go_through_both_ways(behind: ModelServer) -> None:
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "X",
                    "shape": list(ROWS.shape),
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": ROWS.nbytes},
                }
            ],
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
        }
    ).encode()
    answer = tunnel(
        behind,
        f"modelstacks-route=POST /v2/models/digits/infer;inference-header-content-length={len(head)}",
        head + ROWS.tobytes(),
        "application/octet-stream",
    )
    assert answer.status_code == 200, answer.text
    attributes = dict(part.split("=") for part in answer.headers[HEADER].split(";"))
    size = int(attributes["inference-header-content-length"])
    [output] = json.loads(answer.content[:size])["outputs"]
    got = np.frombuffer(answer.content[size:], np.float32).reshape(output["shape"])
    np.testing.assert_allclose(got, predictions("digits-onnx"), rtol=1e-5, atol=1e-8)


def test_an_error_keeps_its_status(behind: ModelServer) -> None:
    answer = tunnel(behind, "modelstacks-route=POST /v2/models/digits/infer", b"{")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers[HEADER].startswith("request-id=")


@pytest.mark.parametrize(
    "route",
    ["GET /metrics", "GET /%6detrics", "HEAD /ping", "DELETE /ping", "GET ping", "GET", "", "GET /nothing"],
)
def test_a_route_that_is_not_the_apis_is_404(behind: ModelServer, route: str) -> None:
    assert tunnel(behind, f"modelstacks-route={route}").status_code == 404


def test_a_tunnel_to_invocations_is_invocations_once(behind: ModelServer) -> None:
    body = json.dumps({"instances": ROWS[:1].tolist()}).encode()
    answer = tunnel(behind, "modelstacks-route=POST /invocations", body)
    assert answer.status_code == 200
    assert len(answer.json()["predictions"]) == 1


def test_attributes_of_the_callers_own_are_left_alone(behind: ModelServer) -> None:
    body = json.dumps({"instances": ROWS[:1].tolist()}).encode()
    answer = tunnel(behind, "trace=abc; anything at all", body)
    assert answer.status_code == 200
    assert HEADER not in answer.headers


def test_compressed_bodies_go_through(behind: ModelServer) -> None:
    body = gzip.compress(json.dumps({"instances": ROWS[:1].tolist()}).encode())
    answer = tunnel(behind, "modelstacks-route=POST /invocations;content-encoding=gzip", body)
    assert answer.status_code == 200, answer.text


def test_a_problem_says_when_to_try_again_where_no_header_gets_through(behind: ModelServer) -> None:
    answer = tunnel(behind, "modelstacks-route=POST /v2/models/digits/infer", b"{")
    assert answer.json()["error"] == answer.json()["detail"]


@pytest.mark.parametrize("route", ["GET /v2", "GET /metrics", "GET /nothing"])
def test_without_sagemaker_in_front_the_header_chooses_nothing(digits: ModelServer, route: str) -> None:
    body = json.dumps({"instances": ROWS[:1].tolist()}).encode()
    answer = tunnel(digits, f"modelstacks-route={route};request-id=mine", body)
    assert answer.status_code == 200
    assert len(answer.json()["predictions"]) == 1
    assert answer.headers["x-request-id"] != "mine"
    assert HEADER not in answer.headers
