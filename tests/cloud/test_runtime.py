"""Runtimes are found, made, reconciled and closed in the order in which they need each other."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from botocore.exceptions import EndpointConnectionError

from modelstacks.cloud.context import Context
from modelstacks.cloud.host.wire import Request, Response
from modelstacks.cloud.network.calls import Caller
from modelstacks.cloud.runtime import Runtime, Runtimes, kinds
from modelstacks.cloud.services.apigateway.runtime import ApiGateways
from modelstacks.cloud.services.ecs.runtime import Services
from modelstacks.cloud.services.elbv2.runtime import LoadBalancers
from modelstacks.cloud.snapshot import Account
from modelstacks.core.errors import EnvironmentFault


class Recorded(Runtime):
    """Writes down when it is called."""

    calls: ClassVar[list[str]] = []

    def __init__(self, context: Context, runtimes: Runtimes) -> None:
        super().__init__(context, runtimes)
        self.calls.append(f"make {type(self).__name__}")

    async def reconcile(self) -> None:
        self.calls.append(f"reconcile {type(self).__name__}")

    async def close(self) -> None:
        self.calls.append(f"close {type(self).__name__}")


class Balancers(Recorded):
    async def answer(self, request: Request, service: str) -> Response | None:
        return Response(200, body=b"balancers") if service == "elb" else None


class Tasks(Recorded):
    needs = (Balancers,)

    def __init__(self, context: Context, runtimes: Runtimes) -> None:
        super().__init__(context, runtimes)
        self.balancers = runtimes[Balancers]

    async def receive(self, request: Request, caller: Caller) -> Response | None:
        return Response(200, body=b"tasks") if request.path == "/tasks" else None


class Apis(Recorded):
    needs = (Tasks, Balancers)


class Empty:
    """Clients of an account in which there is nothing: every list is empty."""

    region = "eu-west-1"

    def account_id(self) -> str:
        return "111122223333"

    def pages(self, *_: str, **__: Any) -> list[dict[str, Any]]:
        return []

    def client(self, service: str) -> Any:
        assert service
        nothing: dict[str, list[Any]] = {"Buckets": [], "Items": []}
        paginator = SimpleNamespace(paginate=lambda **_: [])
        return SimpleNamespace(
            list_buckets=lambda: nothing, get_vpc_links=lambda: nothing, get_paginator=lambda _: paginator
        )


async def blocking(work: Any, *arguments: Any) -> Any:
    return work(*arguments)


def context(clients: Any = None) -> Context:
    made = SimpleNamespace(clients=clients, changed=lambda: None, blocking=blocking, account=Account())
    return cast(Context, made)


@pytest.fixture
def calls() -> list[str]:
    Recorded.calls.clear()
    return Recorded.calls


def test_what_is_needed_is_made_first_and_closed_last(calls: list[str]) -> None:
    runtimes = Runtimes(context(), (Apis, Tasks, Balancers))
    asyncio.run(runtimes.close())
    assert calls == [
        "make Balancers", "make Tasks", "make Apis", "close Apis", "close Tasks", "close Balancers",
    ]  # fmt: skip
    assert runtimes[Tasks].balancers is runtimes[Balancers]


def test_reconciling_reads_the_account_and_then_follows_it_in_order(calls: list[str]) -> None:
    made = context(Empty())
    runtimes = Runtimes(made, (Apis, Tasks, Balancers))

    asyncio.run(runtimes.reconcile())
    assert made.account.id == "111122223333"
    assert calls[3:] == ["reconcile Balancers", "reconcile Tasks", "reconcile Apis"]


def test_an_account_that_cannot_be_read_is_followed_by_nobody(calls: list[str]) -> None:
    class Unreachable(Empty):
        def account_id(self) -> str:
            raise EndpointConnectionError(endpoint_url="http://localhost")

    runtimes = Runtimes(context(Unreachable()), (Balancers,))
    with pytest.raises(EnvironmentFault, match="the account cannot be read back"):
        asyncio.run(runtimes.reconcile())
    assert calls == ["make Balancers"]


def test_a_call_is_answered_by_the_runtime_whose_it_is(calls: list[str]) -> None:
    runtimes = Runtimes(context(), (Apis, Tasks, Balancers))
    caller = Caller("task", "")

    async def answers() -> list[Response | None]:
        return [
            await runtimes.answer(Request("GET", "/"), "elb"),
            await runtimes.answer(Request("GET", "/"), "s3"),
            await runtimes.receive(Request("PUT", "/tasks"), caller),
            await runtimes.receive(Request("PUT", "/other"), caller),
        ]

    found = [one.body if one is not None else None for one in asyncio.run(answers())]
    assert found == [b"balancers", None, b"tasks", None]


def test_the_services_runtimes_are_found_by_their_folders() -> None:
    assert {ApiGateways, LoadBalancers, Services} < set(kinds())
