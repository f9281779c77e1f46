"""A service is reached through an endpoint or a way out of the subnet, and in no other way."""

from __future__ import annotations

from dataclasses import replace

from modelstacks.cloud.network import Refused
from modelstacks.cloud.network.routes import Path, reach
from modelstacks.cloud.services.ec2.snapshot import (
    Ec2Snapshot,
    NetworkInterface,
    Route,
    RouteTable,
    Rule,
    SecurityGroup,
    Subnet,
    VpcEndpoint,
)
from modelstacks.cloud.snapshot import Account

EVERYTHING = (Rule("-1", 0, 65535, cidrs=("0.0.0.0/0",)),)
RUNTIME = "com.amazonaws.us-east-1.sagemaker.runtime"
S3 = "com.amazonaws.us-east-1.s3"
INTERFACE = VpcEndpoint(
    "vpce-1",
    "vpc-1",
    RUNTIME,
    "Interface",
    frozenset({"subnet-a"}),
    ("sg-endpoint",),
    True,
    frozenset(),
    None,
)
GATEWAY = VpcEndpoint("vpce-2", "vpc-1", S3, "Gateway", frozenset(), (), False, frozenset({"rtb-1"}), None)
NETWORK = Ec2Snapshot(
    subnets={"subnet-a": Subnet("subnet-a", "vpc-1", "10.0.0.0/24", "us-east-1a")},
    route_tables=(RouteTable("rtb-1", "vpc-1", frozenset({"subnet-a"}), True, ()),),
    security_groups={
        "sg-caller": SecurityGroup("caller", (), EVERYTHING),
        "sg-endpoint": SecurityGroup("endpoint", (Rule("tcp", 443, 443, group_ids=("sg-caller",)),), ()),
    },
    vpc_endpoints=(INTERFACE, GATEWAY),
    prefix_lists={"pl-s3": S3},
)
WORLD = Account(NETWORK)
CALLER = NetworkInterface("lambda invoke", ("subnet-a",), ("sg-caller",))


def reason(account: Account, service: str, **options: bool) -> str:
    found = reach(account, CALLER, service, **options)
    assert isinstance(found, Refused)
    return found.reason


def test_outside_a_vpc_everything_is_reachable() -> None:
    assert reach(WORLD, None, "sagemaker.runtime") == Path(None)


def test_an_interface_endpoint_with_private_dns_carries_the_call() -> None:
    assert reach(WORLD, CALLER, "sagemaker.runtime") == Path(INTERFACE)


def test_an_isolated_subnet_without_an_endpoint_has_no_route() -> None:
    assert reason(WORLD, "secretsmanager") == (
        "no route to secretsmanager from subnet subnet-a: vpc-1 has no interface endpoint for "
        "com.amazonaws.us-east-1.secretsmanager, and the subnet no NAT gateway"
    )


def test_private_dns_switched_off_is_no_route() -> None:
    world = WORLD.having(replace(NETWORK, vpc_endpoints=(replace(INTERFACE, private_dns=False),)))
    assert "interface endpoint vpce-1 has private DNS switched off" in reason(world, "sagemaker.runtime")


def test_the_endpoints_security_group_must_admit_the_caller() -> None:
    groups = {
        **NETWORK.security_groups,
        "sg-endpoint": SecurityGroup("endpoint", (), ()),
    }
    assert (
        "sg-endpoint (endpoint) of endpoint vpce-1 (sagemaker.runtime) has no ingress rule for tcp 443"
        in reason(WORLD.having(replace(NETWORK, security_groups=groups)), "sagemaker.runtime")
    )


def test_a_gateway_endpoint_serves_the_subnets_of_its_route_tables() -> None:
    assert reach(WORLD, CALLER, "s3") == Path(GATEWAY)
    elsewhere = WORLD.having(
        replace(NETWORK, vpc_endpoints=(replace(GATEWAY, route_table_ids=frozenset({"rtb-9"})),))
    )
    assert "gateway endpoint vpce-2 is not in the route table of subnet-a" in reason(elsewhere, "s3")


def test_a_nat_gateway_leads_out_and_an_internet_gateway_only_with_a_public_address() -> None:
    def through(target: str) -> Account:
        table = replace(NETWORK.route_tables[0], routes=(Route("0.0.0.0/0", target),))
        return WORLD.having(replace(NETWORK, route_tables=(table,)))

    assert reach(through("nat-1"), CALLER, "logs") == Path(None)
    assert reach(through("igw-1"), CALLER, "logs", public_address=True) == Path(None)
    assert "serves only public addresses" in reason(through("igw-1"), "logs")
