"""/openapi.json is true: schemathesis asks what it describes, and more, and every answer is as it says."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.model_server import ARTIFACTS, ModelServer

OPERATIONS = [
    ("GET", "/ping"),
    ("GET", "/v2"),
    ("GET", "/v2/health/ready"),
    ("GET", "/v2/models/churn"),
    ("GET", "/openapi.json"),
    ("POST", "/invocations"),
    ("POST", "/v2/models/churn/infer"),
]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_as_described(churn: ModelServer, method: str, path: str) -> None:
    api = schemathesis.openapi.from_url(f"{churn.url}/openapi.json")
    statuses = set()

    @settings(
        max_examples=60 if method == "POST" else 3, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=api[path][method].as_strategy())
    def ask(case: schemathesis.Case) -> None:
        answer = case.call()
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    ask()
    assert 200 in statuses or path.endswith("/infer")  # no schema can tie the data to the shape


def test_the_schema_names_the_models_columns(churn: ModelServer) -> None:
    body = httpx.get(f"{churn.url}/openapi.json").json()
    text = str(body["components"]["schemas"]["Invocation"])
    assert "mean_radius" in text
    assert "/v2/models/churn/infer" in body["paths"]
    assert body["openapi"] == "3.1.0"


def test_images_are_named_only_where_they_are_taken(churn: ModelServer, digits: ModelServer) -> None:
    def media(server: ModelServer) -> set[str]:
        paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
        return set(paths["/invocations"]["post"]["requestBody"]["content"])

    assert "image/png" in media(digits)
    assert "image/png" not in media(churn)
    assert {"application/json", "text/csv", "application/x-npy", "application/x-npz"} <= media(churn)


@pytest.mark.parametrize(
    ("domain", "path", "servers"),
    [
        ("abc.execute-api.eu-west-1.amazonaws.com", "/live/openapi.json", ["https://abc.execute-api.eu-west-1.amazonaws.com/live"]),
        ("models.example.com", "/openapi.json", ["https://models.example.com"]),
        ("127.0.0.1:4000", "/live/openapi.json", ["http://127.0.0.1:4000/live"]),
        ("evil.example/x?", "/live/openapi.json", []),
        ("models.example.com", "/live/<script>/openapi.json", []),
        ("", "", []),
    ],
)  # fmt: skip
def test_the_address_is_the_one_that_the_api_in_front_names(
    churn: ModelServer, domain: str, path: str, servers: list[str]
) -> None:
    headers = {"x-api-domain": domain, "x-api-path": path}
    body = httpx.get(f"{churn.url}/openapi.json", headers=headers).json()
    assert [one["url"] for one in body.get("servers", [])] == servers
    assert "/metrics" not in body["paths"]


@pytest.mark.parametrize(("auth", "header"), [("api-key", "x-api-key"), ("iam", "Authorization")])
def test_how_callers_show_who_they_are_is_declared(logs: Path, auth: str, header: str) -> None:
    with ModelServer.start(ARTIFACTS / "churn-xgboost", logs, model_name="churn", api_auth=auth) as server:
        body = httpx.get(f"{server.url}/openapi.json").json()
    assert body["components"]["securitySchemes"][auth]["name"] == header
    assert body["security"] == [{auth: []}]
