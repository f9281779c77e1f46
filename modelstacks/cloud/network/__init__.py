"""May this connection, this call pass? Pure functions over a Account: None allows, a Refused says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Refused"]


@dataclass(frozen=True, slots=True)
class Refused:
    """A hop that AWS would not let through. `reason` names the rule that is missing or that forbids it."""

    hop: str  # "load balancer churn -> service churn"
    reason: str
    # "network": nothing answers, and AWS's caller waits until it times out. "permission": AWS says no.
    kind: Literal["network", "permission"] = "permission"

    def __str__(self) -> str:
        return f"{self.hop}: {self.reason}"
