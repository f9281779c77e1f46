"""What callers are told when something is wrong, which is the same whatever architecture answers."""

from __future__ import annotations

import gzip
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.http as triton
from e2e.conftest import ARCHITECTURES, Cloud
from e2e.holdout import holdout
from tritonclient.utils import InferenceServerException

from modelstacks.adapters.deployed_api import Answer
from modelstacks.core.contract import CUSTOM_ATTRIBUTES_HEADER, ROUTE_ATTRIBUTE

pytestmark = [pytest.mark.e2e, pytest.mark.parametrize("architecture", ARCHITECTURES)]

JSON = {"content-type": "application/json"}
GZIP = JSON | {"content-encoding": "gzip"}
MEMBERS = {"type", "title", "status", "detail", "instance", "error"}


def problem(answer: Answer) -> dict[str, Any]:
    """The document of a refusal, which has one form, and the headers that go with it."""
    document: dict[str, Any] = json.loads(answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert document.keys() >= MEMBERS, document
    assert document["status"] == answer.status
    assert document["error"] == document["detail"]
    assert document["instance"] == answer.headers["x-request-id"]
    assert str(document.get("retry_after", "")) == answer.headers.get("retry-after", "")
    return document


def post(cloud: Cloud, architecture: str, body: bytes, headers: dict[str, str] = JSON) -> Answer:
    return cloud.call("churn", architecture, "POST", "/invocations", body=body, headers=headers)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"1" * 4_194_305, JSON),
        (b"1" * 5_000_000, JSON),
        (b"1" * 10_485_761, JSON),
        (gzip.compress(bytes(50_000_000)), GZIP),
    ],
    ids=["the server's limit", "more than Lambda takes", "more than API Gateway takes", "a bomb"],
)
def test_a_body_that_is_too_large_gets_one_answer(
    cloud: Cloud, architecture: str, body: bytes, headers: dict[str, str]
) -> None:
    document = problem(post(cloud, architecture, body, headers))
    assert (document["status"], document["title"]) == (413, "Content Too Large")
    assert document["detail"] == "the body is larger than 4194304 bytes; send fewer rows at once"


def test_a_body_at_the_limit_arrives(cloud: Cloud, architecture: str) -> None:
    filler = {f"x-filler-{number}": "\u00e4" * 400 for number in range(10)}  # an event as large as can be
    body = json.dumps(holdout("churn").body).encode()
    answer = post(cloud, architecture, body + b" " * (4_194_304 - len(body)), JSON | filler)
    assert answer.status == 200, answer.text


def test_gzip_is_read_and_other_encodings_are_named(cloud: Cloud, architecture: str) -> None:
    body = json.dumps(holdout("churn").body).encode()
    plain, packed = post(cloud, architecture, body), post(cloud, architecture, gzip.compress(body), GZIP)
    assert (packed.status, packed.body) == (200, plain.body)
    refused = problem(post(cloud, architecture, body, JSON | {"content-encoding": "br, gzip"}))
    assert (refused["status"], refused["detail"]) == (
        415,
        "Content-Encoding is 'br, gzip'; allowed: gzip, identity",
    )


def test_an_empty_body_is_told_so(cloud: Cloud, architecture: str) -> None:
    document = problem(post(cloud, architecture, b""))
    assert (document["status"], document["detail"]) == (400, "the body is empty")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 403), ("DELETE", "/ping", 403), ("GET", "/v2/models/nobody", 404)],
)
def test_what_is_not_there_is_refused_in_the_same_form(
    cloud: Cloud, architecture: str, method: str, path: str, status: int
) -> None:
    assert problem(cloud.call("churn", architecture, method, path))["status"] == status


@pytest.mark.parametrize("path", ["/ping", "/v2/models/churn/ready", "/openapi.json"])
def test_no_key_and_a_wrong_key_are_refused_alike(cloud: Cloud, architecture: str, path: str) -> None:
    for key in ({}, {"x-api-key": "nobody's"}):
        answer = raw(cloud, architecture, "GET", path, key)
        document = problem(answer)
        assert (document["status"], document["title"]) == (403, "Forbidden")
        assert document["detail"] == "no valid API key in the header x-api-key"
        assert "key" in answer.headers["x-modelstacks-reason"]


def raw(
    cloud: Cloud, architecture: str, method: str, target: str, headers: dict[str, str], body: bytes = b""
) -> Answer:
    """A request as it stands: nothing is added to it but what HTTP needs."""
    url = urlsplit(cloud.api("churn", architecture).url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
    try:
        connection.request(method, f"{url.path}{target}", body=body or None, headers=headers)
        answer = connection.getresponse()
        return Answer(
            answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read(), 0.0
        )
    finally:
        connection.close()


@pytest.mark.parametrize("route", ["GET /v2", "GET /metrics", "POST /v2/models/churn/infer"])
def test_a_callers_own_header_names_no_route(cloud: Cloud, architecture: str, route: str) -> None:
    body = json.dumps(holdout("churn").body).encode()
    plain = post(cloud, architecture, body)
    attributes = f"{ROUTE_ATTRIBUTE}={route};request-id=stolen;inference-header-content-length=1"
    answer = post(cloud, architecture, body, JSON | {CUSTOM_ATTRIBUTES_HEADER: attributes})
    assert (answer.status, answer.body) == (200, plain.body)
    assert answer.headers["x-request-id"] != "stolen"


@pytest.mark.parametrize(
    "model", ["churn%2Fready", "..%2F..%2Fping", "churn%3Bmodelstacks-route=GET%20%2Fping", "x" * 2000]
)
def test_a_models_name_is_no_path(cloud: Cloud, architecture: str, model: str) -> None:
    assert problem(cloud.call("churn", architecture, "GET", f"/v2/models/{model}"))["status"] == 404


def test_a_triton_client_reads_our_errors(cloud: Cloud, architecture: str) -> None:
    api = cloud.api("churn", architecture)
    tensor = triton.InferInput("input", [1, 2], "FP32").set_data_from_numpy(np.zeros((1, 2), np.float32))
    with triton.InferenceServerClient(api.url.removeprefix("http://")) as server:
        key = {"x-api-key": api.api_keys[0].value}
        with pytest.raises(InferenceServerException, match=r"must have shape \[-1, 30\]") as refused:
            server.infer("churn", [tensor], headers=key)
        assert refused.value.status() == "422"
        with pytest.raises(InferenceServerException, match="there is no /v2/models/nobody"):
            server.get_model_metadata("nobody", headers=key)
        with pytest.raises(InferenceServerException, match="no valid API key"):
            server.get_model_metadata("churn")


def test_a_triton_client_may_compress(cloud: Cloud, architecture: str) -> None:
    api = cloud.api("churn", architecture)
    rows = np.array(holdout("churn").body["instances"], dtype=np.float32)
    tensor = triton.InferInput("input", list(rows.shape), "FP32").set_data_from_numpy(rows)
    with triton.InferenceServerClient(api.url.removeprefix("http://")) as server:
        key = {"x-api-key": api.api_keys[0].value}
        plain = server.infer("churn", [tensor], headers=key)
        packed = server.infer("churn", [tensor], headers=key, request_compression_algorithm="gzip")
    name = plain.get_response()["outputs"][0]["name"]
    np.testing.assert_array_equal(plain.as_numpy(name), packed.as_numpy(name))


def test_the_description_names_the_address_that_its_reader_used(cloud: Cloud, architecture: str) -> None:
    document = json.loads(cloud.call("churn", architecture, "GET", "/openapi.json").body)
    assert document["servers"] == [{"url": cloud.api("churn", architecture).url}]
