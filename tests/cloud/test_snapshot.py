"""The account is read back from what needs to what is needed, and otherwise all at once."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from graphlib import CycleError
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.services.apigateway.snapshot import ApiGatewaySnapshot
from modelstacks.cloud.services.apigatewayv2.snapshot import ApiGatewayV2Snapshot
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.ec2.snapshot import Ec2Snapshot
from modelstacks.cloud.services.ecs.snapshot import EcsSnapshot
from modelstacks.cloud.services.elbv2.snapshot import ElbSnapshot
from modelstacks.cloud.services.iam.snapshot import IamSnapshot
from modelstacks.cloud.services.lambda_.snapshot import LambdaSnapshot
from modelstacks.cloud.services.sagemaker.snapshot import SageMakerSnapshot
from modelstacks.cloud.snapshot import Snapshot, kinds, read


def clients(**more: Any) -> Clients:
    return cast(Clients, SimpleNamespace(account_id=lambda: "111122223333", region="eu-west-1", **more))


@dataclass(frozen=True)
class Rules(Snapshot):
    found: tuple[str, ...] = ()

    @classmethod
    def read(cls, clients: Clients) -> Rules:
        return cls(_everything(clients))


@dataclass(frozen=True)
class Balancers(Snapshot):
    needs = (Rules,)
    found: tuple[str, ...] = ()

    @classmethod
    def read(cls, clients: Clients) -> Balancers:
        return cls(_everything(clients))


@dataclass(frozen=True)
class Tasks(Snapshot):
    needs = (Rules, Balancers)
    found: tuple[str, ...] = ()

    @classmethod
    def read(cls, clients: Clients) -> Tasks:
        return cls(_everything(clients))


def _everything(clients: Clients) -> tuple[str, ...]:
    """What is there now; with each look the next resource is made: a rule, a balancer, a task, a rule ..."""
    made: list[str] = cast(Any, clients).made
    seen = tuple(made)
    made.append(f"resource {len(made)}")
    return seen


@pytest.mark.parametrize("given", [(Rules, Balancers, Tasks), (Tasks, Rules, Balancers)])
def test_whatever_is_found_has_everything_that_it_was_made_after(given: tuple[type[Snapshot], ...]) -> None:
    account = read(clients(made=["resource 0"]), given)
    assert set(account[Tasks].found) < set(account[Balancers].found) < set(account[Rules].found)


def test_a_snapshot_that_needs_another_is_read_before_it_though_it_is_slower() -> None:
    tasks_done = threading.Event()
    seen: list[bool] = []

    @dataclass(frozen=True)
    class Needed(Snapshot):
        @classmethod
        def read(cls, clients: Clients) -> Needed:
            seen.append(tasks_done.is_set())
            return cls()

    @dataclass(frozen=True)
    class Slow(Snapshot):
        needs = (Needed,)

        @classmethod
        def read(cls, clients: Clients) -> Slow:
            tasks_done.wait(0.2)
            tasks_done.set()
            return cls()

    read(clients(), (Needed, Slow))
    assert seen == [True]


def test_snapshots_that_do_not_need_each_other_are_read_at_the_same_time() -> None:
    together = threading.Barrier(2)  # neither passes before the other has come

    @dataclass(frozen=True)
    class One(Snapshot):
        @classmethod
        def read(cls, clients: Clients) -> One:
            together.wait(10)
            return cls()

    @dataclass(frozen=True)
    class Other(Snapshot):
        @classmethod
        def read(cls, clients: Clients) -> Other:
            together.wait(10)
            return cls()

    account = read(clients(), (One, Other))
    assert (account.id, account.region) == ("111122223333", "eu-west-1")


def test_a_circle_of_needs_is_refused() -> None:
    class First(Snapshot):
        pass

    class Second(Snapshot):
        needs = (First,)

    First.needs = (Second,)
    with pytest.raises(CycleError):
        read(clients(), (First, Second))


@pytest.mark.parametrize(
    ("kind", "needed"),
    [
        (EcsSnapshot, {Ec2Snapshot, ElbSnapshot, IamSnapshot, CloudFormationSnapshot}),
        (SageMakerSnapshot, {Ec2Snapshot, IamSnapshot, CloudFormationSnapshot}),
        (LambdaSnapshot, {Ec2Snapshot, IamSnapshot, CloudFormationSnapshot}),
        (ApiGatewaySnapshot, {ApiGatewayV2Snapshot, ElbSnapshot, IamSnapshot, CloudFormationSnapshot}),
    ],
)
def test_what_runs_needs_its_rules(kind: type[Snapshot], needed: set[type[Snapshot]]) -> None:
    assert needed <= set(kind.needs)


def test_every_snapshot_of_a_service_is_found_and_empty_by_default() -> None:
    found = kinds()
    assert {EcsSnapshot, ElbSnapshot, IamSnapshot} < set(found)
    for kind in found:
        assert kind() == kind()
