"""What the control plane knows that AWS's own APIs have no question for."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from dataclasses import dataclass

from modelstacks.core.errors import EnvironmentFault

__all__ = ["Unemulated", "unemulated"]


@dataclass(frozen=True, slots=True, order=True)
class Unemulated:
    """A resource that a deploy accepted and that nothing here emulates."""

    stack: str
    type: str
    logical_id: str

    def __str__(self) -> str:
        return f"accepted, not emulated: {self.type} ({self.logical_id})"


def unemulated(endpoint: str, region: str) -> list[Unemulated]:
    """Every such resource of every stack in `region`, sorted. Raises EnvironmentFault when nothing
    answers.
    """
    url = f"{endpoint}/_modelstacks/unemulated?{urllib.parse.urlencode({'region': region})}"
    try:
        with urllib.request.urlopen(url, timeout=10.0) as answer:  # noqa: S310  the embedded cloud's own URL
            stacks = json.load(answer)
    except (OSError, ValueError) as error:
        raise EnvironmentFault(
            "the control plane does not answer", got=str(error), fix="modelstacks up"
        ) from None
    return sorted(
        Unemulated(stack, entry["type"], entry["logical_id"])
        for stack, entries in stacks.items()
        for entry in entries
    )
