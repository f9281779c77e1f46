"""Which requests may wait: the arithmetic by itself, then the batcher under load in virtual time.

The clock of these scenes is a number that the scene sets: what they measure is the same on any machine.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from model_server import metrics
from model_server.admission import SHORTEST_TARGET, SLACK_CALLS, STANDING_CALLS, Admission, ServiceTimes
from model_server.batching import Batcher
from model_server.engines import Engine, Tensors
from model_server.http import Connection, Server
from model_server.jobs import RequestJob
from model_server.problems import ProblemError
from model_server.request import Request
from model_server.settings import Settings
from model_server.signature import Signature, Tensor


class Alone:
    """The ledger of a server with one worker."""

    debt = 0.0

    def owe(self, seconds: float) -> None:
        self.debt = seconds

    def most_owed(self) -> float:
        return self.debt


def known(**seconds: float) -> ServiceTimes:
    times = ServiceTimes()
    for size, taken in seconds.items():
        times.learn(int(size.removeprefix("of_")), taken)
    return times


def test_nothing_is_expected_of_a_call_that_nothing_is_known_of() -> None:
    assert ServiceTimes().estimate(1) == 0


def test_a_call_of_unknown_size_is_expected_between_one_row_and_its_rows_one_by_one() -> None:
    times = known(of_1=0.1, of_16=0.2)
    assert times.estimate(1) == 0.1
    assert 0.1 < times.estimate(2) < 0.2
    assert 0.1 < times.estimate(10) <= 0.2
    assert 0.2 < times.estimate(64) < 0.8


def test_one_slow_call_says_little_and_several_in_a_row_say_much() -> None:
    times = known(of_1=0.1)
    times.learn(1, 30.0)
    assert times.estimate(1) < 0.2
    for _ in range(40):
        times.learn(1, 1.0)
    assert times.estimate(1) == pytest.approx(1.0, rel=0.01)


def test_a_burst_may_wait_for_several_calls_and_lasting_overload_for_less_than_one() -> None:
    admission = Admission(Alone())
    assert admission.limit(1.0) == 4.0
    for _ in range(10):
        admission.refused(1.0, 1.0)
    assert admission.limit(1.0) == admission.target(1.0) == 0.75


def test_idle_time_pays_for_what_was_refused_and_busy_time_hardly() -> None:
    admission = Admission(Alone())
    admission.settle(100.0, busy=True)
    admission.refused(SLACK_CALLS + 2.0, 1.0)
    assert admission.overloaded
    admission.settle(101.0, busy=True)
    assert admission.limit(1.0) == 0.75
    admission.settle(102.0, busy=False)
    assert 2.0 < admission.limit(1.0) < 2.5
    admission.settle(103.0, busy=False)
    assert not admission.overloaded
    assert admission.limit(1.0) == 4.0


def test_a_few_refusals_are_no_overload_and_busy_time_makes_up_for_them() -> None:
    """A server that is offered just what it can take refuses some, too: its burst's queue is all it has."""
    admission = Admission(Alone())
    for call in range(100):
        admission.settle(float(call), busy=True)
        if call % 6 == 0:
            admission.refused(1.0, 1.0)
        assert not admission.overloaded
        assert admission.limit(1.0) == 4.0
    for call in range(100, 200):
        admission.settle(float(call), busy=True)
        if call % 2 == 0:
            admission.refused(1.0, 1.0)
    assert admission.limit(1.0) == admission.target(1.0)


def test_a_delay_of_a_few_milliseconds_is_no_reason_to_refuse_whatever_a_call_takes() -> None:
    admission = Admission(Alone())
    for _ in range(100):
        admission.refused(0.001, 0.0005)
    assert admission.limit(0.0005) >= admission.target(0.0005) == SHORTEST_TARGET


def test_the_target_can_be_set_and_company_that_is_waited_for_is_no_delay() -> None:
    assert Admission(Alone(), target=3.0).target(0.1) == 3.0
    assert Admission(Alone(), company=0.5).target(0.1) == pytest.approx(0.5 + SHORTEST_TARGET)


def test_a_queue_that_stands_still_for_long_is_an_overload_though_nothing_was_refused() -> None:
    """Callers that wait for their answers before they ask again are refused nothing by a burst's bound."""
    admission = Admission(Alone())
    standing = int(STANDING_CALLS)
    for call in range(standing):
        admission.waited(3.0, float(call), 1.0)
    # A short wait in between: it was a burst.
    admission.waited(0.0, float(standing), 1.0)
    for call in range(100, 101 + standing):
        admission.waited(3.0, float(call), 1.0)
    assert admission.limit(1.0) == 4.0
    for call in range(101 + standing, 150 + standing):
        admission.waited(3.0 + call % 2, float(call), 1.0)
    assert admission.limit(1.0) == admission.target(1.0)


