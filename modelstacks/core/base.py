"""Two kinds of data: what a user writes (strict, closed) and what we pass on (frozen, JSON-dumpable)."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, StringConstraints

__all__ = ["PATTERN_WORDS", "Frozen", "Strict", "text"]

# A regular expression -> what it allows, in words.
PATTERN_WORDS: Final[dict[str, str]] = {}


class Strict(BaseModel):
    """A block of a spec: unknown keys and values of the wrong type are faults, never guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Frozen(BaseModel):
    """Resolved data: immutable, comparable, and the same after a round trip through JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def text(pattern: str, words: str) -> StringConstraints:
    """A constraint for `Annotated[str, text(...)]`: errors say `words`, the JSON Schema has the pattern."""
    PATTERN_WORDS[pattern] = words
    return StringConstraints(pattern=pattern)
