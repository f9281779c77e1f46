"""The Plan: one spec and its lock joined for one architecture. Every consumer reads it and nothing else."""

from modelstacks.core.plan.plan import (
    Plan,
    PlannedModel,
    Selection,
    make_plan,
)

__all__ = [
    "Plan",
    "PlannedModel",
    "Selection",
    "make_plan",
]
