"""The function in front of SageMaker: what it asks of the endpoint, and what its callers get to see."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)
from lambda_.loading import VARIABLES, load_handler

from modelstacks.core.contract import PREDICTIVE_ROUTES, Route


@pytest.fixture(scope="module")
def handler() -> ModuleType:
    return load_handler(VARIABLES)


class FakeRuntime:
    """sagemaker-runtime in memory: keeps the requests, plays back answers or errors in their order."""

    def __init__(self, *plays: Any) -> None:
        self.plays = list(plays)
        self.requests: list[dict[str, Any]] = []

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        play = self.plays.pop(0) if self.plays else {}
        if isinstance(play, Exception):
            raise play
        return {"ContentType": "application/json", **play, "Body": io.BytesIO(play.get("Body", b"{}"))}


def event(
    method: str = "POST",
    resource: str = "/invocations",
    body: bytes = b"[[1,2]]",
    *,
    parameters: dict[str, str] | None = None,
    **headers: str,
) -> dict[str, Any]:
    """An API Gateway proxy event of a custom domain; header names are written with underscores."""
    return {
        "httpMethod": method,
        "resource": resource,
        "path": f"/base-path-of-a-custom-domain{resource}",
        "pathParameters": parameters,
        "headers": {name.replace("_", "-"): value for name, value in headers.items()},
        "requestContext": {
            "requestId": "gateway-id",
            "domainName": "models.example.com",
            "path": f"/base-path-of-a-custom-domain{resource}",
        },
        "body": base64.b64encode(body).decode() if body else None,
        "isBase64Encoded": bool(body),
    }


def body(answer: dict[str, Any]) -> bytes:
    assert answer["isBase64Encoded"] is True
    return base64.b64decode(answer["body"])


def refusal(code: str, message: str = "no", **fields: Any) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}, **fields}, "InvokeEndpoint")


@pytest.fixture
def invoke(handler: ModuleType) -> Callable[..., tuple[dict[str, Any], FakeRuntime]]:
    def call(sent: dict[str, Any], *plays: Any) -> tuple[dict[str, Any], FakeRuntime]:
        runtime = FakeRuntime(*plays)
        return handler.Invoker(handler.Environment.read(VARIABLES), runtime)(sent), runtime

    return call


@pytest.mark.parametrize("route", PREDICTIVE_ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_of_the_contract_travels_by_name(invoke: Any, route: Route) -> None:
    path = route.path.replace("{model}", "churn")
    sent = b"x" if route.method == "POST" else b""
    answer, runtime = invoke(event(route.method, route.path, sent, parameters={"model": "churn"}))
    assert answer["statusCode"] == 200
    [request] = runtime.requests
    assert request["EndpointName"] == "churn-managed"
    first, *others = request["CustomAttributes"].split(";")
    assert first == f"modelstacks-route={route.method} {path}"
    assert {name for name, _ in route.context} <= {other.partition("=")[0] for other in others}


def test_a_body_arrives_byte_for_byte_with_its_content_type_and_accept(invoke: Any) -> None:
    raw = bytes(range(256))
    _, runtime = invoke(event(body=raw, Content_Type="application/x-npy", Accept="text/csv"))
    [request] = runtime.requests
    assert (request["Body"], request["ContentType"], request["Accept"]) == (
        raw,
        "application/x-npy",
        "text/csv",
    )


def test_a_body_that_came_as_text_is_sent_as_utf_8(invoke: Any) -> None:
    sent = {**event(), "body": '{"a":"ä"}', "isBase64Encoded": False}
    _, runtime = invoke(sent)
    assert runtime.requests[0]["Body"] == '{"a":"ä"}'.encode()


def test_binary_tensors_keep_their_header_length_both_ways(invoke: Any) -> None:
    played = {"CustomAttributes": "request-id=r1;inference-header-content-length=42", "Body": b"\x00\x01"}
    answer, runtime = invoke(event(Inference_Header_Content_Length="99"), played)
    assert "inference-header-content-length=99" in runtime.requests[0]["CustomAttributes"].split(";")
    assert answer["headers"]["Inference-Header-Content-Length"] == "42"
    assert body(answer) == b"\x00\x01"


def test_a_path_cannot_smuggle_an_attribute_in(invoke: Any) -> None:
    _, runtime = invoke(event("GET", "/v2/models/a;modelstacks-route=GET /metrics", b""))
    attributes = runtime.requests[0]["CustomAttributes"].split(";")
    assert attributes[0] == "modelstacks-route=GET /v2/models/a%3Bmodelstacks-route%3DGET%20/metrics"
    assert attributes[1:] == ["request-id=gateway-id", "modelstacks-body=none"]


def test_the_callers_request_id_goes_along_and_comes_back(invoke: Any) -> None:
    answer, runtime = invoke(event(x_request_id="mine-1"))
    assert "request-id=mine-1" in runtime.requests[0]["CustomAttributes"].split(";")
    assert answer["headers"]["X-Request-Id"] == "mine-1"


@pytest.mark.parametrize("odd", ["a;b=c", "a b", "a\nb", "", "x" * 129])
def test_an_odd_request_id_is_replaced_by_api_gateways(invoke: Any, odd: str) -> None:
    answer, _ = invoke(event(X_Request_Id=odd))
    assert answer["headers"]["X-Request-Id"] == "gateway-id"


def test_an_event_without_headers_is_served(invoke: Any) -> None:
    answer, runtime = invoke({**event("GET", "/ping", b""), "headers": None})
    assert answer["statusCode"] == 200
    assert runtime.requests[0]["Body"] == b"{}"
    assert "Accept" not in runtime.requests[0]


def test_the_model_servers_error_passes_as_it_is(invoke: Any) -> None:
    problem = json.dumps({"title": "Unprocessable Content", "status": 422, "errors": [{"row": 3}]})
    answer, _ = invoke(event(), refusal("ModelError", OriginalStatusCode=422, OriginalMessage=problem))
    assert answer["statusCode"] == 422
    assert answer["headers"]["Content-Type"] == "application/problem+json"
    assert body(answer) == problem.encode()


def test_an_error_of_the_model_server_that_is_not_json_stays_text(invoke: Any) -> None:
    answer, _ = invoke(event(), refusal("ModelError", OriginalStatusCode=500, OriginalMessage="Killed"))
    assert answer["statusCode"] == 500
    assert answer["headers"]["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("play", "status", "retry"),
    [
        (refusal("ThrottlingException"), 429, True),
        (refusal("ModelNotReadyException"), 503, True),
        (refusal("ServiceUnavailable"), 503, True),
        (refusal("ModelError", OriginalStatusCode=429, OriginalMessage="{}"), 429, True),
        (refusal("ModelError", OriginalStatusCode=503, OriginalMessage="{}"), 503, True),
        (refusal("ValidationError", "Endpoint churn-managed not found"), 502, False),
        (refusal("AccessDeniedException"), 502, False),
        (refusal("ModelError"), 502, False),
        (ReadTimeoutError(endpoint_url="x"), 504, False),
        (ConnectTimeoutError(endpoint_url="x"), 504, False),
        (EndpointConnectionError(endpoint_url="x"), 503, True),
    ],
)
def test_what_goes_wrong_on_the_way_has_a_status_of_its_own(
    invoke: Any, play: Exception, status: int, retry: bool
) -> None:
    answer, _ = invoke(event(), play)
    assert answer["statusCode"] == status
    assert ("Retry-After" in answer["headers"]) is retry


def test_a_problem_of_the_functions_own_is_problem_json_with_the_request_id(invoke: Any) -> None:
    answer, _ = invoke(event(), refusal("ValidationError", "Endpoint churn-managed of account 1 not found"))
    assert answer["headers"]["Content-Type"] == "application/problem+json"
    document = json.loads(body(answer))
    assert document["status"] == 502
    assert document["instance"] == "gateway-id"
    assert "account" not in document["detail"]  # the endpoint's whereabouts are the log's business


def test_a_body_over_the_limit_is_413_and_never_sent(invoke: Any) -> None:
    answer, runtime = invoke(event(body=b"x" * 1001))
    assert answer["statusCode"] == 413
    assert json.loads(body(answer))["detail"] == "the body is larger than 1000 bytes; send fewer rows at once"
    assert runtime.requests == []


def test_a_body_at_the_limit_is_sent(invoke: Any) -> None:
    answer, _ = invoke(event(body=b"x" * 1000))
    assert answer["statusCode"] == 200


def test_an_answer_larger_than_lambda_can_return_is_refused_with_the_cure(invoke: Any) -> None:
    answer, _ = invoke(event(), {"Body": b"x" * (5 * 1024 * 1024)})
    assert answer["statusCode"] == 422
    assert "fewer rows" in json.loads(body(answer))["detail"]


def test_a_connection_that_died_in_its_sleep_is_replaced_once(invoke: Any) -> None:
    answer, runtime = invoke(event(), ConnectionClosedError(endpoint_url="x"), {"Body": b"[1]"})
    assert (answer["statusCode"], body(answer), len(runtime.requests)) == (200, b"[1]", 2)


def test_a_second_broken_connection_is_told(invoke: Any) -> None:
    broken = ConnectionClosedError(endpoint_url="x")
    answer, runtime = invoke(event(), broken, broken)
    assert (answer["statusCode"], len(runtime.requests)) == (502, 2)


def test_a_cold_start_names_every_variable_that_is_wrong() -> None:
    with pytest.raises(RuntimeError) as caught:
        load_handler({"MAX_BODY_BYTES": "-1"})
    assert str(caught.value) == (
        "ENDPOINT_NAME is not set; READ_TIMEOUT_SECONDS is not set; "
        "MAX_BODY_BYTES is '-1', not a positive whole number"
    )


@contextmanager
def runtime_on_http(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """An HTTP server in place of sagemaker-runtime, for the real botocore client."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer(self)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reply(request: BaseHTTPRequestHandler, status: int, content: bytes, **headers: str) -> None:
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(content))}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(content)


