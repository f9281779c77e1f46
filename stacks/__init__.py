"""The CDK side: one Plan becomes one stack. The only room that imports aws_cdk.

app.py           what `cdk synth` runs: specs and their locks become Plans, Plans become stacks
model_api.py     a construct that wires the rooms below together
model_stack.py   that construct as a stack of its own
plans.py         from a spec file to a Plan
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
    from .model_api import ModelApi
    from .model_stack import ModelStack
    from .plans import load_plan
    from .synth import build_app, synthesize

__all__ = ["ModelApi", "ModelStack", "build_app", "load_plan", "main", "synthesize"]

_HOMES = {
    "ModelApi": "model_api",
    "ModelStack": "model_stack",
    "build_app": "synth",
    "load_plan": "plans",
    "main": "app",
    "synthesize": "synth",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
