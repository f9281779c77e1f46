"""The CDK side: one Plan becomes one stack. The only room that imports aws_cdk.

app.py           what `cdk synth` runs: specs and their locks become Plans, Plans become stacks
model_stack.py   wires the rooms below together
targets/         one file a compute target, found by its name
constructs/      what the targets are built of

The wheel publishes this folder as `modelstacks.cdk`, so the imports in it are relative; in a checkout,
modelstacks/cdk/__init__.py leads here. The names below are loaded when they are first used, because
aws_cdk takes seconds to import and a fault in a spec is reported before it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import main
    from .model_stack import ModelStack
    from .synth import build_app, synthesize

__all__ = ["ModelStack", "build_app", "main", "synthesize"]

_HOMES = {"ModelStack": "model_stack", "build_app": "synth", "main": "app", "synthesize": "synth"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
