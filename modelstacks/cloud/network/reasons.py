"""Why calls that a function made to AWS were refused, by the trace of the request that it served."""

from __future__ import annotations

import re

__all__ = ["Reasons", "trace_root"]


class Reasons:
    """AWS gives a function an error code alone; the embedded cloud's API names the rule in its answer."""

    _MOST = 1_000

    def __init__(self) -> None:
        self._by_trace: dict[str, str] = {}

    def note(self, trace: str | None, reason: str | None) -> None:
        """Keep the reason of a refusal until the request is answered."""
        if (root := trace_root(trace)) and reason:
            if len(self._by_trace) >= self._MOST:
                self._by_trace.clear()
            self._by_trace[root] = reason

    def take(self, trace: str) -> str:
        """The last reason that was kept for a request, if any."""
        return self._by_trace.pop(trace_root(trace), "")


def trace_root(trace: str | None) -> str:
    """The root of an X-Ray trace header; empty for anything else."""
    found = re.search(r"(?:^|;)\s*Root=(1-[0-9a-fA-F]{8}-[0-9a-fA-F]{24})(?:;|$)", trace or "")
    return found[1] if found else ""
