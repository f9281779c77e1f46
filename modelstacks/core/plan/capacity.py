"""The units that a deployment is billed for or that count against a quota: one list for every consumer.

A target declares its own (`Target.capacity`); those of the API and the key, which every target has, are
declared here. tests/stacks compares the list with the resources of the template.

The list describes a deployment with a network of its own. Requests, bytes and log lines are not in it: they
depend on the traffic and not on the plan.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from modelstacks.core.plan.plan import Plan
from modelstacks.core.registry import targets

__all__ = ["Quota", "Unit", "capacity", "interface_endpoints", "network", "quota", "resource", "zones"]


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota as Service Quotas names it; `code` is "" where it has to be looked up by its name."""

    service: str
    name: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Unit:
    """An amount of something that costs money or that an account has a limit on.

    Args:
        resource: the CloudFormation type that it belongs to.
        measure: what is counted: "resource" for the resources themselves, else a part, such as "vCPU".
        least: the amount at `scaling.min_replicas`.
        most: the amount at `scaling.max_replicas`.
        peak: the amount at `scaling.max_replicas` while an update runs old and new replicas side by side.
        billed: whether it is on the bill by the hour or month, whatever the traffic.
        size: which variant, such as an instance type.
        quota: the limit that `peak` counts against; None where there is none, or none that is ever reached.
    """

    resource: str
    measure: str
    least: float
    most: float
    peak: float
    billed: bool = False
    size: str = ""
    quota: Quota | None = None


def resource(kind: str, number: int = 1, *, billed: bool = False, quota: Quota | None = None) -> Unit:
    """Resources of the template, which are there whatever the number of replicas."""
    return Unit(kind, "resource", number, number, number, billed=billed, quota=quota)


def capacity(plan: Plan) -> tuple[Unit, ...]:
    """Everything that a plan needs: its target's units, and those of what is around every target."""
    units = (*targets()[plan.target.target].capacity(plan), *_api(plan), *_key())
    sums: dict[Unit, Unit] = {}
    for unit in units:
        of_its_kind = replace(unit, least=0, most=0, peak=0)
        so_far = sums.get(of_its_kind, of_its_kind)
        sums[of_its_kind] = replace(
            unit,
            least=so_far.least + unit.least,
            most=so_far.most + unit.most,
            peak=so_far.peak + unit.peak,
        )
    return tuple(sums.values())


def interface_endpoints(number: int, plan: Plan) -> tuple[Unit, Unit]:
    """Interface endpoints of the VPC, each of which is billed in every zone."""
    kind, in_zones = "AWS::EC2::VPCEndpoint", number * zones(plan)
    return (
        resource(kind, number, quota=quota("interface-endpoints")),
        Unit(kind, "endpoint in a zone", in_zones, in_zones, in_zones, billed=True),
    )


def zones(plan: Plan) -> int:
    """How many availability zones the deployment's subnets are in."""
    return len(plan.aws.zones) if plan.aws and plan.aws.zones else 2


def quota(name: str) -> Quota:
    """A quota of data/quotas.json."""
    return _quotas()[name]


@cache
def _quotas() -> dict[str, Quota]:
    text = resources.files("modelstacks.core.plan").joinpath("data", "quotas.json").read_text("utf-8")
    return {name: Quota(**entry) for name, entry in json.loads(text)["quotas"].items()}


def _api(plan: Plan) -> tuple[Unit, ...]:
    units = [resource("AWS::ApiGateway::RestApi"), resource("AWS::Logs::LogGroup", 2)]
    if plan.api.auth == "api-key":
        units += [
            resource("AWS::ApiGateway::ApiKey", quota=quota("api-keys")),
            resource("AWS::ApiGateway::UsagePlan", quota=quota("usage-plans")),
        ]
    if plan.api.account_logging_role == "create":
        units.append(resource("AWS::IAM::Role", quota=quota("roles")))
    return tuple(units)


def network() -> tuple[Unit, ...]:
    """The network of a target that runs something: a VPC with S3's endpoint and a flow log."""
    return (
        resource("AWS::EC2::VPC", quota=quota("vpcs")),
        resource("AWS::EC2::VPCEndpoint", quota=quota("gateway-endpoints")),
        # The flow log's.
        resource("AWS::IAM::Role", quota=quota("roles")),
        resource("AWS::Logs::LogGroup"),
    )


def _key() -> tuple[Unit, ...]:
    return (resource("AWS::KMS::Key", billed=True, quota=quota("keys")),)
