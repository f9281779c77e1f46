"""What a task is, out of what its containers and target groups are."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modelstacks.cloud.services.ecs.snapshot import Container
from modelstacks.cloud.services.ecs.tasks import Task


@dataclass
class Process:
    """A container's process, as far as a task looks at it."""

    alive: bool = True
    reason: str | None = None
    stopped_after: list[float] = field(default_factory=list)

    async def stop(self, grace: float) -> None:
        self.stopped_after.append(grace)


def container(name: str, *, essential: bool = True, stop_timeout: float = 30.0) -> Container:
    return Container(
        name=name,
        image="example/container:1",
        command=(),
        entrypoint=(),
        environment={},
        secrets={},
        ports=(8080,),
        log_driver="",
        log_options={},
        essential=essential,
        stop_timeout=stop_timeout,
    )


def target(state: str, *, lasting: bool = False) -> Any:
    return SimpleNamespace(state=state, why="GET /ping answered 503", lasting=lasting)


def task(*targets: Any, helper: Process | None = None, server: Process | None = None) -> Task:
    """A task of an essential server and a helper that is not."""
    processes = [
        (container("server"), server or Process()),
        (container("helper", essential=False, stop_timeout=2.0), helper or Process()),
    ]
    balancers = SimpleNamespace()
    groups = [("arn", one) for one in targets]
    return Task(cast(Any, balancers), cast(Any, processes), groups)


def test_the_end_of_a_container_that_is_not_essential_does_not_end_the_task() -> None:
    one = task(target("healthy"), helper=Process(alive=False, reason="exited with code 0"))
    assert (one.alive, one.healthy, one.sick, one.cause) == (True, True, None, "")


def test_the_end_of_an_essential_container_ends_the_task_with_its_last_words() -> None:
    one = task(target("healthy"), server=Process(alive=False, reason="exited with code 3: no model"))
    assert (one.alive, one.healthy, one.cause) == (False, False, "exited with code 3: no model")


@pytest.mark.parametrize(
    ("states", "healthy"),
    [((), True), (("healthy",), True), (("healthy", "initial"), False), (("unhealthy",), False)],
)
def test_it_is_healthy_where_every_target_group_says_so(states: tuple[str, ...], healthy: bool) -> None:
    assert task(*map(target, states)).healthy is healthy


def test_it_is_sick_where_one_target_group_says_so() -> None:
    sick = task(target("healthy"), target("unhealthy", lasting=True)).sick
    assert sick is not None
    assert sick.lasting
    assert sick.why == "task failed its load balancer's health checks: GET /ping answered 503"


def test_each_container_has_its_own_stop_timeout() -> None:
    server, helper = Process(), Process()
    asyncio.run(task(server=server, helper=helper).stop())
    assert (server.stopped_after, helper.stopped_after) == ([30.0], [2.0])
