"""Answers that API Gateway collects before it passes them on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from modelstacks.cloud.host.wire import ConnectionLost, Response
from modelstacks.cloud.services.apigateway.call import BODY_LIMIT
from modelstacks.cloud.services.apigateway.gateway_responses import GatewayError
from modelstacks.cloud.services.apigateway.http_integration import whole


async def pieces(*bodies: bytes, lost: bool = False) -> AsyncIterator[bytes]:
    for body in bodies:
        yield body
    if lost:
        raise ConnectionLost("the connection was closed before the answer was whole")


def test_an_answer_in_pieces_is_passed_on_whole() -> None:
    assert asyncio.run(whole(Response(200, [], pieces(b"a", b"b")))) == b"ab"


def test_an_answer_that_breaks_off_is_a_failure_of_the_integration_with_its_reason() -> None:
    with pytest.raises(GatewayError) as caught:
        asyncio.run(whole(Response(200, [], pieces(b"a", lost=True))))
    assert caught.value.status == 500
    assert caught.value.reason == (
        "the answer broke off: the connection was closed before the answer was whole"
    )


def test_an_answer_may_have_api_gateways_limit_and_no_more() -> None:
    assert len(asyncio.run(whole(Response(200, [], bytes(BODY_LIMIT))))) == BODY_LIMIT
    with pytest.raises(GatewayError):
        asyncio.run(whole(Response(200, [], bytes(BODY_LIMIT + 1))))
