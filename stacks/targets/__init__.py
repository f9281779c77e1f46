"""One file a compute target: `build` makes what answers the API's routes.

A file here has the name of its declaration in modelstacks/targets/ and is imported only when a plan asks for
it, so that a stack loads no more of the CDK than it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from aws_cdk import CfnResource
from constructs import Construct

from modelstacks.core.contract import Route
from modelstacks.core.plan import ModelServer, Plan

from ..constructs.encryption import EncryptionKey
from ..constructs.iam import Statement
from ..constructs.model_data import ModelData

if TYPE_CHECKING:
    from aws_cdk.aws_logs import CfnLogGroup

    from ..constructs.ecs_service import ServingService
    from ..constructs.network import Network
    from ..constructs.private_integration import PrivateIntegration
    from ..constructs.rest_api import Integration

__all__ = ["Backend", "Build", "Foundation", "Output", "builder", "hosted", "service_backend"]


@dataclass(frozen=True)
class Foundation:
    """What every target builds on.

    network: makes the deployment's network, or takes the one that the user's app has; its argument is all
        that may be asked of S3 from inside.
    security_groups: ids of groups that the user adds to what holds the model.
    """

    key: EncryptionKey
    # None where the model's provider hosts it.
    model_data: ModelData | None
    network: Callable[[Sequence[Statement]], Network]
    security_groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Output:
    """One stack output; `value` is a token until the stack is deployed."""

    name: str
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
    outputs: the value of each output that the target declares, by name.
    """

    integrate: Callable[[Route], Integration]
    before_methods: tuple[CfnResource, ...] = ()
    identity: tuple[str, ...] = ()
    admit: Callable[[str], None] = lambda _: None
    throttles: bool = False
    outputs: Mapping[str, str] = field(default_factory=dict)


class Build(Protocol):
    """A target's `build`."""

    def __call__(self, scope: Construct, plan: Plan, foundation: Foundation) -> Backend:
        """Make the compute of `plan` below `scope`."""


def hosted(plan: Plan, foundation: Foundation) -> tuple[ModelServer, ModelData]:
    """The model server and the model's archive, for a target that has nothing without them."""
    if not isinstance(plan.runtime, ModelServer) or foundation.model_data is None:
        raise TypeError(f"{plan.target.target} runs the model server, not {plan.model.source}")
    return plan.runtime, foundation.model_data


def service_backend(service: ServingService, front: PrivateIntegration, log: CfnLogGroup) -> Backend:
    """An ECS service behind a private integration, whichever capacity runs its tasks."""
    return Backend(
        integrate=front.integrate,
        # The service too: an update that replaces balancer and service moves the API to tasks that are ready.
        before_methods=(front.listener, service),
        identity=front.identity,
        outputs={
            "ClusterName": service.cluster_name,
            "ServiceName": service.attr_name,
            "LogGroupName": log.ref,
        },
    )


def builder(target: str) -> Build:
    """The `build` of a compute target, by the target's name in a spec."""
    return cast(Build, import_module(f"{__name__}.{target.replace('-', '_')}").build)
