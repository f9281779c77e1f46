"""Protocols: the handlers of the routes, each under its operation id in routes.json.

A module here may have

    def handlers(model: ServedModel) -> Mapping[str, Handler]     for the operations that the model can answer

Adding a file adds a protocol; nothing lists them by hand.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model_server.served import Handler, ServedModel


def handlers(model: ServedModel) -> dict[str, Handler]:
    """What every protocol answers for a model, by operation id."""
    found: dict[str, Handler] = {}
    for module in pkgutil.iter_modules(__path__):
        offered = getattr(import_module(f"{__name__}.{module.name}"), "handlers", None)
        found |= offered(model) if offered else {}
    return found
