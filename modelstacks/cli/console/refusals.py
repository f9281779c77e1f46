"""A refused spec or lock as JSON, for every command that has `--json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from modelstacks.core.errors import ModelstacksError, SpecInvalid

__all__ = ["refusal"]


def refusal(error: ModelstacksError) -> dict[str, Any]:
    """Return each fault of a spec, or the parts of the one error."""
    if isinstance(error, SpecInvalid):
        return {"valid": False, "faults": [asdict(fault) for fault in error.faults]}
    parts = {"what": error.what, "got": error.got, "allowed": error.allowed, "fix": error.fix}
    return {"valid": False, "faults": [], "error": parts}
