"""A target group takes the targets of its own type, protocol, VPC and zones, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelstacks.cloud.services.ec2.snapshot import Ec2Snapshot, NetworkInterface, Subnet
from modelstacks.cloud.services.elbv2.kinds import out_of_zone, unemulated, unemulated_targets, unusable
from modelstacks.cloud.services.elbv2.snapshot import LoadBalancer, TargetGroup

NETWORK = Ec2Snapshot(
    subnets={
        "subnet-a": Subnet("subnet-a", "vpc-1", "10.0.0.0/24", "us-east-1a"),
        "subnet-b": Subnet("subnet-b", "vpc-1", "10.0.1.0/24", "us-east-1b"),
        "subnet-c": Subnet("subnet-c", "vpc-1", "10.0.2.0/24", "us-east-1c"),
        "subnet-z": Subnet("subnet-z", "vpc-2", "10.1.0.0/24", "us-east-1a"),
    }
)
GROUP = TargetGroup(
    "arn:tg", "tasks", "HTTP", "vpc-1", "ip", "/ping", "traffic-port", 30, 5, 5, 2, "200", 300, False
)
TASK = NetworkInterface("service churn", ("subnet-b",), ("sg-task",))
BALANCER = NetworkInterface("load balancer lb", ("subnet-a", "subnet-b"), ("sg-lb",))


def test_an_address_of_the_groups_vpc_is_a_target() -> None:
    assert unusable(NETWORK, GROUP, TASK) == ""
    assert unemulated_targets(GROUP) == ""


@pytest.mark.parametrize("kind", ["instance", "lambda", "alb"])
def test_a_task_is_no_target_of_a_group_of_another_type(kind: str) -> None:
    group = replace(GROUP, target_type=kind)
    why = unusable(NETWORK, group, TASK)
    assert why == f"target group tasks takes targets of type {kind}, a task has an address"
    assert unemulated_targets(group) == f"targets of type {kind}"


def test_targets_that_speak_tls_are_reported_as_not_emulated() -> None:
    group = replace(GROUP, protocol="HTTPS")
    assert unusable(NETWORK, group, TASK) == "the embedded cloud does not emulate targets that speak HTTPS"


def test_a_target_in_another_vpc_is_unusable() -> None:
    why = unusable(NETWORK, GROUP, replace(TASK, subnet_ids=("subnet-z",)))
    assert why == "target group tasks is in vpc-1, service churn in vpc-2"


def test_a_target_in_a_zone_without_the_load_balancer_is_not_used() -> None:
    assert out_of_zone(NETWORK, BALANCER, TASK) == ""
    why = out_of_zone(NETWORK, BALANCER, replace(TASK, subnet_ids=("subnet-c",)))
    assert why == "target is in zone us-east-1c, which is not enabled for load balancer lb"


def test_only_application_load_balancers_are_emulated() -> None:
    balancer = LoadBalancer("arn:lb", "lb", "lb.example", "internal", "application", (), (), 60)
    assert unemulated(balancer) == ""
    assert unemulated(replace(balancer, type="network")) == "network load balancers"
