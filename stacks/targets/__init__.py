"""One file a compute target: `build` makes what answers the API's routes.

A file here has the name of its declaration in modelstacks/targets/ and is imported only when a plan asks for
it, so that a stack loads no more of the CDK than it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from aws_cdk import aws_kms as kms
from constructs import Construct

from modelstacks.core.contract import Route
from modelstacks.core.plan import Plan
from stacks.constructs.model_data import ModelData

if TYPE_CHECKING:
    from stacks.constructs.rest_api import Integration

__all__ = ["Backend", "Build", "Foundation", "builder"]


@dataclass(frozen=True)
class Foundation:
    """What every target stands on."""

    key: kms.CfnKey
    model_data: ModelData


@dataclass(frozen=True)
class Backend:
    """What a target hands back.

    `integrate` says how a route is answered; `admit` lets an API in, by its execute-api ARN, where the target
    has to allow that itself; `outputs` maps the name of a stack output to its description and value.
    """

    integrate: Callable[[Route], Integration]
    admit: Callable[[str], None] = lambda _: None
    outputs: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class Build(Protocol):
    """A target's `build`."""

    def __call__(self, scope: Construct, plan: Plan, foundation: Foundation) -> Backend:
        """Make the compute of `plan` below `scope`."""


def builder(target: str) -> Build:
    """The `build` of a compute target, by the target's name in a spec."""
    return cast(Build, import_module(f"{__name__}.{target.replace('-', '_')}").build)
