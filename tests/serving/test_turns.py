"""Steps of synchronous iterators in the engine's queue, with an engine that can be held back."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from model_server import metrics
from model_server.batching import Batcher
from model_server.engines import Engine, Tensors
from model_server.problems import ProblemError
from model_server.signature import Signature, Tensor
from model_server.turns import NOTHING, Begun, Turn, Turns, begin


class Gate(Engine):
    """Answers calls that wait at the gate."""

    name = framework = "gate"
    framework_version = "1"
    task = "regression"
    batches = True
    parallel = False

    def __init__(self) -> None:
        self.signature = Signature((Tensor("x", "FP64", (-1,)),), (Tensor("y", "FP64", (-1,)),))
        self.free = threading.Event()
        self.free.set()

    def predict(self, inputs: Tensors, parameters: Mapping[str, object]) -> Tensors:
        assert self.free.wait(10)
        return {"y": inputs["x"]}


class Call:
    """An ordinary request."""

    parameters: Mapping[str, object] = {}
    alone = gone = False
    rows = 1
    call = None
    arrived = 0.0

    def __init__(self) -> None:
        self.inputs: Tensors = {"x": np.zeros(1)}
        self.outcome: list[object] = []

    def expires(self, patience: float) -> float:
        return patience

    def finish(self, outputs: Any, start: int, end: int) -> None:
        self.outcome.append(outputs)

    def fail(self, error: BaseException) -> None:
        self.outcome.append(error)


def play(scene: Callable[[Batcher], Any], engine: Gate | None = None, **limits: Any) -> Any:
    async def main() -> Any:
        counters = metrics.SharedMetrics(1).worker(0)
        batcher = Batcher(
            engine or Gate(),
            asyncio.get_running_loop(),
            counters,
            **{"max_rows": 8, "max_queue": 100} | limits,
        )
        async with asyncio.timeout(20):
            return await scene(batcher)

    return asyncio.run(main())


def test_steps_run_on_the_engines_thread_and_iterators_take_turns() -> None:
    steps: list[tuple[str, str]] = []

    def letters(name: str) -> Iterator[str]:
        for letter in "abc":
            steps.append((name, threading.current_thread().name))
            yield letter

    async def scene(batcher: Batcher) -> list[list[str]]:
        async def take(name: str) -> list[str]:
            return [str(letter) async for letter in Turns(batcher, letters(name))]

        return list(await asyncio.gather(take("one"), take("two")))

    assert play(scene) == [list("abc"), list("abc")]
    assert {thread for _, thread in steps} == {"engine"}
    assert [name for name, _ in steps] == ["one", "two"] * 3


def test_a_step_goes_behind_what_waits_and_is_not_refused() -> None:
    engine, order = Gate(), []

    def numbers() -> Iterator[str]:
        order.append("step")
        yield "x"

    async def scene(batcher: Batcher) -> None:
        engine.free.clear()
        held, waiting = Call(), Call()
        batcher.submit(held)
        await asyncio.sleep(0.05)
        waiting.finish = lambda *_: order.append("call")  # type: ignore[method-assign]
        batcher.submit(waiting)
        with pytest.raises(ProblemError):
            batcher.submit(Call())
        step = asyncio.ensure_future(anext(Turns(batcher, numbers())))
        await asyncio.sleep(0)
        engine.free.set()
        assert await step == "x"

    play(scene, engine, max_queue=1)
    assert order == ["call", "step"]


def test_a_step_does_not_wait_for_company() -> None:
    async def scene(batcher: Batcher) -> object:
        return await anext(Turns(batcher, iter(["x"])))

    assert play(scene, max_latency=3600.0) == "x"


def test_the_first_chunk_is_made_by_the_call_that_gave_the_iterator() -> None:
    async def scene(batcher: Batcher) -> list[object]:
        begun = begin(iter(["a", "b"]))
        assert begun.first == "a"
        assert isinstance(begun.chunks, Iterator)
        return [chunk async for chunk in Turns(batcher, begun.chunks, begun.first)]

    assert play(scene) == ["a", "b"]


def test_an_iterator_without_items_has_ended_with_the_call() -> None:
    async def scene(batcher: Batcher) -> list[object]:
        begun = begin(iter([]))
        assert begun.first is not NOTHING
        assert isinstance(begun.chunks, Iterator)
        return [chunk async for chunk in Turns(batcher, begun.chunks, begun.first)]

    assert play(scene) == []


def test_an_asynchronous_iterator_is_begun_on_the_loop() -> None:
    async def letters() -> Any:
        yield "a"

    chunks = letters()
    assert begin(chunks) == Begun(chunks)


def test_a_step_that_calls_exit_is_an_error_of_the_stream_and_not_of_the_loop() -> None:
    def leaves() -> Iterator[str]:
        sys.exit(3)
        yield ""

    async def scene(batcher: Batcher) -> None:
        with pytest.raises(RuntimeError, match="SystemExit: 3"):
            await anext(Turns(batcher, leaves()))
        assert await anext(Turns(batcher, iter(["x"]))) == "x"

    play(scene)


def test_closing_ends_a_generator_on_the_engines_thread_and_only_once() -> None:
    closed: list[str] = []

    def letters() -> Iterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(threading.current_thread().name)

    async def scene(batcher: Batcher) -> None:
        left = Turns(batcher, letters())
        await anext(left)
        await left.aclose()
        await left.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(left)
        ended = Turns(batcher, letters())
        assert [chunk async for chunk in ended] == ["a", "b"]
        await ended.aclose()

    play(scene)
    assert closed == ["engine", "engine"]


def test_the_time_of_steps_is_learned_apart_from_that_of_calls() -> None:
    async def scene(batcher: Batcher) -> None:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        turn = Turn(lambda: "x", future)
        assert batcher.size_of(turn.inputs, turn.rows) == 0
        assert batcher.size_of(Call().inputs, 1) == 1

    play(scene)
