"""AWS's services, one folder each; a service is found by its folder being here.

types.py      its CloudFormation types
patches.py    what moto's API of it lacks
calls.py      how its API's calls are read and checked
snapshot.py   what is read back of it
runtime.py    what runs, and what answers requests
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.util import find_spec
from types import ModuleType

__all__ = ["service_modules"]


def service_modules(name: str) -> list[ModuleType]:
    """The module of this name of every service that has one, imported, by the services' names."""
    folders = sorted(found.name for found in pkgutil.iter_modules(__path__) if found.ispkg)
    modules = (f"{__name__}.{folder}.{name}" for folder in folders)
    return [importlib.import_module(module) for module in modules if find_spec(module) is not None]