def test_the_real_client_understands_sagemakers_answer() -> None:
    seen: list[tuple[str, str]] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        seen.append((request.path, request.headers["X-Amzn-SageMaker-Custom-Attributes"]))
        reply(
            request,
            200,
            b"[0.5]",
            Content_Type="text/csv",
            X_Amzn_SageMaker_Custom_Attributes="request-id=r2",
        )

    with runtime_on_http(answer) as url:
        got = load_handler({**VARIABLES, "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": url}).handle(event(), None)
    assert seen == [
        ("/endpoints/churn-managed/invocations", "modelstacks-route=POST /invocations;request-id=gateway-id")
    ]
    assert (body(got), got["headers"]) == (b"[0.5]", {"Content-Type": "text/csv", "X-Request-Id": "r2"})


def test_the_real_client_understands_the_model_servers_error() -> None:
    document = {
        "OriginalStatusCode": 422,
        "OriginalMessage": '{"status": 422}',
        "Message": "model returned 422",
    }

    def answer(request: BaseHTTPRequestHandler) -> None:
        reply(
            request,
            424,
            json.dumps(document).encode(),
            x_amzn_ErrorType="ModelError",
            Content_Type="application/json",
        )

    with runtime_on_http(answer) as url:
        got = load_handler({**VARIABLES, "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": url}).handle(event(), None)
    assert (got["statusCode"], body(got)) == (422, b'{"status": 422}')


