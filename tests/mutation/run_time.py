"""Faults that every rule of creation accepts and a request meets.

tests/e2e/test_refusals.py deploys them. `caught_by` is "request", where a request to the deployed API is
refused with one of `statuses` and a header that names the rule, "overload", where it is 429, or "update",
where the own update of the stack fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mutation.edits import Document, Mutant, drop, put, remove

SELF, MANAGED = "self-hosted", "managed"
INGRESS = "AWS::EC2::SecurityGroupIngress"
FUNCTION = "AWS::Lambda::Function"
SERVICE = "AWS::ECS::Service"
TASK = "AWS::ECS::TaskDefinition"


@dataclass(frozen=True)
class RunTimeMutant(Mutant):
    """A fault that is deployed; `statuses` are those of a request that meets it."""

    statuses: tuple[int, ...] = ()


def both(*changes: Callable[[Document], None]) -> Callable[[Document], None]:
    """Several edits that belong together."""

    def change(template: Document) -> None:
        for one in changes:
            one(template)

    return change


MUTANTS = (
    RunTimeMutant(
        "link-cannot-reach-the-balancer",
        SELF,
        remove(INGRESS, "VPC link to load balancer"),
        "request",
        "no ingress rule for tcp 80 from",
        (503, 504),
    ),
    RunTimeMutant(
        "balancer-cannot-reach-the-tasks",
        SELF,
        remove(INGRESS, "load balancer to model servers"),
        "request",
        "no ingress rule for tcp 8080 from",
        (502, 503, 504),
    ),
    RunTimeMutant(
        "function-cannot-reach-sagemaker",
        MANAGED,
        remove("AWS::EC2::VPCEndpoint", "sagemaker.runtime"),
        "request",
        "sagemaker.runtime",
        (502, 503, 504),
    ),
    RunTimeMutant(
        "function-may-not-invoke",
        MANAGED,
        drop("AWS::IAM::Role", "Properties/Policies/0", "invokes one SageMaker"),
        "request",
        "sagemaker:InvokeEndpoint",
        (502,),
    ),
    RunTimeMutant(
        "api-may-not-call-the-function",
        MANAGED,
        remove("AWS::Lambda::Permission", "execute-api"),
        "request",
        "no resource policy of lambda",
        (500,),
    ),
    RunTimeMutant(
        "function-is-throttled",
        MANAGED,
        put(FUNCTION, "Properties/ReservedConcurrentExecutions", 0, "ENDPOINT_NAME"),
        "overload",
        "throttled",
        (429,),
    ),
    RunTimeMutant(
        "nothing-listens-on-the-port",
        SELF,
        both(
            put(SERVICE, "Properties/LoadBalancers/0/ContainerPort", 8081),
            put(TASK, "Properties/ContainerDefinitions/0/PortMappings/0/ContainerPort", 8081),
        ),
        "update",
        "8081",
    ),
)
