"""One file a compute target: `build` makes what answers the API's routes.

A file here has the name of its declaration in modelstacks/targets/ and is imported only when a plan asks for
it, so that a stack loads no more of the CDK than it uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol, cast

from aws_cdk import CfnResource
from aws_cdk import aws_kms as kms
from constructs import Construct

from modelstacks.core.contract import Route
from modelstacks.core.plan import Plan

from ..constructs.model_data import ModelData

if TYPE_CHECKING:
    from ..constructs.rest_api import Integration

__all__ = ["Backend", "Build", "Foundation", "Output", "OutputName", "builder"]


@dataclass(frozen=True)
class Foundation:
    """What every target stands on."""

    key: kms.CfnKey
    # None where the model's provider hosts it.
    model_data: ModelData | None


# Every output that a stack may have. Scripts read them by these names, so a name stays what it is.
OutputName = Literal[
    "ApiId",
    "ApiKeyId",
    "ApiUrl",
    "ClusterName",
    "EndpointName",
    "FunctionLogGroupName",
    "FunctionName",
    "LogGroupName",
    "ServiceName",
]


@dataclass(frozen=True)
class Output:
    """One stack output; `value` is a token until the stack is deployed."""

    name: OutputName
    description: str
    value: str


@dataclass(frozen=True)
class Backend:
    """What a target hands back.

    integrate: how a route is answered.
    before_methods: what has to exist before a method is created, beside what its integration refers to.
    identity: when one of these changes, what integrations refer to is replaced, and the API is deployed anew.
    admit: lets an API in, by its execute-api ARN, where the target has to allow that itself.
    throttles: API Gateway's failure to call the target is in the first place its being throttled.
    outputs: what a person will want to know of it.
    """

    integrate: Callable[[Route], Integration]
    before_methods: tuple[CfnResource, ...] = ()
    identity: tuple[str, ...] = ()
    admit: Callable[[str], None] = lambda _: None
    throttles: bool = False
    outputs: tuple[Output, ...] = ()


class Build(Protocol):
    """A target's `build`."""

    def __call__(self, scope: Construct, plan: Plan, foundation: Foundation) -> Backend:
        """Make the compute of `plan` below `scope`."""


def builder(target: str) -> Build:
    """The `build` of a compute target, by the target's name in a spec."""
    return cast(Build, import_module(f"{__name__}.{target.replace('-', '_')}").build)
