"""A connection passes only where the source's groups let it out and the target's groups let it in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelstacks.cloud.network.security_groups import connect, leave
from modelstacks.cloud.services.ec2.snapshot import Ec2Snapshot, NetworkInterface, Rule, SecurityGroup, Subnet
from modelstacks.cloud.snapshot import Account

SUBNETS = {
    "subnet-a": Subnet("subnet-a", "vpc-1", "10.0.0.0/24", "us-east-1a"),
    "subnet-b": Subnet("subnet-b", "vpc-1", "10.0.1.0/24", "us-east-1b"),
    "subnet-z": Subnet("subnet-z", "vpc-2", "10.0.0.0/24", "us-east-1a"),
}
# Their addresses are 10.0.0.4 and 10.0.1.4, and 10.0.0.9.
BALANCER = NetworkInterface("load balancer lb", ("subnet-a", "subnet-b"), ("sg-lb",))
TASK = NetworkInterface("service churn", ("subnet-a",), ("sg-task",), index=5)


def account(egress: tuple[Rule, ...], ingress: tuple[Rule, ...]) -> Account:
    groups = {
        "sg-lb": SecurityGroup("balancer", (), egress),
        "sg-task": SecurityGroup("tasks", ingress, ()),
    }
    return Account(Ec2Snapshot(groups, SUBNETS))


def tcp(port: int, **who: tuple[str, ...]) -> Rule:
    return Rule("tcp", port, port, **who)


OUT = tcp(8080, group_ids=("sg-task",))
IN = tcp(8080, group_ids=("sg-lb",))


@pytest.mark.parametrize(
    ("egress", "ingress"),
    [
        ((OUT,), (IN,)),
        ((Rule("-1", 0, 65535, cidrs=("0.0.0.0/0",)),), (IN,)),
        ((tcp(8080, cidrs=("10.0.0.8/29",)),), (IN,)),
        ((OUT,), (Rule("tcp", 8000, 9000, cidrs=("10.0.0.0/16",)),)),
        ((OUT,), (tcp(8080, cidrs=("10.0.0.4/32",)), tcp(8080, cidrs=("10.0.1.4/32",)))),
    ],
    ids=["by group", "open egress", "egress by CIDR", "port range", "one CIDR for each address"],
)
def test_rules_on_both_sides_let_the_connection_pass(
    egress: tuple[Rule, ...], ingress: tuple[Rule, ...]
) -> None:
    assert connect(account(egress, ingress), BALANCER, TASK, 8080) is None


@pytest.mark.parametrize(
    ("egress", "ingress", "reason"),
    [
        ((), (IN,), "(balancer) of load balancer lb has no egress rule for tcp 8080 to service churn"),
        ((OUT,), (), "service churn has no ingress rule for tcp 8080 from load balancer lb (sg-lb)"),
        ((OUT,), (tcp(80, group_ids=("sg-lb",)),), "no ingress rule for tcp 8080"),
        ((OUT,), (Rule("udp", 8080, 8080, group_ids=("sg-lb",)),), "no ingress rule for tcp 8080"),
        ((OUT,), (tcp(8080, cidrs=("10.0.0.4/32",)),), "no ingress rule for tcp 8080"),
        ((OUT,), (tcp(8080, group_ids=("sg-other",)),), "no ingress rule for tcp 8080"),
    ],
    ids=["no egress", "no ingress", "wrong port", "wrong protocol", "one of two addresses", "other group"],
)  # fmt: skip
def test_a_missing_rule_is_named(egress: tuple[Rule, ...], ingress: tuple[Rule, ...], reason: str) -> None:
    refused = connect(account(egress, ingress), BALANCER, TASK, 8080)
    assert refused is not None
    assert reason in refused.reason
    assert refused.hop == "load balancer lb -> service churn"


def test_another_vpc_is_out_of_reach() -> None:
    away = replace(TASK, subnet_ids=("subnet-z",))
    refused = connect(account((OUT,), (IN,)), BALANCER, away, 8080)
    assert refused is not None
    assert refused.reason == "load balancer lb is in vpc-1 and service churn in vpc-2"


def test_a_prefix_list_rule_opens_s3_but_not_the_internet() -> None:
    made = account((tcp(443, prefix_list_ids=("pl-s3",)),), ())
    assert leave(made, BALANCER, 443, prefix_list="pl-s3", to="s3") is None
    refused = leave(made, BALANCER, 443, to="the internet")
    assert refused is not None
    assert "has no egress rule for tcp 443 to the internet" in refused.reason
