"""The replicas of one revision: they start with a back-off, are watched, and end in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from modelstacks.cloud.workloads.kind import Goal, Maker, Share, StartFailedError, Terms, Unit
from modelstacks.cloud.workloads.rolling import Tasks
from modelstacks.core.errors import ModelstacksError

__all__ = ["Group", "Load", "Member", "Revision"]

SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two starts, after failures


class Load:
    """The requests at a group: how many there were, and for how long each was in flight."""

    def __init__(self) -> None:
        self.requests = self.in_flight = 0
        self._seconds, self._since = 0.0, time.monotonic()

    def seconds(self) -> float:
        """The seconds that all requests have been in flight, summed up; one in flight counts so far."""
        now = time.monotonic()
        self._seconds, self._since = self._seconds + self.in_flight * (now - self._since), now
        return self._seconds

    def begin(self) -> None:
        """A request arrives."""
        self.seconds()
        self.requests += 1
        self.in_flight += 1

    def end(self) -> None:
        """A request was answered."""
        self.seconds()
        self.in_flight -= 1


@dataclass(eq=False)
class Member:
    """A replica in its group."""

    unit: Unit
    since: float = field(default_factory=time.monotonic)  # started, or became idle
    started: float = field(default_factory=time.monotonic)
    in_flight: int = 0
    stopping: bool = False
    ending: asyncio.Task[None] | None = None

    def healthy(self) -> bool:
        """Whether it runs and gets requests."""
        return self.unit.alive and self.unit.healthy


class Group:
    """Equal replicas of one revision: the tasks of a service, the instances of one production variant."""

    def __init__(self, name: str, revision: Revision, load: Load, changed: Callable[[], None]) -> None:
        self.name, self._revision, self.load, self._changed = name, revision, load, changed
        self.members: list[Member] = []
        self.wanted = 0  # replicas to keep running
        self.failures = 0  # replicas that ended or never became healthy
        self.cause = ""
        self.opened = time.monotonic()
        self._attempted = 0.0
        self._proven: set[int] = set()  # members that have been healthy
        self._starting: set[asyncio.Task[Member | None]] = set()

    @property
    def share(self) -> Share:
        """What was asked for it."""
        return self._revision.goal.groups[self.name]

    def running(self) -> list[Member]:
        """The replicas that are not being stopped."""
        return [one for one in self.members if not one.stopping]

    def healthy(self) -> list[Member]:
        """Those of them that get requests."""
        return [one for one in self.running() if one.healthy()]

    def count(self) -> Tasks:
        """How many run, and how many of them are healthy."""
        return Tasks(len(self.running()), len(self.healthy()))

    def why_unhealthy(self) -> str:
        """The last failure's cause, or what the health checks of a running replica found."""
        return self.cause or next((one.unit.cause for one in self.running() if one.unit.cause), "")

    # --- starting ---------------------------------------------------------------------------------

    async def start_up_to(self, wanted: int) -> None:
        """Start replicas until `wanted` run; after failures, ever more slowly."""
        for _ in range(wanted - len(self.running())):
            if self.failures and not self._pause_over():
                return
            self._attempted = time.monotonic()
            try:
                await self.start_one()
            except (StartFailedError, ModelstacksError) as error:
                self.fail(str(error))
            self._changed()

    async def start_one(self) -> None:
        """Start one replica. Raises StartFailedError.

        A start that has begun ends even where its caller is cancelled: no process is left that nobody knows.
        """
        await asyncio.shield(self._begin(in_flight=0))

    def _begin(self, in_flight: int) -> asyncio.Task[Member | None]:
        starting = asyncio.create_task(self._start(in_flight))
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)
        return starting

    async def _start(self, in_flight: int) -> Member | None:
        """The replica; None where the revision was closed meanwhile."""
        unit = await self._revision.maker.start(self.name)
        if self._revision.closing:
            await unit.withdraw()
            await unit.stop()
            return None
        member = Member(unit, in_flight=in_flight)
        self.members.append(member)
        return member

    def _pause_over(self) -> bool:
        pause: float = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(self.failures, 6))
        return time.monotonic() - self._attempted > pause

    def fail(self, cause: str) -> None:
        """One more replica has failed."""
        self.failures += 1
        self.cause = cause or self.cause

    # --- looking after them -----------------------------------------------------------------------

    def tend(self, terms: Terms, *, resets: bool) -> None:
        """Notice who became healthy, forget who ended, replace who is sick."""
        fresh = {id(one) for one in self.healthy()} - self._proven
        self._proven = {id(one) for one in self.members} & (self._proven | fresh)
        if fresh and resets:
            self.failures = 0
        for one in self.running():
            sick = one.unit.sick
            if not one.unit.alive:
                self.fail(one.unit.cause)
                self.retire(one)
            elif sick is not None and (sick.lasting or time.monotonic() - one.started >= terms.grace):
                self.fail(sick.why)
                self.retire(one)

    def late(self) -> bool:
        """Whether the time for its replicas to become healthy is over."""
        seconds = self.share.budget.seconds
        return seconds is not None and time.monotonic() - self.opened > seconds

    def spent(self) -> bool:
        """Whether more replicas have failed than may."""
        most = self.share.budget.failures
        return most is not None and self.failures >= most

    # --- requests that the machine counts ----------------------------------------------------------

    @contextmanager
    def serving(self, member: Member) -> Iterator[None]:
        """A request at a replica; the replica is not stopped under it while the drain time lasts."""
        member.in_flight += 1
        self.load.begin()
        try:
            yield
        finally:
            self.load.end()
            member.in_flight -= 1
            member.since = time.monotonic()

    @asynccontextmanager
    async def leased(self) -> AsyncIterator[Member | None]:
        """A replica of its own for one request: an idle one, or one that is started for it.

        None where the revision was closed meanwhile. Raises what the start raises.
        """
        member = self._idle()
        if member is not None:
            member.in_flight += 1
        else:
            starting = self._begin(in_flight=1)
            try:
                member = await asyncio.shield(starting)
            except asyncio.CancelledError:
                starting.add_done_callback(_release)
                raise
        if member is None:
            yield None
            return
        self.load.begin()
        try:
            yield member
        finally:
            self.load.end()
            member.in_flight -= 1
            member.since = time.monotonic()

    def least_busy(self) -> Member | None:
        """The healthy replica with the fewest requests in flight."""
        return min(self.healthy(), key=lambda one: one.in_flight, default=None)

    def _idle(self) -> Member | None:
        """The healthy replica that served last and serves nothing now."""
        return max(
            (one for one in self.healthy() if not one.in_flight), key=lambda one: one.since, default=None
        )

    def expire(self, seconds: float) -> None:
        """End the replicas that have been idle for longer."""
        now = time.monotonic()
        for one in self.running():
            if not one.in_flight and now - one.since > seconds:
                self.retire(one)

    # --- ending -----------------------------------------------------------------------------------

    def retire_some(self, count: int) -> None:
        """Stop `count` replicas: the unhealthy ones first, then the youngest."""
        order = sorted(self.running(), key=lambda one: (one.healthy(), -one.started))
        for one in order[: max(0, count)]:
            self.retire(one)

    def retire(self, member: Member) -> None:
        """Stop one replica without waiting for it."""
        if member.ending is None:
            member.stopping = True
            for replica in member.unit.replicas:
                if replica.alive:
                    replica.state = "draining"
            member.ending = asyncio.create_task(self._end(member))

    async def _end(self, member: Member) -> None:
        """Take it off its front first, so that requests in flight are answered, then stop its processes."""
        await member.unit.withdraw()
        deadline = time.monotonic() + self._revision.goal.terms.drain
        while member.in_flight and member.unit.alive and time.monotonic() < deadline:
            if self._revision.hurried:
                break
            await asyncio.sleep(0.01)
        await member.unit.stop()
        if member in self.members:
            self.members.remove(member)

    async def stop(self) -> None:
        """Stop every replica and wait for their end; one that is coming up is stopped by its start."""
        for one in self.members:
            self.retire(one)
        await asyncio.gather(*(one.ending for one in self.members if one.ending is not None))


