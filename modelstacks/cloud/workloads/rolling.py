"""The arithmetic of an ECS rolling deployment: how many tasks of which revision to start and to stop now.

minimumHealthyPercent of the desired count is rounded up, maximumPercent down, as in AWS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Limits", "Moves", "Tasks", "next_moves"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How many tasks of a service may run during a deployment, and how many have to be healthy."""

    desired: int
    lowest: int
    highest: int

    @classmethod
    def of(cls, desired: int, minimum_percent: int, maximum_percent: int) -> Limits:
        """From the service's deployment configuration."""
        return cls(
            desired, math.ceil(desired * minimum_percent / 100), math.floor(desired * maximum_percent / 100)
        )


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks of one revision, without those that are being stopped."""

    running: int
    healthy: int


@dataclass(frozen=True, slots=True)
class Moves:
    """What to do next."""

    start_new: int = 0
    stop_old: int = 0


def next_moves(limits: Limits, new: Tasks, old: Tasks) -> Moves:
    """The next moves of a rollout from the old revision to the new one.

    New tasks start within the maximum. An old task stops when a healthy new one has taken its place, or to
    make room where the maximum leaves none; the minimum holds in both cases. Unhealthy ones stop first.
    """
    missing = max(0, limits.desired - new.running)
    room = max(0, limits.highest - new.running - old.running)
    start = min(missing, room)
    replaced = max(0, old.running - max(0, limits.desired - new.healthy))
    stop = replaced if start or not missing else max(replaced, min(missing, old.running))
    unhealthy = old.running - old.healthy
    spare = max(0, new.healthy + old.healthy - limits.lowest)
    return Moves(start, min(stop, unhealthy + spare))
