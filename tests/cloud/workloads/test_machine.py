"""The rollout machine with replicas that are mere flags: what it starts, stops, reports and gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from modelstacks.cloud.host.replicas import Replica
from modelstacks.cloud.workloads import kind
from modelstacks.cloud.workloads.departures import Departures
from modelstacks.cloud.workloads.kind import Budget, Goal, OnDemand, Share, Sick, StartFailedError, Terms
from modelstacks.cloud.workloads.machine import Workload
from modelstacks.cloud.workloads.policies import Bounds, Counters, Policy

PATIENCE = 20.0


@dataclass(eq=False)
class Unit:
    """A replica that does what a test says."""

    revision: str
    group: str
    alive: bool = True
    healthy: bool = True
    sick: Sick | None = None
    cause: str = ""
    withdrawn: bool = False
    replicas: Sequence[Replica] = ()

    async def withdraw(self) -> None:
        self.withdrawn = True

    async def stop(self) -> None:
        self.alive = False


@dataclass
class Maker:
    """Makes the replicas of a revision, healthy ones unless a test says otherwise."""

    revision: str
    units: list[Unit] = field(default_factory=list)
    refuses: str = ""  # why no replica starts
    surprises: int = 0  # starts that raise what nobody expects
    cannot_open: str = ""
    healthy: bool = True
    is_open: bool = False

    async def open(self) -> None:
        if self.cannot_open:
            raise StartFailedError(self.cannot_open)
        self.is_open = True

    async def start(self, group: str) -> Unit:
        await asyncio.sleep(0)
        if self.surprises:
            self.surprises -= 1
            raise ZeroDivisionError("a defect")
        if self.refuses:
            raise StartFailedError(self.refuses)
        self.units.append(Unit(self.revision, group, healthy=self.healthy))
        return self.units[-1]

    async def close(self) -> None:
        self.is_open = False

    def explain(self, given_up: kind.GivenUp) -> str:
        back = ", rolled back" if given_up.rolled_back else ""
        return f"{given_up.group}: {given_up.failures} failed: {given_up.cause}{back}"

    def running(self, group: str = "main") -> list[Unit]:
        return [one for one in self.units if one.alive and one.group == group]


@dataclass
class Watch:
    """Remembers what it was told; its bounds are a test's."""

    outcomes: list[kind.Outcome] = field(default_factory=list)
    limits: Bounds | None = None
    written: list[int] = field(default_factory=list)

    def changed(self) -> None: ...

    def report(self, outcome: kind.Outcome) -> None:
        self.outcomes.append(outcome)

    def bounds(self, group: str) -> Bounds | None:
        return self.limits

    def policies(self, group: str) -> Sequence[Policy]:
        return ()

    def counters(self, group: str, healthy: Sequence[kind.Unit]) -> Counters:
        return Counters(at=0.0, healthy=len(healthy))

    async def set_desired(self, group: str, count: int) -> None:
        self.written.append(count)

    def failures(self) -> list[str]:
        return [one.reason for one in self.outcomes if one.state == "failed"]


class Machine:
    """A workload and the revisions that a test deployed."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.workload = Workload("churn", self.watch, asyncio.Lock())
        self.makers: dict[str, Maker] = {}

    async def deploy(self, revision: str, desired: int = 2, **options: Any) -> Maker:
        """Follow a new goal; the options are the maker's, or `terms` and `share`."""
        terms = options.pop("terms", Terms(limits=(100, 200)))
        share = replace(options.pop("share", Share(0)), desired=desired)
        maker = self.makers[revision] = Maker(revision, **options)
        groups = options.pop("groups", {"main": share})
        await self.workload.follow(Goal(revision, revision, groups, terms), lambda: maker)
        return maker

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not true():
                await asyncio.sleep(0.01)

    async def stable(self) -> None:
        await self.until(lambda: self.workload.state == "stable")


def running(work: Callable[[Machine], Any]) -> None:
    """Run a test's coroutine with a machine, and stop that afterwards."""

    async def main() -> None:
        machine = Machine()
        try:
            await work(machine)
        finally:
            await machine.workload.close()
        assert not [one for maker in machine.makers.values() for one in maker.units if one.alive]

    asyncio.run(main())


def test_it_runs_as_many_replicas_as_are_desired_and_stops_all_when_closed() -> None:
    async def work(machine: Machine) -> None:
        maker = await machine.deploy("one", desired=3)
        await machine.stable()
        assert len(maker.running()) == 3
        await machine.until(lambda: machine.watch.outcomes[-1].running == 3)
        assert machine.watch.outcomes[-1].state == "stable"

    running(work)