def _release(starting: asyncio.Task[Member | None]) -> None:
    """Nobody waits for this replica any more."""
    if (
        not starting.cancelled()
        and starting.exception() is None
        and (member := starting.result()) is not None
    ):
        member.in_flight -= 1


class Revision:
    """What a goal asked for, and the replicas that run it."""

    def __init__(
        self, goal: Goal, maker: Maker, load: Callable[[str], Load], changed: Callable[[], None]
    ) -> None:
        self.goal, self.maker = goal, maker
        self.groups = {name: Group(name, self, load(name), changed) for name in goal.groups}
        self.closing = False
        self.hurried = False  # nobody waits for the answers to requests any more
        self.opening: asyncio.Task[None] = asyncio.create_task(self._open())

    async def _open(self) -> None:
        await self.maker.open()
        for group in self.groups.values():
            group.opened = time.monotonic()

    def ready(self) -> bool:
        """Whether replicas can be started. Raises what opening it raised."""
        if not self.opening.done():
            return False
        self.opening.result()
        return True

    def units(self) -> list[Unit]:
        """Every replica, those that are being stopped included."""
        return [one.unit for group in self.groups.values() for one in group.members]

    def count(self) -> Tasks:
        """How many run, and how many of them are healthy, in all groups."""
        counts = [group.count() for group in self.groups.values()]
        return Tasks(sum(one.running for one in counts), sum(one.healthy for one in counts))

    async def stop(self) -> None:
        """Stop every replica, then release what they shared."""
        self.closing = True
        self.opening.cancel()
        await asyncio.gather(self.opening, return_exceptions=True)
        await asyncio.gather(*(group.stop() for group in self.groups.values()))
        await self.maker.close()
