"""Elastic Load Balancing refuses subnets, attributes, health checks and patterns out of bounds."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.control_plane import NETWORK, Account
from support.templates import BALANCED, changed, code, subnet, targets


@pytest.mark.parametrize(
    ("resources", "reason"),
    [
        (
            changed(BALANCED, "Balancer", Subnets=[{"Ref": "Subnet"}]),
            "At least two subnets in two different Availability Zones must be specified",
        ),
        (
            BALANCED | {"Other": subnet("10.0.1.0/24", 0)},
            "A load balancer cannot be attached to multiple subnets in the same Availability Zone",
        ),
        (
            changed(
                BALANCED,
                "Balancer",
                LoadBalancerAttributes=[{"Key": "idle_timeout.timeout_seconds", "Value": "4001"}],
            ),
            "'idle_timeout.timeout_seconds' value '4001' must be between '1-4000' inclusive",
        ),
        (
            changed(
                BALANCED,
                "Balancer",
                LoadBalancerAttributes=[{"Key": "routing.http.desync_mitigation_mode", "Value": "strict"}],
            ),
            "'routing.http.desync_mitigation_mode' value 'strict' must be one of [monitor, defensive",
        ),
        (
            BALANCED | {"Targets": targets(HealthCheckIntervalSeconds=10, HealthCheckTimeoutSeconds=10)},
            "Health check interval must be greater than the timeout.",
        ),
        (
            BALANCED | {"Targets": targets(HealthCheckIntervalSeconds=5)},
            "Health check interval must be greater than the timeout.",
        ),
    ],
    ids=[
        "one subnet", "one zone", "idle timeout", "desync mode", "interval as timeout",
        "interval as default timeout",
    ],
)  # fmt: skip
def test_a_load_balancer_is_refused(account: Account, resources: dict[str, Any], reason: str) -> None:
    (found,) = account.refuse("unbalanced", resources).values()
    assert found.startswith(reason)
    balancing = account.client("elbv2")
    assert balancing.describe_load_balancers()["LoadBalancers"] == []  # a half-made one is deleted too
    assert balancing.describe_target_groups()["TargetGroups"] == []


def test_a_load_balancer_needs_eight_free_addresses_in_each_subnet(account: Account) -> None:
    # A /28 has eleven: AWS keeps five for itself.
    roomy = account.create("roomy", NETWORK | {"Small": subnet("10.0.2.0/28", 1)})
    ec2 = account.client("ec2")
    taken = [ec2.create_network_interface(SubnetId=roomy["Small"])["NetworkInterface"] for _ in range(4)]
    balancer = changed(BALANCED, "Balancer", Subnets=[roomy["Subnet"], roomy["Small"]])["Balancer"]
    del balancer["Properties"]["SecurityGroups"]
    reason = account.refuse("full", {"Balancer": balancer})["Balancer"]
    assert reason.startswith(
        f"Not enough IP space available in {roomy['Small']}. ELB requires at least 8 free"
    )
    ec2.delete_network_interface(NetworkInterfaceId=taken.pop()["NetworkInterfaceId"])
    account.create("fits", {"Balancer": balancer})
    for interface_ in taken:
        ec2.delete_network_interface(NetworkInterfaceId=interface_["NetworkInterfaceId"])


def test_a_load_balancer_keeps_two_zones_and_its_health_checks_their_bounds(account: Account) -> None:
    ids = account.create("balanced", BALANCED | {"Third": subnet("10.0.2.0/24", 1)})
    balancing = account.client("elbv2")
    with pytest.raises(ClientError, match="At least two subnets in two different") as error:
        balancing.set_subnets(LoadBalancerArn=ids["Balancer"], Subnets=[ids["Subnet"]])
    assert code(error) == "ValidationError"
    balancing.set_subnets(LoadBalancerArn=ids["Balancer"], Subnets=[ids["Subnet"], ids["Third"]])
    for change, said in (
        ({"HealthCheckTimeoutSeconds": 30}, "Health check interval must be greater than the timeout"),
        ({"HealthCheckIntervalSeconds": 301}, "Value '301' at 'healthCheckIntervalSeconds' failed"),
        ({"HealthCheckTimeoutSeconds": 121}, "Value '121' at 'healthCheckTimeoutSeconds' failed"),
    ):
        with pytest.raises(ClientError, match=said):
            balancing.modify_target_group(TargetGroupArn=ids["Targets"], **change)


@pytest.mark.parametrize(
    ("regex", "replace", "said"),
    [
        ("^/live(", "$1", r"is not valid: missing \), unterminated subpattern"),
        ("^/live(/.*)$", "$2", "refers to a group that the regex"),
        ("a" * 1025, "x", "at most 1024 characters"),
    ],
)
def test_a_rule_whose_pattern_could_not_be_applied_is_refused(
    account: Account, regex: str, replace: str, said: str
) -> None:
    ids = account.create("balanced", BALANCED)
    balancing = account.client("elbv2")
    answer = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}
    listener = balancing.create_listener(
        LoadBalancerArn=ids["Balancer"], Protocol="HTTP", Port=8080, DefaultActions=[answer]
    )["Listeners"][0]["ListenerArn"]
    conditions = [{"Field": "path-pattern", "Values": ["/*"]}]
    rewrites = {"Rewrites": [{"Regex": regex, "Replace": replace}]}
    transforms = [{"Type": "url-rewrite", "UrlRewriteConfig": rewrites}]
    rule = {"ListenerArn": listener, "Conditions": conditions, "Actions": [answer]}
    with pytest.raises(ClientError, match=said) as error:
        balancing.create_rule(**rule, Priority=1, Transforms=transforms)
    assert code(error) == "ValidationError"
    made = balancing.create_rule(**rule, Priority=1)["Rules"][0]["RuleArn"]
    with pytest.raises(ClientError, match=said):
        balancing.modify_rule(RuleArn=made, Transforms=transforms)
