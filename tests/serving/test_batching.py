"""The batcher with an engine and jobs that record what happens to them."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from model_server import metrics
from model_server.batching import Batcher
from model_server.engines import Engine, Tensors
from model_server.http import Connection, Server
from model_server.jobs import RequestJob
from model_server.problems import ProblemError
from model_server.request import Request
from model_server.settings import Settings
from model_server.signature import Signature, Tensor


class Doubler(Engine):
    """Twice the input; fails on a negative number; can be held back."""

    name = framework = "doubler"
    framework_version = "1"
    task = "regression"
    parallel = False

    def __init__(self, *, batches: bool = True, shape: tuple[int, ...] = (-1,)) -> None:
        self.signature = Signature((Tensor("x", "FP64", shape),), (Tensor("y", "FP64", shape),))
        self.batches = batches
        self.calls: list[int] = []
        self.threads: set[str] = set()
        self.free = threading.Event()
        self.free.set()

    def predict(self, inputs: Tensors, parameters: Mapping[str, object]) -> Tensors:
        self.calls.append(len(inputs["x"]))
        self.threads.add(threading.current_thread().name)
        assert self.free.wait(10)
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        return {"y": inputs["x"] * 2}


@dataclass
class Ask:
    """One request of the batcher."""

    inputs: Tensors
    parameters: Mapping[str, object] = field(default_factory=dict)
    call: Callable[[], Any] | None = None
    alone: bool = False
    gone: bool = False
    arrived: float = field(default_factory=perf_counter)
    outcome: list[Any] = field(default_factory=list)
    patience: float = math.inf

    @classmethod
    def of(cls, *values: float, **options: Any) -> Ask:
        return cls({"x": np.array(values, dtype=np.float64)}, **options)

    def __post_init__(self) -> None:
        self.alone = self.alone or self.call is not None or bool(self.parameters)

    @property
    def rows(self) -> int:
        return len(self.inputs["x"])

    def expires(self, patience: float) -> float:
        return self.arrived + min(patience, self.patience)

    def finish(self, outputs: Any, start: int, end: int) -> None:
        self.outcome.append(outputs["y"][start:end].tolist() if isinstance(outputs, dict) else outputs)

    def fail(self, error: BaseException) -> None:
        self.outcome.append(error)


def run(engine: Doubler, scene: Callable[[Batcher], Any], *, quick: bool = True, **limits: Any) -> Any:
    """Plays a scene with a batcher that knows the engine for a quick one, or does not know it yet."""

    async def main() -> Any:
        counters = metrics.SharedMetrics(1).worker(0)
        batcher = Batcher(
            engine, asyncio.get_running_loop(), counters, **{"max_rows": 8, "max_queue": 100} | limits
        )
        for size in range(8 if quick else 0):
            batcher.learn(1 << size, 0.00001)
        async with asyncio.timeout(20):
            return await scene(batcher)

    return asyncio.run(main())


async def answered(*asks: Ask) -> None:
    while not all(ask.outcome for ask in asks):
        await asyncio.sleep(0.001)


def test_what_arrives_in_one_turn_goes_to_the_engine_together() -> None:
    engine, asks = Doubler(), [Ask.of(float(i)) for i in range(5)]

    async def scene(batcher: Batcher) -> None:
        for ask in asks:
            batcher.submit(ask)
        await answered(*asks)

    run(engine, scene)
    assert engine.calls == [5]
    assert [ask.outcome for ask in asks] == [[[2.0 * i]] for i in range(5)]


def test_a_lone_request_is_answered_before_submit_returns() -> None:
    engine, ask = Doubler(), Ask.of(1.0)

    async def scene(batcher: Batcher) -> None:
        batcher.submit(ask, lone=True)
        assert ask.outcome == [[2.0]]

    run(engine, scene)


def test_a_batch_has_at_most_its_rows_and_keeps_the_order() -> None:
    engine = Doubler()
    asks = [Ask.of(*range(start, start + 3)) for start in range(0, 30, 3)]

    async def scene(batcher: Batcher) -> None:
        for ask in asks:
            batcher.submit(ask)
        await answered(*asks)

    run(engine, scene)
    assert engine.calls == [6, 6, 6, 6, 6]  # of 8 allowed: a request is not torn apart
    assert [ask.outcome[0] for ask in asks] == [[2.0 * v for v in range(s, s + 3)] for s in range(0, 30, 3)]


def test_a_request_larger_than_a_batch_goes_alone_and_whole() -> None:
    engine, small, large = Doubler(), Ask.of(1.0), Ask.of(*range(20))

    async def scene(batcher: Batcher) -> None:
        batcher.submit(small)
        batcher.submit(large)
        await answered(small, large)

    run(engine, scene)
    assert engine.calls == [1, 20]


@pytest.mark.parametrize("quick", [True, False], ids=["on the loop", "on the thread"])
def test_one_bad_item_fails_alone(quick: bool) -> None:
    engine = Doubler()
    asks = [Ask.of(1.0), Ask.of(-1.0), Ask.of(3.0)]

    async def scene(batcher: Batcher) -> None:
        for ask in asks:
            batcher.submit(ask)
        await answered(*asks)
        await asyncio.sleep(0)

    run(engine, scene, quick=quick)
    assert asks[0].outcome == [[2.0]]
    assert asks[2].outcome == [[6.0]]
    [error] = asks[1].outcome
    assert isinstance(error, ValueError)
    assert engine.calls == [3, 1, 1, 1]


def test_a_slow_engine_works_on_its_thread_and_the_next_batch_gathers_meanwhile() -> None:
    engine = Doubler()
    engine.free.clear()
    first, later = Ask.of(1.0), [Ask.of(float(i)) for i in range(4)]

    async def scene(batcher: Batcher) -> None:
        batcher.submit(first)
        while not engine.calls:
            await asyncio.sleep(0.001)
        for ask in later:
            batcher.submit(ask)
        engine.free.set()
        await answered(first, *later)
        batcher.close()

    run(engine, scene, quick=False)
    assert engine.calls == [1, 4]
    assert engine.threads == {"engine"}


def test_a_full_queue_refuses_at_once() -> None:
    engine = Doubler()
    engine.free.clear()

    async def scene(batcher: Batcher) -> None:
        asks = [Ask.of(0.0)]
        batcher.submit(asks[0])
        while not engine.calls:
            await asyncio.sleep(0.001)
        for _ in range(3):
            asks.append(Ask.of(0.0))
            batcher.submit(asks[-1])
        with pytest.raises(ProblemError) as caught:
            batcher.submit(Ask.of(0.0))
        assert caught.value.status == 429
        assert "retry-after" in caught.value.headers
        engine.free.set()
        await answered(*asks)

    run(engine, scene, quick=False, max_queue=3)


def test_who_has_left_is_not_asked_for() -> None:
    engine = Doubler()
    asks = [Ask.of(1.0), Ask.of(2.0, gone=True), Ask.of(3.0)]

    async def scene(batcher: Batcher) -> None:
        for ask in asks:
            batcher.submit(ask)
        await answered(asks[0], asks[2])

    run(engine, scene)
    assert engine.calls == [2]
    assert asks[1].outcome == []


def test_requests_with_parameters_and_engines_that_cannot_batch_are_called_one_by_one() -> None:
    for engine, parameters in ((Doubler(), {"seed": 1}), (Doubler(batches=False), {})):
        asks = [Ask.of(float(i), parameters=parameters) for i in range(3)]

        async def scene(batcher: Batcher, asks: list[Ask] = asks) -> None:
            for ask in asks:
                batcher.submit(ask)
            await answered(*asks)

        run(engine, scene)
        assert engine.calls == [1, 1, 1]


def test_shapes_that_differ_do_not_share_a_call() -> None:
    engine = Doubler(shape=(-1, -1))
    asks = [Ask({"x": np.ones((1, width))}) for width in (2, 2, 3, 3)]

    async def scene(batcher: Batcher) -> None:
        for ask in asks:
            batcher.submit(ask)
        await answered(*asks)

    run(engine, scene)
    assert engine.calls == [2, 2]


def test_max_latency_waits_for_company_but_no_longer() -> None:
    engine = Doubler()
    asks = [Ask.of(1.0), Ask.of(2.0)]

    async def scene(batcher: Batcher) -> None:
        batcher.submit(asks[0], lone=True)
        await asyncio.sleep(0.01)
        batcher.submit(asks[1], lone=True)
        await answered(*asks)

    run(engine, scene, max_latency=0.5)
    assert engine.calls == [2]


def test_a_full_batch_does_not_wait() -> None:
    engine = Doubler()
    asks = [Ask.of(*range(4)), Ask.of(*range(4))]

    async def scene(batcher: Batcher) -> None:
        for ask in asks:
            batcher.submit(ask)
        await answered(*asks)

    run(engine, scene, max_latency=3600.0)
    assert engine.calls == [8]


def test_an_engine_that_answers_too_few_rows_fails_and_mixes_up_nothing() -> None:
    class Forgetful(Doubler):
        def predict(self, inputs: Tensors, parameters: Mapping[str, object]) -> Tensors:
            outputs = super().predict(inputs, parameters)
            return {"y": outputs["y"][:1]}

    engine, asks = Forgetful(), [Ask.of(1.0), Ask.of(2.0)]

    async def scene(batcher: Batcher) -> None:
        for ask in asks:
            batcher.submit(ask)
        await answered(*asks)

    run(engine, scene)
    assert [ask.outcome for ask in asks] == [[[2.0]], [[4.0]]]  # each alone, after the batch was found wrong
    assert engine.calls == [2, 1, 1]


def test_a_batch_that_fills_up_while_it_waits_waits_no_longer() -> None:
    engine, asks = Doubler(), [Ask.of(1.0), Ask.of(2.0)]

    async def scene(batcher: Batcher) -> None:
        batcher.submit(asks[0])
        await asyncio.sleep(0.01)
        batcher.submit(asks[1])
        await answered(*asks)

    run(engine, scene, max_rows=2, max_latency=3600.0)
    assert engine.calls == [2]


def test_an_answer_that_cannot_be_sent_does_not_keep_others_from_theirs() -> None:
    class Unsendable(Ask):
        def finish(self, outputs: Any, start: int, end: int) -> None:
            raise RuntimeError("the connection is closed")

    engine, asks = Doubler(), [Ask.of(1.0), Ask.of(3.0)]

    async def scene(batcher: Batcher) -> None:
        batcher.submit(asks[0])
        batcher.submit(Unsendable.of(2.0))
        batcher.submit(asks[1])
        await answered(*asks)

    run(engine, scene)
    assert [ask.outcome for ask in asks] == [[[2.0]], [[6.0]]]


def test_what_comes_behind_a_request_with_parameters_is_not_in_its_call() -> None:
    engine, asks = Doubler(), [Ask.of(1.0, parameters={"seed": 1}), Ask.of(2.0), Ask.of(3.0)]

    async def scene(batcher: Batcher) -> None:
        for ask in asks:
            batcher.submit(ask)
        await answered(*asks)

    run(engine, scene)
    assert engine.calls == [1, 2]


@pytest.mark.parametrize(
    ("parameters", "call", "alone"), [({}, None, False), ({"seed": 1}, None, True), ({}, list, True)]
)
def test_a_job_of_its_own_kind_shares_no_call(
    parameters: dict[str, object], call: Callable[[], Any] | None, alone: bool
) -> None:
    server = Server(lambda _request: None, Settings(model_name="m"), metrics.SharedMetrics(1).worker(0))
    request = Request(Connection(server))
    assert RequestJob(request, {}, 1, parameters, lambda *_: (b"", b"", b""), call).alone is alone