def test_a_queue_that_grows_and_shrinks_is_no_overload() -> None:
    admission = Admission(Alone())
    for call in range(500):
        admission.waited(1.5 + 1.5 * math.sin(call / 5), float(call), 1.0)
    assert admission.limit(1.0) == 4.0


def test_what_joins_a_call_costs_what_the_call_takes_longer_for_it() -> None:
    cheap, linear = known(of_8=0.1, of_16=0.1001), known(of_8=0.8, of_16=1.6)
    assert cheap.of_one_more(16, 1) < 0.0001
    assert linear.of_one_more(16, 1) == pytest.approx(0.1)
    assert linear.of_one_more(0, 8) == pytest.approx(0.8)


def test_what_overloads_one_worker_is_seen_by_all_until_it_is_idle_or_dead() -> None:
    shared = metrics.SharedMetrics(2)
    mine, other = (Admission(shared.worker(index)) for index in range(2))
    mine.settle(0.0, busy=True)
    for _ in range(10):
        mine.refused(1.0, 1.0)
    assert other.overloaded
    assert other.limit(1.0) == other.target(1.0)
    mine.settle(2.0, busy=False)
    assert other.limit(1.0) == 2.0
    for gauge in metrics.GAUGES:
        shared.worker(0).values[gauge] = 0  # as its supervisor does
    assert not other.overloaded


def test_retry_after_is_whole_seconds_until_what_waits_is_done_and_the_debt_is_paid() -> None:
    admission = Admission(Alone())
    assert admission.retry_after(0.3, 0.1) == 1
    assert admission.retry_after(20.0, 4.0) == 17
    admission.refused(SLACK_CALLS * 4.0 + 5.0, 4.0)
    assert admission.retry_after(20.0, 4.0) == 22
    for _ in range(100):
        admission.refused(5.0, 4.0)
    assert admission.retry_after(20.0, 4.0) == 29
    assert admission.retry_after(1e9, 4.0) == 60


# ------------------------------------------------------------------------------- the batcher, in virtual time


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Held(Engine):
    """An engine each of whose calls ends when the scene says so."""

    name = framework = "held"
    framework_version = "1"
    task = "regression"
    parallel = False

    def __init__(self, *, batches: bool = False, datatype: str = "FP64") -> None:
        self.signature = Signature((Tensor("x", datatype, (-1,)),), (Tensor("x", datatype, (-1,)),))
        self.batches = batches
        self.calls: list[Tensors] = []
        self.proceed = threading.Semaphore(0)

    def predict(self, inputs: Tensors, parameters: Mapping[str, object]) -> Tensors:
        self.calls.append(inputs)
        assert self.proceed.acquire(timeout=20)
        return inputs


@dataclass
class Ask:
    inputs: Tensors
    arrived: float
    answered: list[float]  # of all asks: when each was answered
    clock: Clock
    patience: float = math.inf
    parameters: Mapping[str, object] = field(default_factory=dict)
    call: Callable[[], Any] | None = None
    alone: bool = False
    gone: bool = False
    latency: float | None = None
    error: BaseException | None = None

    @property
    def rows(self) -> int:
        return len(self.inputs["x"])

    @property
    def open(self) -> bool:
        return self.latency is None and self.error is None

    def expires(self, patience: float) -> float:
        return self.arrived + min(patience, self.patience)

    def finish(self, outputs: Any, start: int, end: int) -> None:
        self.latency = self.clock.now - self.arrived

    def fail(self, error: BaseException) -> None:
        self.error = error


