"""The checks. Every module here defines one CHECK; `checks()` finds them.

A new check is a new file. Its `order` places it among the others; its `settles` says what a pass against
AWS shows, in the words of docs/verified.md.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from modelstacks.verification.subject import Subject
from modelstacks.verification.verdict import Verdict

__all__ = ["Check", "checks"]


@dataclass(frozen=True, slots=True)
class Check:
    """A group of requests that test one aspect of a deployment."""

    name: str
    order: int
    settles: str
    run: Callable[[Subject], Iterator[Verdict]]


def checks() -> tuple[Check, ...]:
    """Return every check, in order. Raises TypeError for a module that defines none."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        check = getattr(importlib.import_module(f"{__name__}.{module.name}"), "CHECK", None)
        if not isinstance(check, Check):
            raise TypeError(f"{__name__}.{module.name} must define CHECK = Check(...)")
        found.append(check)
    return tuple(sorted(found, key=lambda check: check.order))
