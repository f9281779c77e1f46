"""Availability zones by id, the dated table of VPC links, and the parts of a VPC's range."""

from __future__ import annotations

import ipaddress
import json
import re
from datetime import date
from pathlib import Path

import pytest

from modelstacks.core.spec import Network, subnet_index, zones

TABLE = Path(zones.__file__).parent / "data" / "vpc_link_zones.json"


def test_the_table_says_where_it_is_from_and_when_it_was_read() -> None:
    table = json.loads(TABLE.read_text())
    assert table["source"].startswith("https://docs.aws.amazon.com/apigateway/")
    assert date.fromisoformat(table["read"]) >= date(2026, 1, 1)


@pytest.mark.parametrize("region", zones.vpc_link_zones())
def test_the_ids_in_the_table_are_those_of_their_region_and_each_has_a_subnet(region: str) -> None:
    ids = zones.vpc_link_zones()[region]
    assert len(ids) == len(set(ids)) >= 2
    for one in ids:
        assert re.fullmatch(rf"{zones.prefix(region)}-az[1-{zones.MOST_ZONES}]", one)


def test_a_zone_without_vpc_links_is_known_and_an_unknown_region_is_not_judged() -> None:
    assert zones.without_vpc_links("us-east-1", ["use1-az1", "use1-az3"]) == ["use1-az3"]
    assert zones.without_vpc_links("xx-north-1", ["xxn1-az1"]) == []


def test_a_zones_name_is_not_an_id() -> None:
    with pytest.raises(ValueError, match="us-east-1a is not a zone id"):
        zones.number("us-east-1a")


@pytest.mark.parametrize("cidr", ["10.0.0.0/16", "10.42.8.0/22", "192.168.7.0/24"])
def test_subnets_of_any_two_zones_never_overlap_and_a_load_balancer_fits(cidr: str) -> None:
    network = Network(cidr=cidr)
    ids: list[str | None] = [f"use1-az{number}" for number in range(1, zones.MOST_ZONES + 1)]
    parts = [network.subnet(subnet_index(zone, 0)) for zone in ids]
    parts += [network.subnet(subnet_index(None, position)) for position in range(2)]
    ranges = [ipaddress.ip_network(part) for part in parts]
    assert len(set(ranges)) == 8
    assert all(one.subnet_of(ipaddress.ip_network(cidr)) for one in ranges)
    assert all(one.prefixlen <= 27 for one in ranges), "the smallest subnet that a load balancer accepts"


def test_a_zone_keeps_its_part_of_the_range_whatever_its_position() -> None:
    assert subnet_index("use1-az4", 0) == subnet_index("use1-az4", 3)