def test_it_replaces_a_replica_that_ends() -> None:
    async def work(machine: Machine) -> None:
        maker = await machine.deploy("one")
        await machine.stable()
        maker.units[0].alive = False
        await machine.until(lambda: len(maker.units) == 3)
        assert len(maker.running()) == 2

    running(work)


def test_it_replaces_a_sick_replica_after_its_grace_and_takes_it_off_its_front_first() -> None:
    async def work(machine: Machine) -> None:
        maker = await machine.deploy("one", terms=Terms(limits=(100, 200), grace=3600.0))
        await machine.stable()
        maker.units[0].sick = Sick("slow")
        maker.units[1].sick = Sick("404", lasting=True)
        await machine.until(lambda: len(maker.units) == 3)
        assert maker.units[0].alive, "within its grace"
        await machine.until(lambda: not maker.units[1].alive)
        assert maker.units[1].withdrawn

    running(work)


def test_it_goes_on_after_a_fault_that_nobody_expected() -> None:
    async def work(machine: Machine) -> None:
        maker = await machine.deploy("one", surprises=1)
        await machine.stable()
        assert (len(maker.running()), maker.surprises, machine.workload.reason) == (2, 0, None)

    running(work)


class TestARollout:
    def test_step_by_step_keeps_the_minimum_and_the_maximum(self) -> None:
        async def work(machine: Machine) -> None:
            old = await machine.deploy("one", desired=4)
            await machine.stable()
            new = await machine.deploy("two", desired=4, terms=Terms(limits=(50, 100)))
            counts: set[tuple[int, int]] = set()

            def done() -> bool:
                counts.add((len(old.running()), len(new.running())))
                return machine.workload.state == "stable"

            await machine.until(done)
            assert all(2 <= a + b <= 4 for a, b in counts)
            assert (len(old.running()), len(new.running())) == (0, 4)

        running(work)

    def test_at_once_leaves_the_old_revision_until_every_new_replica_is_healthy(self) -> None:
        async def work(machine: Machine) -> None:
            old = await machine.deploy("one", terms=Terms())
            await machine.stable()
            new = await machine.deploy("two", terms=Terms(), healthy=False)
            await machine.until(lambda: len(new.running()) == 2)
            new.units[0].healthy = True
            await asyncio.sleep(0.2)
            assert len(old.running()) == 2
            new.units[1].healthy = True
            await machine.stable()
            await machine.until(lambda: not old.running() and not old.is_open)

        running(work)

    def test_that_fails_is_given_up_when_its_budget_is_spent_and_the_old_replicas_stay(self) -> None:
        async def work(machine: Machine) -> None:
            old = await machine.deploy("one")
            await machine.stable()
            await machine.deploy("two", share=Share(0, Budget(failures=3)), refuses="no such image")
            await machine.until(lambda: machine.workload.state == "failed")
            assert machine.watch.failures() == ["main: 3 failed: no such image, rolled back"]
            assert machine.watch.outcomes[-1].restored is old
            assert len(old.running()) == 2

        running(work)

    def test_that_cannot_be_opened_is_given_up_at_once(self) -> None:
        async def work(machine: Machine) -> None:
            await machine.deploy("one", cannot_open="no model data")
            await machine.until(lambda: machine.workload.state == "failed")
            assert machine.workload.reason == "no model data"

        running(work)

    def test_whose_replicas_do_not_become_healthy_in_time_is_given_up(self) -> None:
        async def work(machine: Machine) -> None:
            share = Share(0, Budget(seconds=0.2))
            maker = await machine.deploy("one", share=share, healthy=False)
            await machine.until(lambda: len(maker.units) == 2)
            maker.units[0].cause = "GET /ping answered 503"
            await machine.until(lambda: machine.workload.state == "failed")
            assert "GET /ping answered 503" in (machine.workload.reason or "")

        running(work)

    def test_that_is_taken_back_returns_to_the_replicas_that_serve(self) -> None:
        async def work(machine: Machine) -> None:
            old = await machine.deploy("one")
            await machine.stable()
            await machine.deploy("two", refuses="never")
            goal = Goal("three", "one", {"main": Share(2)}, Terms(limits=(100, 200)))
            await machine.workload.follow(goal, lambda: Maker("nobody", refuses="not asked"))
            await machine.stable()
            assert len(old.units) == 2
            assert machine.workload.coming is None

        running(work)

    def test_starts_ever_more_slowly_after_failures(self) -> None:
        async def work(machine: Machine) -> None:
            maker = await machine.deploy("one", desired=1, refuses="it never starts")
            group = machine.workload.coming and machine.workload.coming.groups["main"]
            assert group is not None
            await machine.until(lambda: group.failures >= 3)
            before = group.failures
            await asyncio.sleep(0.2)
            assert group.failures - before <= 1, "0.8 s pass between the third and the fourth start"
            maker.refuses = ""
            await machine.stable()

        running(work)


