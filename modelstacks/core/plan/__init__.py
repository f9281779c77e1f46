"""The Plan: one spec and its lock joined for one architecture. Every consumer reads it and nothing else."""

from modelstacks.core.plan.plan import Plan, Selection, make_plan
from modelstacks.core.plan.runtime import ModelServer, Runtime, VendorImage

__all__ = ["ModelServer", "Plan", "Runtime", "Selection", "VendorImage", "make_plan"]
