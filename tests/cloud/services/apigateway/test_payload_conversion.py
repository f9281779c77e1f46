"""An integration's contentHandling converts the body between binary and base64 text."""

from __future__ import annotations

import base64

import pytest

from modelstacks.cloud.host.wire import Request
from modelstacks.cloud.services.apigateway.call import Call, payload
from modelstacks.cloud.services.apigateway.gateway_responses import GatewayError
from modelstacks.cloud.services.apigateway.snapshot import Integration, Method, Resource, RestApi, Stage

RAW = b"\x00\x01\xff"
TEXT = base64.b64encode(RAW)
API = RestApi("a", "api", ("application/octet-stream",), {}, None, (), {})


def converted(kind: str, body: bytes, handling: str) -> tuple[bytes, bool]:
    integration = Integration("HTTP_PROXY", "POST", "http://lb", "", "", "", {}, 29000, False, "", handling)
    method = Method("POST", "NONE", False, None, (), {}, integration)
    request = Request("POST", "/live/x", headers=[("content-type", kind)], body=body)
    call = Call(
        API, Stage("live", "d", {}, {}), Resource("r", "/x", {}), method, "/x", {}, request, "", "", ""
    )
    return payload(call, integration)


@pytest.mark.parametrize(
    ("kind", "body", "handling", "expected"),
    [
        ("application/octet-stream", RAW, "", (RAW, True)),
        ("application/octet-stream", RAW, "CONVERT_TO_TEXT", (TEXT, False)),
        ("application/octet-stream", RAW, "CONVERT_TO_BINARY", (RAW, True)),
        ("application/json", b"{}", "", (b"{}", False)),
        ("application/json", b"{}", "CONVERT_TO_TEXT", (b"{}", False)),
        ("text/plain", TEXT, "CONVERT_TO_BINARY", (RAW, True)),
        ("text/plain", b"", "CONVERT_TO_BINARY", (b"", False)),
    ],
)
def test_the_body_is_converted_as_the_integration_says(
    kind: str, body: bytes, handling: str, expected: tuple[bytes, bool]
) -> None:
    assert converted(kind, body, handling) == expected


def test_a_text_that_is_not_base64_cannot_become_binary() -> None:
    with pytest.raises(GatewayError) as refused:
        converted("text/plain", b"no base64!", "CONVERT_TO_BINARY")
    assert refused.value.status == 400
    assert "is not base64" in refused.value.reason
