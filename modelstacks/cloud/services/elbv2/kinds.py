"""Which kinds of load balancers, target groups and targets fit together, and which are not emulated."""

from __future__ import annotations

from modelstacks.cloud.services.ec2.snapshot import Ec2Snapshot, NetworkInterface
from modelstacks.cloud.services.elbv2.snapshot import LoadBalancer, TargetGroup

__all__ = ["out_of_zone", "unemulated", "unemulated_targets", "unusable"]


def unemulated(balancer: LoadBalancer) -> str:
    """What nothing here acts as; empty for an application load balancer."""
    return "" if balancer.type == "application" else f"{balancer.type} load balancers"


def unemulated_targets(group: TargetGroup) -> str:
    """Which kind of target nothing here acts as; empty for addresses that speak HTTP.

    No instance registers itself here: the embedded cloud has no EC2 instances.
    """
    if group.target_type != "ip":
        return f"targets of type {group.target_type}"
    return "" if group.protocol == "HTTP" else f"targets that speak {group.protocol}"


def unusable(network: Ec2Snapshot, group: TargetGroup, target: NetworkInterface) -> str:
    """Why a task's address cannot be a target of the group; empty where it can."""
    if group.target_type in ("instance", "lambda", "alb"):
        return f"target group {group.name} takes targets of type {group.target_type}, a task has an address"
    if what := unemulated_targets(group):
        return f"the embedded cloud does not emulate {what}"
    there = network.vpc_of(target)
    if there != group.vpc_id:
        return f"target group {group.name} is in {group.vpc_id}, {target.what} in {there}"
    return ""


def out_of_zone(network: Ec2Snapshot, balancer: NetworkInterface, target: NetworkInterface) -> str:
    """Why a load balancer does not use a target: it is in a zone that the load balancer has no subnet in."""
    enabled = {subnet.zone for subnet in network.subnets_of(balancer)}
    others = {subnet.zone for subnet in network.subnets_of(target)} - enabled
    if not others:
        return ""
    return f"target is in zone {', '.join(sorted(others))}, which is not enabled for {balancer.what}"
