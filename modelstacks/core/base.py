"""The two kinds of data here: what a user writes (strict, closed) and what we pass on (frozen, JSON-dumpable)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Frozen", "Strict"]


class Strict(BaseModel):
    """A block of a spec: unknown keys and values of the wrong type are faults, never guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Frozen(BaseModel):
    """Resolved data: immutable, comparable, and the same after a round trip through JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)
