"""One finding of `modelstacks doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Check"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `warning` is for what only some commands need."""

    name: str
    state: Literal["ok", "warning", "failed"]
    found: str
    fix: str = ""
