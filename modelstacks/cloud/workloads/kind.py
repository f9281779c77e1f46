"""What the rollout and scaling machine asks of a kind of workload, and what it is given.

ECS services, SageMaker endpoints and Lambda functions are kinds. A kind knows how to start one replica, what
a healthy one is and how to take it off its front (a target group, a variant's router, a pool of execution
environments). The machine (machine.py) knows how many should run, of which revision, and what to do when
they fail. It knows no service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from modelstacks.cloud.host.replicas import Replica
from modelstacks.cloud.workloads.policies import Bounds, Counters, Policy

__all__ = [
    "Budget",
    "GivenUp",
    "Goal",
    "Maker",
    "OnDemand",
    "Outcome",
    "Share",
    "Sick",
    "StartFailedError",
    "Terms",
    "Unit",
    "Watch",
]


class StartFailedError(Exception):
    """A replica, or what all replicas of a revision need, could not be started; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Sick:
    """Its health checks gave a replica up. `lasting`: for a reason that waiting does not change."""

    why: str
    lasting: bool = False


class Unit(Protocol):
    """One replica as the machine sees it: processes that live and end together, and a place at a front."""

    @property
    def replicas(self) -> Sequence[Replica]:
        """Its processes, for `status`."""

    @property
    def alive(self) -> bool:
        """Whether it still runs."""

    @property
    def healthy(self) -> bool:
        """Whether it gets requests."""

    @property
    def sick(self) -> Sick | None:
        """Why it should be replaced although it runs."""

    @property
    def cause(self) -> str:
        """Why it ended, or what its last health check found; empty where nothing is wrong."""

    async def withdraw(self) -> None:
        """Take it off its front, so that it gets no new requests; returns when the front lets it go."""

    async def stop(self) -> None:
        """End its processes."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Why a revision was given up."""

    group: str
    failures: int
    cause: str
    rolled_back: bool


class Maker(Protocol):
    """Makes the replicas of one revision."""

    async def open(self) -> None:
        """Prepare what all replicas share. Raises StartFailedError, which gives the revision up."""

    async def start(self, group: str) -> Unit:
        """Start one replica. Raises StartFailedError, which counts as a failed replica."""

    async def close(self) -> None:
        """Release what `open` prepared; every replica has ended."""

    def explain(self, given_up: GivenUp) -> str:
        """The reason that users see, in the service's own words."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may go wrong until a revision is given up; None for no limit."""

    failures: int | None = None  # replicas that ended, or whose health checks gave them up
    seconds: float | None = None  # for the replicas to become healthy, from when the first could start
    resets: bool = True  # a replica that becomes healthy resets the count of failures


@dataclass(frozen=True, slots=True)
class OnDemand:
    """Replicas start when a request needs one, serve one at a time, and end after `idle` seconds without."""

    idle: float


@dataclass(frozen=True, slots=True)
class Share:
    """How many replicas of one group should run."""

    desired: int
    budget: Budget = field(default_factory=Budget)
    on_demand: OnDemand | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """How one revision replaces another.

    With `limits` (minimum and maximum percent of the desired count) replicas are replaced step by step;
    without, all new ones start beside the old ones, which serve until the last new one is healthy.
    """

    limits: tuple[int, int] | None = None
    grace: float = 0.0  # seconds in which a failed health check does not replace a replica
    rollback: bool = True  # whether the last completed revision is restored when one is given up
    drain: float = 0.0  # seconds that a replica gets to finish the requests that the machine counts


@dataclass(frozen=True, slots=True)
class Goal:
    """What should run. `generation` names it in reports; equal blueprints make equal replicas."""

    generation: str
    blueprint: object
    groups: Mapping[str, Share]
    terms: Terms


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a goal is doing. `restored` is the maker of the revision that was returned to after a failure."""

    generation: str
    state: Literal["starting", "stable", "failed"]
    running: int
    reason: str = ""
    restored: Maker | None = None


class Watch(Protocol):
    """Receives what the machine reports, and answers what scaling asks."""

    def changed(self) -> None:
        """Something that `status` shows is different."""

    def report(self, outcome: Outcome) -> None:
        """How the goal is doing; called after each step."""

    def bounds(self, group: str) -> Bounds | None:
        """Between which counts a group is scaled; None where it is not."""

    def policies(self, group: str) -> Sequence[Policy]:
        """The scaling policies of a group."""

    def counters(self, group: str, healthy: Sequence[Unit]) -> Counters:
        """What the group's replicas have done so far."""

    async def set_desired(self, group: str, count: int) -> None:
        """Write a count into the account, as Application Auto Scaling does."""
