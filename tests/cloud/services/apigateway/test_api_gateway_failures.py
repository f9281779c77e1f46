"""When the embedded cloud itself fails, a caller gets an answer of API Gateway's and none of our insides."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

from modelstacks.cloud import api
from modelstacks.cloud.context import Context
from modelstacks.cloud.host.pool import Pool
from modelstacks.cloud.host.wire import Request, Response
from modelstacks.cloud.network.reasons import Reasons
from modelstacks.cloud.services.apigateway.runtime import ApiGateways
from modelstacks.cloud.services.apigateway.snapshot import (
    ApiGatewaySnapshot,
    Integration,
    Method,
    Resource,
    RestApi,
    Stage,
)
from modelstacks.cloud.services.elbv2.runtime import LoadBalancers
from modelstacks.cloud.services.elbv2.snapshot import ElbSnapshot, Listener, LoadBalancer
from modelstacks.cloud.services.lambda_.runtime import Functions
from modelstacks.cloud.snapshot import Account
from modelstacks.cloud.workloads.faults import Traffic

BALANCER = LoadBalancer("arn:lb", "lb", "lb.example", "internet-facing", "application", (), (), 60)
GET = Integration("HTTP_PROXY", "GET", "http://lb.example/ping", "", "", "arn:lb", {}, 29000, False, "", "")
PING = Method("GET", "NONE", False, None, (), {}, GET)
API = RestApi("a1", "api", (), {}, None, (Resource("r", "/ping", {"GET": PING}),), {
    "live": Stage("live", "d1", {}, {}),
})  # fmt: skip
ACCOUNT = Account(
    ApiGatewaySnapshot(apis=(API,)),
    ElbSnapshot({"arn:lb": BALANCER}, {"arn:lb:80": Listener("arn:lb", 80, "HTTP", ())}),
)


class Broken:
    """Load balancers with a defect."""

    async def serve(self, listener: Listener, request: Request) -> Response:
        raise KeyError(f"secret of {listener.load_balancer_arn}:{listener.port} at {request.path}")


def test_a_defect_of_ours_is_an_internal_error_whose_cause_is_in_the_log_alone(caplog: Any) -> None:
    context = SimpleNamespace(
        account=ACCOUNT,
        traffic=Traffic(),
        reasons=Reasons(),
        settings=api.Settings(),
        first_api_port=0,
        refuse=print,
    )

    async def run() -> tuple[Response, bytes]:
        gateways = ApiGateways(cast(Context, context), cast(Any, {LoadBalancers: Broken(), Functions: None}))
        await gateways.reconcile()
        (described,) = gateways.apis()
        port = int(described.url.split(":")[2].split("/")[0])
        pool = Pool()
        try:
            answer = await pool.send(
                Request("GET", "/live/ping", headers=[("Host", f"127.0.0.1:{port}")]), port
            )
            return answer, await answer.read()
        finally:
            pool.close()
            await gateways.close()

    answer, body = asyncio.run(run())
    assert answer.status == 500
    assert json.loads(body)["message"] == "Internal server error"
    seen = f"{answer.headers} {body!r}"
    assert "secret" not in seen
    assert "KeyError" not in seen
    assert "the embedded cloud itself failed" in (answer.header("x-modelstacks-reason") or "")
    assert "secret of arn:lb:80" in caplog.text