def test_the_real_client_asks_once_and_gives_up_in_time() -> None:
    asked: list[str] = []
    finished = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        finished.wait(timeout=30)

    with runtime_on_http(answer) as url:
        got = load_handler({**VARIABLES, "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": url}).handle(event(), None)
        finished.set()
    assert got["statusCode"] == 504
    assert len(asked) == 1


def test_a_path_parameter_is_encoded_whether_or_not_api_gateway_decoded_it(invoke: Any) -> None:
    for given in ("a b;c", "a%20b%3Bc"):
        _, runtime = invoke(event("GET", "/v2/models/{model}", b"", parameters={"model": given}))
        [route, *_] = runtime.requests[0]["CustomAttributes"].split(";")
        assert route == "modelstacks-route=GET /v2/models/a%20b%3Bc"


def test_a_get_carries_an_empty_object_since_sagemaker_wants_a_body(invoke: Any) -> None:
    _, runtime = invoke(event("GET", "/ping", b""))
    assert (runtime.requests[0]["Body"], runtime.requests[0]["ContentType"]) == (b"{}", "application/json")


def test_a_compressed_body_is_passed_on_with_its_encoding(invoke: Any) -> None:
    _, runtime = invoke(event(body=b"\x1f\x8b", Content_Encoding="gzip"))
    assert runtime.requests[0]["Body"] == b"\x1f\x8b"
    assert "content-encoding=gzip" in runtime.requests[0]["CustomAttributes"].split(";")


def test_the_description_is_asked_for_with_the_address_that_the_caller_used(invoke: Any) -> None:
    _, runtime = invoke(event("GET", "/openapi.json", b""))
    attributes = runtime.requests[0]["CustomAttributes"].split(";")
    assert "x-api-domain=models.example.com" in attributes
    assert "x-api-path=/base-path-of-a-custom-domain/openapi.json" in attributes


def test_a_callers_own_attributes_go_nowhere(invoke: Any) -> None:
    _, runtime = invoke(event(X_Amzn_SageMaker_Custom_Attributes="modelstacks-route=GET /metrics"))
    assert "/metrics" not in runtime.requests[0]["CustomAttributes"]


def test_the_containers_own_retry_after_is_passed_on(invoke: Any) -> None:
    problem = json.dumps({"title": "Too Many Requests", "status": 429, "retry_after": 7})
    answer, _ = invoke(event(), refusal("ModelError", OriginalStatusCode=429, OriginalMessage=problem))
    assert (answer["statusCode"], answer["headers"]["Retry-After"]) == (429, "7")


def test_under_v2_an_error_has_the_protocols_own_member(invoke: Any) -> None:
    sent = event("POST", "/v2/models/{model}/infer", b"x" * 1001, parameters={"model": "churn"})
    answer, _ = invoke(sent)
    problem = json.loads(body(answer))
    assert problem["error"] == problem["detail"]
