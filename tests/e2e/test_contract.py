"""One HTTP contract, whatever stands behind it: the same routes, errors and limits in both architectures."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.http as triton
from e2e.conftest import ARCHITECTURES, Cloud
from e2e.holdout import holdout, numbers

from modelstacks.core.contract import PREDICTIVE_ROUTES

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.parametrize("architecture", ARCHITECTURES),
]

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "path", [route.path.replace("{model}", "churn") for route in PREDICTIVE_ROUTES if route.method == "GET"]
)
def test_every_get_route_answers(cloud: Cloud, architecture: str, path: str) -> None:
    answer = cloud.call("churn", architecture, "GET", path)
    assert answer.status == 200, answer.text


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_a_triton_client_works_unchanged(cloud: Cloud, architecture: str, binary: bool) -> None:
    held_out = holdout("churn")
    api = cloud.api("churn", architecture)
    rows = np.array(held_out.body["instances"], dtype=np.float32)
    tensor = triton.InferInput("input", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    with triton.InferenceServerClient(api.url.removeprefix("http://")) as server:
        key = {"x-api-key": api.api_keys[0].value}
        assert server.is_model_ready("churn", headers=key)
        (output,) = server.get_model_metadata("churn", headers=key)["outputs"]
        wanted = [triton.InferRequestedOutput(output["name"], binary_data=binary)]
        result = server.infer("churn", [tensor], outputs=wanted, headers=key)
    answer = result.as_numpy(output["name"])
    np.testing.assert_allclose(answer.ravel(), numbers(held_out.predictions), rtol=1e-5, atol=1e-5)


def test_the_openapi_document_names_the_models_columns(cloud: Cloud, architecture: str) -> None:
    document = json.loads(cloud.call("churn", architecture, "GET", "/openapi.json").body)
    assert document["openapi"].startswith("3.")
    assert "mean_radius" in json.dumps(document)


def test_a_bad_row_is_refused_by_its_number(cloud: Cloud, architecture: str) -> None:
    rows = [*holdout("churn").body["instances"][:2], [1.0, 2.0]]
    answer = cloud.predict("churn", architecture, {"instances": rows})
    problem = json.loads(answer.body)
    assert answer.status == problem["status"] in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["errors"][0]["row"] == 2
    assert problem["instance"]


def test_an_unknown_model_is_not_found(cloud: Cloud, architecture: str) -> None:
    answer = cloud.call("churn", architecture, "GET", "/v2/models/nobody")
    assert answer.status == 404, answer.text


def test_a_body_above_the_servers_limit_is_too_large(cloud: Cloud, architecture: str) -> None:
    answer = cloud.call("digits", architecture, "POST", "/invocations", body=b"1" * 1_100_000, headers=JSON)
    assert answer.status == 413, answer.text


def test_a_callers_request_id_comes_back(cloud: Cloud, architecture: str) -> None:
    answer = cloud.call("churn", architecture, "GET", "/ping", headers={"x-request-id": "order-66"})
    assert answer.headers["x-request-id"] == "order-66"


def test_a_post_without_a_content_type_is_refused_by_the_api(cloud: Cloud, architecture: str) -> None:
    answer = cloud.call("churn", architecture, "POST", "/invocations", body=b"{}")
    problem = json.loads(answer.body)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["detail"] == "Missing required request parameters: [Content-Type]"
    assert problem["instance"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "key", "message"),
    [
        ("GET", "/live/ping", None, "no valid API key in the header x-api-key"),
        ("GET", "/live/ping", "nobody's", "no valid API key in the header x-api-key"),
        ("GET", "/live/nowhere", "right", "no such route"),
        ("GET", "/live/metrics", "right", "no such route"),
        ("DELETE", "/live/ping", "right", "no such route"),
        ("GET", "/prod/ping", "right", "Forbidden"),
    ],
    ids=["no key", "wrong key", "unknown route", "metrics stay inside", "unknown method", "unknown stage"],
)
def test_what_aws_refuses_is_refused_as_aws_does(
    cloud: Cloud, architecture: str, method: str, path: str, key: str | None, message: str
) -> None:
    api = cloud.api("churn", architecture)
    headers = {} if key is None else {"x-api-key": api.api_keys[0].value if key == "right" else key}
    url = urlsplit(api.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    assert answer.status == 403
    # Where there is no stage there is nothing of the API's that could give the answer its form.
    assert body == {"message": message} if path.startswith("/prod") else body["detail"] == message
    connection.close()


def test_an_unsigned_request_is_refused_where_callers_must_sign(cloud: Cloud, architecture: str) -> None:
    url = urlsplit(cloud.api("breast-cancer", architecture).url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
    connection.request("GET", f"{url.path}/ping")
    answer = connection.getresponse()
    assert answer.status == 403
    assert json.loads(answer.read())["detail"] == "no such route, or the request is not signed"
    connection.close()
