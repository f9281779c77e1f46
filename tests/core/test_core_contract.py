"""The numbers of the contract: what the services in front of a model server carry."""

from __future__ import annotations

import base64
import json

from modelstacks.core.contract import API_PAYLOAD, LAMBDA_BODY, LAMBDA_PAYLOAD, answer_bytes


def test_the_largest_body_for_a_function_leaves_room_for_everything_else_in_its_event() -> None:
    value = "\u0080" * 5_000  # ten thousand bytes as they are sent, which is all that API Gateway takes
    request = {"x-odd": value}
    event = {
        "resource": "/invocations",
        "headers": request,
        "multiValueHeaders": {name: [text] for name, text in request.items()},
        "requestContext": {"identity": {"userAgent": None}, "requestId": "0" * 2_000},
        "body": base64.b64encode(bytes(LAMBDA_BODY)).decode(),
        "isBase64Encoded": True,
    }
    assert len(json.dumps(event)) <= LAMBDA_PAYLOAD


def test_answers_are_bounded_alike_wherever_both_architectures_take_the_requests() -> None:
    assert answer_bytes(4_194_304) == answer_bytes(LAMBDA_BODY) == LAMBDA_BODY
    assert answer_bytes(LAMBDA_BODY + 1) == API_PAYLOAD
