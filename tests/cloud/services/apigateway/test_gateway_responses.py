"""API Gateway's own answers, in its words or in the form that the API deployed."""

from __future__ import annotations

import json

import pytest

from modelstacks.cloud.host.wire import Response
from modelstacks.cloud.services.apigateway.gateway_responses import GatewayError, answer
from modelstacks.cloud.services.apigateway.snapshot import GatewayResponse

THROTTLED = GatewayError(429, "TooManyRequestsException", 'Too "many" Requests')
PROBLEM = (
    '{"title":"$context.error.responseType","detail":$context.error.messageString,"id":"$context.requestId"}'
)
TYPED = GatewayResponse(
    None,
    {
        "gatewayresponse.header.Content-Type": "'application/problem+json'",
        "gatewayresponse.header.X-Request-Id": "context.requestId",
    },
    {"application/json": PROBLEM},
)


def header(response: Response, name: str) -> str | None:
    return next((value for key, value in response.headers if key.lower() == name), None)


def test_without_a_gateway_response_the_words_are_awss() -> None:
    response = answer(THROTTLED, {}, [("x-amzn-RequestId", "r")], "r")
    assert response.status == 429
    assert json.loads(response.body) == {"message": 'Too "many" Requests'}
    assert header(response, "x-amzn-requestid") == "r"
    assert header(response, "x-amzn-errortype") == "TooManyRequestsException"


@pytest.mark.parametrize("deployed_for", ["THROTTLED", "DEFAULT_4XX"])
def test_a_gateway_response_gives_the_answer_its_form(deployed_for: str) -> None:
    response = answer(THROTTLED, {deployed_for: TYPED}, [], "r-1")
    assert response.status == 429
    assert header(response, "content-type") == "application/problem+json"
    assert header(response, "x-request-id") == "r-1"
    assert json.loads(response.body) == {"title": "THROTTLED", "detail": 'Too "many" Requests', "id": "r-1"}


def test_the_special_response_comes_before_the_default() -> None:
    special = GatewayResponse(503, {}, {"application/json": '{"special": true}'})
    response = answer(THROTTLED, {"DEFAULT_4XX": TYPED, "THROTTLED": special}, [], "r")
    assert (response.status, json.loads(response.body)) == (503, {"special": True})


def test_a_throttled_function_is_500_until_the_api_says_otherwise() -> None:
    throttled = GatewayError(
        500,
        "InternalServerErrorException",
        "Internal server error",
        "the function is throttled",
        response_type="INTEGRATION_FAILURE",
    )
    overload = GatewayResponse(429, {"gatewayresponse.header.Retry-After": "'1'"}, {"application/json": "{}"})
    unnumbered = GatewayResponse(None, {}, {"application/json": "{}"})
    assert answer(throttled, {}, [], "r").status == 500
    assert answer(throttled, {"DEFAULT_5XX": unnumbered}, [], "r").status == 500
    assert answer(throttled, {"INTEGRATION_FAILURE": unnumbered}, [], "r").status == 504
    chosen = answer(throttled, {"INTEGRATION_FAILURE": overload}, [], "r")
    assert (chosen.status, header(chosen, "retry-after")) == (429, "1")
    assert header(chosen, "x-modelstacks-reason") == "the function is throttled"


def test_a_callers_fault_has_awss_body_and_its_reason_in_a_header() -> None:
    response = answer(GatewayError(403, "ForbiddenException", "Forbidden", "no x-api-key"), {}, [], "r")
    assert json.loads(response.body) == {"message": "Forbidden"}
    assert header(response, "x-modelstacks-reason") == "no x-api-key"


def test_the_default_for_callers_faults_is_not_used_for_the_apis_own() -> None:
    failed = GatewayError(500, "InternalServerErrorException", "Internal server error", "no integration")
    response = answer(failed, {"DEFAULT_4XX": TYPED}, [], "r")
    assert json.loads(response.body) == {"message": "Internal server error", "reason": "no integration"}
    assert header(response, "x-modelstacks-reason") == "no integration"
