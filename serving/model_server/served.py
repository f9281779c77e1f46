"""A loaded model and what the handlers of its routes share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from model_server.batching import Batcher
from model_server.engines import Engine
from model_server.large_bodies import LargeBodies
from model_server.request import Request
from model_server.settings import Settings
from model_server.validation import InputReader

Handler = Callable[[Request], None]


@dataclass
class ServedModel:
    engine: Engine
    settings: Settings
    batcher: Batcher
    large_bodies: LargeBodies
    ready: Handler  # answers whether the model is ready

    @property
    def name(self) -> str:
        return self.settings.model_name

    @property
    def max_body(self) -> int:
        return self.settings.max_body_bytes

    @cached_property
    def reader(self) -> InputReader:
        """Reads inputs of the engine's signature. An engine that reads bodies itself has no use for it."""
        return InputReader(self.engine.signature, nan=self.settings.nan == "allow")
