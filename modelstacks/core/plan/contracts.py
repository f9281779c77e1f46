"""The contracts of a model: the groups of routes that it can answer, beside those that every API has."""

from __future__ import annotations

from modelstacks.core.engines import engine_facts
from modelstacks.core.model import Model, RemoteModel

__all__ = ["contracts"]


def contracts(model: Model) -> tuple[str, ...]:
    """What the engine declares, or what the lock says of a provider's model."""
    return model.contracts if isinstance(model, RemoteModel) else engine_facts(model.engine).contracts