class Scene:
    """A batcher, its engine and a clock; calls take `seconds(rows)` of that clock."""

    def __init__(
        self,
        seconds: Callable[[Tensors], float],
        *,
        batches: bool = False,
        datatype: str = "FP64",
        **limits: Any,
    ) -> None:
        self.clock, self.engine = Clock(), Held(batches=batches, datatype=datatype)
        self.seconds = seconds
        self.counters = metrics.SharedMetrics(1).worker(0)
        settings = {"max_rows": 64, "max_queue": 100_000} | limits
        loop = asyncio.get_running_loop()
        self.batcher = Batcher(self.engine, loop, self.counters, clock=self.clock, **settings)
        self.asks: list[Ask] = []
        self.refused: list[ProblemError] = []
        self._ends = math.inf  # when the call that runs is over
        self._ended = 0

    def ask(self, values: Any = (1.0,), **options: Any) -> Ask:
        """A request that arrives now; `error` where it was refused at once."""
        array = np.array(values, dtype=object if isinstance(values[0], str) else np.float64)
        ask = Ask({"x": array}, self.clock.now, [], self.clock, **options)
        try:
            self.batcher.submit(ask)
        except ProblemError as problem:
            ask.error = problem
            self.refused.append(problem)
        else:
            self.asks.append(ask)
        return ask

    async def until(self, moment: float) -> None:
        """Time passes, and calls end in it."""
        await self._begin()
        while self._ends <= moment:
            self.clock.now = self._ends
            self._ended += 1
            self._ends = math.inf
            before = [ask for ask in self.asks if ask.open]
            self.engine.proceed.release()
            while before and all(ask.open for ask in before):
                await asyncio.sleep(0)
            await self._begin()
        self.clock.now = moment

    async def _begin(self) -> None:
        """Lets a call that can begin do so."""
        self.asks = [ask for ask in self.asks if ask.open or ask.latency is not None]
        while self._ends == math.inf and any(ask.open for ask in self.asks):
            await asyncio.sleep(0)
            if len(self.engine.calls) > self._ended:
                self._ends = self.clock.now + self.seconds(self.engine.calls[-1])

    @property
    def latencies(self) -> list[float]:
        return sorted(ask.latency for ask in self.asks if ask.latency is not None)


def play(scene: Callable[[], Any]) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(60):
            return await scene()

    return asyncio.run(main())


def arrivals(rate: float, seconds: float, seed: int = 1) -> Iterator[float]:
    """Poisson's: bursts and pauses, the same ones every time."""
    chance, moment = random.Random(seed), 0.0
    while (moment := moment + chance.expovariate(rate)) < seconds:
        yield moment


async def load(scene: Scene, rate: float, seconds: float) -> int:
    """Requests arrive at this rate for so long, and all that wait are served; how many there were."""
    offered, start = 0, scene.clock.now
    for moment in arrivals(rate, seconds):
        await scene.until(start + moment)
        scene.ask()
        offered += 1
    await scene.until(start + 10 * seconds)
    return offered


def p99(values: list[float]) -> float:
    return values[int(0.99 * len(values))]


CALL = 0.15


def constant(_: Tensors) -> float:
    return CALL


def test_under_three_times_the_load_it_can_take_answers_stay_within_twice_the_unloaded_time() -> None:
    async def overload() -> None:
        scene = Scene(constant, patience=29.0)
        await load(scene, 3 / CALL, 60)
        assert p99(scene.latencies) <= 2 * CALL
        assert len(scene.latencies) * CALL >= 0.9 * 60  # the engine was kept busy
        assert {problem.status for problem in scene.refused} == {429}
        assert all(int(problem.headers["retry-after"]) >= 1 for problem in scene.refused)

    play(overload)


def test_without_overload_hardly_anything_is_refused() -> None:
    async def half() -> None:
        scene = Scene(constant)
        offered = await load(scene, 0.5 / CALL, 120)
        assert len(scene.refused) <= 0.01 * offered

    play(half)


def test_a_burst_on_an_idle_server_is_served() -> None:
    async def burst() -> None:
        scene = Scene(constant)
        scene.ask()  # the first call teaches what one takes
        await scene.until(1.0)
        asks = [scene.ask() for _ in range(4)]
        await scene.until(3.0)
        assert all(ask.latency for ask in asks)

    play(burst)


def test_a_burst_is_served_again_once_an_overload_is_over() -> None:
    async def after() -> None:
        scene = Scene(constant)
        await load(scene, 3 / CALL, 10)
        assert scene.refused
        await scene.until(200.0)
        asks = [scene.ask() for _ in range(4)]
        await scene.until(210.0)
        assert all(ask.latency for ask in asks)

    play(after)


def test_batches_grow_under_load_as_long_as_that_pays() -> None:
    """A call costs almost the same whatever its rows: 40 times the load of single calls is no overload."""

    def almost_constant(inputs: Tensors) -> float:
        return CALL * (1 + 0.002 * len(inputs["x"]))

    async def growing() -> None:
        scene = Scene(almost_constant, batches=True)
        scene.batcher.learn(1, CALL)
        await load(scene, 40 / CALL, 5)  # in which it learns what batches cost
        scene.asks.clear()
        offered = await load(scene, 40 / CALL, 20)
        assert len(scene.latencies) >= 0.99 * offered
        assert p99(scene.latencies) <= 2.5 * CALL

    play(growing)