class TestTheCount:
    def test_stays_within_the_bounds_and_is_written_back(self) -> None:
        async def work(machine: Machine) -> None:
            machine.watch.limits = Bounds(2, 4)
            maker = await machine.deploy("one", desired=1)
            await machine.stable()
            assert (len(maker.running()), machine.watch.written) == (2, [2])

        running(work)

    def test_that_the_account_changes_is_followed_without_a_new_revision(self) -> None:
        async def work(machine: Machine) -> None:
            maker = await machine.deploy("one", desired=1)
            await machine.stable()
            goal = Goal("one", "one", {"main": Share(3)}, Terms(limits=(100, 200)))
            await machine.workload.follow(goal, lambda: maker)
            await machine.until(lambda: len(maker.running()) == 3)
            goal = Goal("one", "one", {"main": Share(1)}, Terms(limits=(100, 200)))
            await machine.workload.follow(goal, lambda: maker)
            await machine.until(lambda: len(maker.running()) == 1)

        running(work)


class TestOnDemand:
    share = Share(0, on_demand=OnDemand(idle=3600.0))
    terms = Terms(drain=PATIENCE)

    async def deployed(self, machine: Machine, revision: str) -> Maker:
        maker = await machine.deploy(revision, desired=0, share=self.share, terms=self.terms)
        await machine.workload.prepared()
        return maker

    def group(self, machine: Machine) -> Any:
        assert machine.workload.active is not None
        return machine.workload.active.groups["main"]

    def test_a_replica_serves_one_request_at_a_time_and_stays_for_the_next(self) -> None:
        async def work(machine: Machine) -> None:
            maker = await self.deployed(machine, "one")
            assert maker.units == []
            async with self.group(machine).leased() as one, self.group(machine).leased() as two:
                assert one.unit is not two.unit
            async with self.group(machine).leased():
                assert len(maker.units) == 2

        running(work)

    def test_an_idle_replica_ends(self) -> None:
        async def work(machine: Machine) -> None:
            maker = await self.deployed(machine, "one")
            async with self.group(machine).leased():
                machine.workload.pace = 1e9
                await asyncio.sleep(0.2)
                assert maker.running()
            await machine.until(lambda: not maker.running())

        running(work)

    def test_a_new_revision_takes_over_at_once_and_the_old_one_finishes_its_requests(self) -> None:
        async def work(machine: Machine) -> None:
            old = await self.deployed(machine, "one")
            async with self.group(machine).leased():
                new = await self.deployed(machine, "two")
                await asyncio.sleep(0.2)
                assert old.running()
                async with self.group(machine).leased() as member:
                    assert member.unit in new.units
            await machine.until(lambda: not old.running())

        running(work)

    def test_a_workload_that_leaves_has_time_for_its_requests_unless_all_has_to_end(self) -> None:
        async def work(machine: Machine) -> None:
            maker = await self.deployed(machine, "one")
            async with self.group(machine).leased():
                departures = Departures()
                departures.begin(machine.workload)
                await asyncio.sleep(0.1)
                assert maker.running(), "it still has a request"
                await departures.finish()
                assert not maker.running()

        running(work)

    def test_a_request_that_goes_away_while_its_replica_starts_leaves_it_idle(self) -> None:
        async def work(machine: Machine) -> None:
            maker = await self.deployed(machine, "one")

            async def request() -> None:
                async with self.group(machine).leased():
                    pass

            going = asyncio.create_task(request())
            await asyncio.sleep(0)
            going.cancel()
            await machine.until(lambda: len(maker.units) == 1)
            async with self.group(machine).leased() as member:
                assert member.unit is maker.units[0]

        running(work)


@pytest.mark.parametrize("desired", [0, 1])
def test_several_groups_take_over_together(desired: int) -> None:
    async def work(machine: Machine) -> None:
        maker = Maker("one", healthy=False)
        machine.makers["one"] = maker
        groups = {"a": Share(1), "b": Share(desired)}
        await machine.workload.follow(Goal("one", "one", groups, Terms()), lambda: maker)
        await machine.until(lambda: len(maker.units) == 1 + desired)
        assert machine.workload.active is None
        for unit in maker.units:
            unit.healthy = True
        await machine.stable()
        assert (len(maker.running("a")), len(maker.running("b"))) == (1, desired)

    running(work)
