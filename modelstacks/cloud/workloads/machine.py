"""The rollout and scaling machine: one for services, endpoints and functions.

A `Workload` follows one goal: it replaces the revision that serves (`active`) by the one that was asked for
(`coming`), keeps the desired number of replicas running, gives a revision up whose budget of failures is
spent, and follows the scaling policies while nothing is being replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Literal

from modelstacks.cloud.clock import SPEEDUP
from modelstacks.cloud.host.replicas import Replica
from modelstacks.cloud.workloads.kind import GivenUp, Goal, Maker, Outcome, StartFailedError, Watch
from modelstacks.cloud.workloads.metrics import unemulated
from modelstacks.cloud.workloads.revision import Group, Load, Revision
from modelstacks.cloud.workloads.rolling import Limits, Tasks, next_moves
from modelstacks.cloud.workloads.scaling import Scaler
from modelstacks.core.errors import ModelstacksError

__all__ = ["Workload"]

POLL_SECONDS = 0.05
log = logging.getLogger("modelstacks.cloud")


class Workload:
    """One service, endpoint or function.

    `account` is held while the account is read and followed: a count that scaling writes between the two
    would be undone by the older reading. `pace` is how many times as fast the seconds of scaling pass.
    """

    def __init__(self, name: str, watch: Watch, account: asyncio.Lock) -> None:
        self.name = name
        self.pace = SPEEDUP
        self.active: Revision | None = None  # the last one that was completed
        self.coming: Revision | None = None  # the one that replaces it
        self.state: Literal["starting", "stable", "failed"] = "starting"
        self.reason: str | None = None
        self.desired: dict[str, int] = {}
        self._asked: dict[str, int] = {}  # what the account said last
        self._watch, self._account = watch, account
        self._loads: defaultdict[str, Load] = defaultdict(Load)
        self._scalers: defaultdict[str, Scaler] = defaultdict(lambda: Scaler(lambda: self.pace))
        self._goal: Goal | None = None
        self._loop: asyncio.Task[None] | None = None
        self._stepping = asyncio.Lock()
        self._interrupted = False  # by a fault of the machine, not of the replicas
        self._leaving: dict[asyncio.Task[None], Revision] = {}  # those that are being stopped

    # --- what is asked ----------------------------------------------------------------------------

    async def follow(self, goal: Goal, make: Callable[[], Maker], *, again: bool = False) -> None:
        """Follow a goal from now on. `again` tries one anew that failed, though it is the same."""
        before, self._goal = self._goal, goal
        self._take_over_counts(goal)
        await self._keep_within_bounds(goal)
        if before is None or before.generation != goal.generation or (again and self.state == "failed"):
            self._deploy(goal, make)
        else:
            for revision in self._revisions():
                if revision.goal.generation == goal.generation:
                    revision.goal = goal
        if self._loop is None:
            self._loop = asyncio.create_task(self._run(), name=f"workload {self.name}")

    def _take_over_counts(self, goal: Goal) -> None:
        """A count that the account changed counts; otherwise the one that scaling has made of it."""
        asked = {name: share.desired for name, share in goal.groups.items()}
        for name, count in asked.items():
            if self._asked.get(name) != count or name not in self.desired:
                self.desired[name] = count
        self.desired = {name: self.desired[name] for name in asked}
        self._asked = asked

    async def _keep_within_bounds(self, goal: Goal) -> None:
        """Application Auto Scaling keeps the desired count between its minimum and maximum."""
        for name in goal.groups:
            bounds = self._watch.bounds(name)
            within = bounds.clamp(self.desired[name]) if bounds else self.desired[name]
            if within == self._asked[name]:
                continue
            if within > self.desired[name] and self.state == "stable":
                self.state = "starting"  # until the missing replicas have come up
            await self._set_desired(name, within)

    async def _set_desired(self, group: str, count: int) -> None:
        await self._watch.set_desired(group, count)
        self.desired[group] = self._asked[group] = count
        self._watch.changed()

    def _deploy(self, goal: Goal, make: Callable[[], Maker]) -> None:
        """Roll a new revision out, or return to the revision that it was to replace."""
        interrupted = self.coming is not None or self.state == "failed"
        if self.coming is not None:
            self._leave(self.coming)
            self.coming = None
        self.state, self.reason = "starting", None
        active = self.active
        if interrupted and active is not None and active.goal.blueprint == goal.blueprint:
            active.goal = goal
            return
        self.coming = Revision(goal, make(), self._loads.__getitem__, self._watch.changed)

    async def prepared(self) -> None:
        """Return when the coming revision's replicas can be started, or when it was given up."""
        if self.coming is not None:
            await asyncio.gather(self.coming.opening, return_exceptions=True)
            await self._step()

    # --- what runs --------------------------------------------------------------------------------

    def _revisions(self) -> Iterator[Revision]:
        return (one for one in (self.active, self.coming) if one is not None)

    def replicas(self) -> list[Replica]:
        """Every process, for `status`."""
        return [one for revision in self._revisions() for unit in revision.units() for one in unit.replicas]

    def wanted(self) -> int:
        """The desired count of all groups."""
        return sum(self.desired.values())

    def hurry(self) -> None:
        """Wait no longer for the requests of replicas that are being stopped."""
        for revision in (*self._revisions(), *self._leaving.values()):
            revision.hurried = True

    async def close(self) -> None:
        """Stop every replica, each after the requests that it has."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        await asyncio.gather(*(revision.stop() for revision in self._revisions()), *self._leaving)

    # --- the controller ---------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                if self.state == "stable":
                    await self._scale()
                await self._step()
            except ModelstacksError as error:
                self._interrupt(str(error))
            except Exception as error:  # the workload fails; the others and this loop go on
                log.exception("workload %s", self.name)
                self._interrupt(f"internal error: {error!r}")
            else:
                self._recover()
            self._report()
            await asyncio.sleep(POLL_SECONDS)

    def _interrupt(self, reason: str) -> None:
        """Show a fault that has nothing to do with the replicas, for as long as it lasts."""
        self._interrupted = True
        self._fail(reason)

    def _recover(self) -> None:
        """Go on after such a fault."""
        if self._interrupted and self.state == "failed":
            self.state, self.reason = "starting", None
        self._interrupted = False

    async def _step(self) -> None:
        async with self._stepping:
            await self._advance()

    async def _advance(self) -> None:
        for revision in self._revisions():
            for group in revision.groups.values():
                group.tend(revision.goal.terms, resets=group.share.budget.resets or revision is self.active)
        if self.coming is None:
            await self._hold()
        else:
            await self._roll_out(self.coming)

    async def _hold(self) -> None:
        """Keep the desired count of the active revision running."""
        if self.active is None:
            return
        for name, group in self.active.groups.items():
            if (on_demand := group.share.on_demand) is not None:
                group.expire(on_demand.idle / self.pace)
                continue
            if self.state != "failed":  # a failed rollout that was not rolled back keeps what is left
                group.wanted = self.desired.get(name, 0)
            await group.start_up_to(group.wanted)
            group.retire_some(len(group.running()) - group.wanted)
        if self.state == "starting" and self._complete(self.active):
            self.state, self.reason = "stable", None
            self._watch.changed()

    def _complete(self, revision: Revision) -> bool:
        """Whether as many replicas as are desired run and are healthy, and no more."""
        return all(
            group.share.on_demand is not None
            or group.count() == Tasks(self.desired.get(name, 0), self.desired.get(name, 0))
            for name, group in revision.groups.items()
        )

    async def _roll_out(self, new: Revision) -> None:
        """One step of a rollout, unless it has to be given up."""
        try:
            if not new.ready():
                await self._hold_old()
                return
        except (StartFailedError, ModelstacksError) as error:
            self._give_up(new, str(error))
            return
        for name, group in new.groups.items():
            short = group.count().healthy < self.desired[name]
            if group.spent() or (short and group.late()):
                given_up = GivenUp(name, group.failures, group.why_unhealthy(), self._restored() is not None)
                self._give_up(new, new.maker.explain(given_up))
                return
        if self._goal is not None and self._goal.terms.limits is not None:
            await self._replace_step_by_step(new, self._goal.terms.limits)
        else:
            await self._replace_at_once(new)

    async def _hold_old(self) -> None:
        """Replace what ends of the old revision while the new one is not ready."""
        for group in self.active.groups.values() if self.active else ():
            if group.share.on_demand is None:
                await group.start_up_to(group.wanted)

    async def _replace_at_once(self, new: Revision) -> None:
        """All new replicas beside the old ones, which leave when the last new one is healthy."""
        await self._hold_old()
        for name, group in new.groups.items():
            if group.share.on_demand is None:
                group.wanted = self.desired[name]
                await group.start_up_to(group.wanted)
        if self._complete(new):
            self._take_over(new)

    async def _replace_step_by_step(self, new: Revision, percent: tuple[int, int]) -> None:
        """Start and stop as many as the limits let."""
        old = self.active
        for name, group in new.groups.items():
            await self._roll(group, old.groups.get(name) if old else None, self.desired[name], percent)
        healthy = all(group.count().healthy >= self.desired[name] for name, group in new.groups.items())
        if healthy and (old is None or not old.count().running):
            self._take_over(new)

    async def _roll(self, new: Group, old: Group | None, desired: int, percent: tuple[int, int]) -> None:
        limits = Limits.of(desired, *percent)
        moves = next_moves(limits, new.count(), old.count() if old else Tasks(0, 0))
        new.wanted = desired
        await new.start_up_to(len(new.running()) + moves.start_new)
        new.retire_some(len(new.running()) - desired)
        if old is not None:
            old.retire_some(moves.stop_old)
            still = max(0, desired - new.count().healthy)
            old.wanted = min(old.wanted - moves.stop_old, still)
            await old.start_up_to(min(old.wanted, limits.highest - len(new.running())))

    def _take_over(self, new: Revision) -> None:
        """Every replica of the new revision is healthy: it is the workload's."""
        before, self.active, self.coming = self.active, new, None
        for group in new.groups.values():
            group.failures = 0
        self.state, self.reason = "stable", None
        self._watch.changed()
        if before is not None:
            self._leave(before)

    # --- giving up --------------------------------------------------------------------------------

    def _restored(self) -> Revision | None:
        return self.active if self._goal is not None and self._goal.terms.rollback else None

    def _give_up(self, new: Revision, reason: str) -> None:
        """Stop a revision, and return to the last completed one where the workload says so."""
        restored = self._restored()
        self.coming = None
        self._leave(new)
        self._fail(reason)
        maker = restored.maker if restored else None
        self._watch.report(Outcome(new.goal.generation, "failed", 0, reason, maker))

    def _fail(self, reason: str) -> None:
        self.state, self.reason = "failed", reason
        self._watch.changed()

    def _leave(self, revision: Revision) -> None:
        """Stop a revision without waiting for it."""
        task = asyncio.create_task(revision.stop())
        self._leaving[task] = revision
        task.add_done_callback(lambda done: self._leaving.pop(done, None))

    def _report(self) -> None:
        """Say how the goal is doing; a failure was reported when it happened."""
        primary = self.coming or self.active
        if primary is None or self._goal is None or self.state == "failed":
            return
        stable = self.coming is None and self._complete(primary)
        state: Literal["starting", "stable"] = "stable" if stable else "starting"
        running = primary.count().healthy
        self._watch.report(Outcome(self._goal.generation, state, running, self.reason or ""))

    # --- scaling ----------------------------------------------------------------------------------

    async def _scale(self) -> None:
        """Follow the scaling policies of each group that has bounds."""
        active = self.active
        if active is None:
            return
        for name, group in active.groups.items():
            bounds = self._watch.bounds(name)
            policies = self._watch.policies(name)
            if bounds is None or not policies:
                continue
            units = [one.unit for one in group.healthy()]
            counters = functools.partial(self._watch.counters, name, units)
            count = self._scalers[name].look(policies, bounds, time.monotonic(), counters, self.desired[name])
            if count == self.desired[name]:
                continue
            async with self._account:
                if self.desired[name] == count or self.coming is not None:  # an update came first
                    continue
                with contextlib.suppress(StartFailedError):
                    await self._set_desired(name, count)

    def unemulated(self) -> tuple[str, ...]:
        """The scaling policies that are not followed, each with the reason."""
        groups = self.active.groups if self.active else ()
        found = (unemulated(policy) for name in groups for policy in self._watch.policies(name))
        return tuple(why for why in found if why)

    def load(self, group: str) -> Load:
        """The requests at a group, as far as the machine counts them."""
        return self._loads[group]