def test_batches_that_cost_as_much_as_their_rows_stay_small_under_overload() -> None:
    def linear(inputs: Tensors) -> float:
        return CALL * len(inputs["x"])

    async def overload() -> None:
        scene = Scene(linear, batches=True)
        scene.batcher.learn(1, CALL)
        await load(scene, 3 / CALL, 60)
        latencies = scene.latencies
        assert latencies[len(latencies) // 2] <= 2 * CALL
        assert sum(len(call["x"]) for call in scene.engine.calls) * CALL >= 0.85 * 60

    play(overload)


def test_a_request_that_could_not_be_answered_before_its_deadline_is_refused_at_once() -> None:
    def slow(_: Tensors) -> float:
        return 4.0

    async def late() -> None:
        scene = Scene(slow, patience=10.0)
        scene.batcher.learn(1, 4.0)
        first, second, third = (scene.ask() for _ in range(3))  # done after 4, 8 and 12 seconds
        assert (first.error, second.error) == (None, None)
        assert isinstance(third.error, ProblemError)
        assert third.error.status == 429
        await scene.until(20.0)
        assert (first.latency, second.latency) == (4.0, 8.0)

    play(late)


def test_a_caller_can_give_a_shorter_deadline_of_its_own() -> None:
    async def impatient() -> None:
        scene = Scene(constant, patience=29.0)
        scene.batcher.learn(1, CALL)
        scene.ask()
        assert scene.ask(patience=0.2).error is not None
        assert scene.ask(patience=0.4).error is None
        await scene.until(2.0)

    play(impatient)


def test_an_idle_engine_takes_what_might_be_too_slow_since_no_other_moment_is_better() -> None:
    async def slow() -> None:
        scene = Scene(lambda _: 40.0, patience=29.0)
        scene.batcher.learn(1, 40.0)
        assert scene.ask().error is None
        await scene.until(50.0)

    play(slow)


def test_what_nobody_waits_for_any_more_is_dropped_before_the_engine_runs() -> None:
    """The call before it took longer than any before: only then is it known."""

    async def stuck() -> None:
        scene = Scene(lambda _: 60.0, patience=29.0)
        scene.batcher.learn(1, 0.1)
        scene.ask()
        late = scene.ask()
        assert late.error is None
        await scene.until(100.0)
        assert isinstance(late.error, ProblemError)
        assert late.error.status == 429
        assert len(scene.engine.calls) == 1

    play(stuck)


def test_rows_count_a_large_request_is_a_longer_wait() -> None:
    async def large() -> None:
        scene = Scene(lambda inputs: 0.1 * len(inputs["x"]), batches=True, patience=29.0, max_rows=8)
        for size in (1, 2, 4, 8, 16, 32, 64, 128, 256):
            scene.batcher.learn(size, 0.1 * size)
        scene.ask([1.0])
        assert scene.ask([1.0] * 256).error is None
        assert scene.ask([1.0] * 256).error is not None  # 51 seconds

    play(large)


def test_texts_are_weighed_by_their_length() -> None:
    async def texts() -> None:
        scene = Scene(
            lambda inputs: 0.001 * sum(len(text) for text in inputs["x"]),
            batches=True,
            datatype="BYTES",
            patience=29.0,
        )
        short, long = "s" * 10, "l" * 4000
        for size in (len(short), 100, 1000, len(long), 10 * len(long)):
            scene.batcher.learn(size, 0.001 * size)
        scene.ask([short])
        assert scene.ask([short]).error is None
        assert scene.ask([long] * 6).error is None
        assert scene.ask([long] * 3).error is not None
        assert scene.ask([short]).error is not None

    play(texts)


def test_the_smallest_request_is_told_that_there_is_no_room_only_under_overload() -> None:
    async def overload() -> None:
        scene = Scene(constant)
        scene.batcher.learn(1, CALL)
        scene.batcher.require_room()
        scene.ask()
        await scene.until(0.001)
        scene.batcher.require_room()
        while scene.ask().error is None:
            pass
        for _ in range(10):
            scene.ask()
        with pytest.raises(ProblemError) as raised:
            scene.batcher.require_room()
        assert raised.value.status == 429

    play(overload)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 29.0),
        ({b"x-envoy-expected-rq-timeout-ms": b"1500"}, 1.5),
        ({b"x-envoy-expected-rq-timeout-ms": b"60000"}, 29.0),
        ({b"x-envoy-expected-rq-timeout-ms": b"-1"}, 29.0),
        ({b"x-envoy-expected-rq-timeout-ms": "²".encode("latin-1")}, 29.0),
    ],
)
def test_a_request_expires_when_its_caller_or_the_api_gives_up(
    headers: dict[bytes, bytes], seconds: float
) -> None:
    server = Server(lambda _request: None, Settings(model_name="m"), metrics.SharedMetrics(1).worker(0))
    request = Request(Connection(server))
    request.headers, request.started = headers, 100.0
    job = RequestJob(request, {}, 1, {}, lambda *_: (b"", b"", b""))
    assert job.expires(29.0) == 100.0 + seconds
