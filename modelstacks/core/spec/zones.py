"""Availability zones by id, and where API Gateway offers VPC links.

A zone's id (use1-az1) names the same place in every account; a zone's name (us-east-1a) is assigned to each
account differently, so a template that names zones cannot know what it gets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

__all__ = ["LIST_ZONES", "MOST_ZONES", "number", "prefix", "vpc_link_zones", "without_vpc_links"]

# The highest number in a zone's id, in every region.
MOST_ZONES = 6
LIST_ZONES = (
    "aws ec2 describe-availability-zones --region {region} "
    "--query 'AvailabilityZones[].[ZoneId,ZoneName]' --output text"
)

_DIRECTIONS = {
    "north": "n", "south": "s", "east": "e", "west": "w", "central": "c",
    "northeast": "ne", "northwest": "nw", "southeast": "se", "southwest": "sw",
}  # fmt: skip


def prefix(region: str) -> str:
    """How the ids of a region's zones begin.

    >>> prefix("us-east-1"), prefix("ap-southeast-2"), prefix("us-gov-west-1")
    ('use1', 'apse2', 'usgw1')
    """
    area, *parts, last = region.split("-")
    letters = [_DIRECTIONS.get(part, part[0]) for part in parts]
    return f"{area}{''.join(letters)}{last}"


def number(zone_id: str) -> int:
    """The number at the end of a zone's id: 4 for use1-az4."""
    found = re.fullmatch(r"[a-z0-9]+-az(\d+)", zone_id)
    if found is None:
        raise ValueError(f"{zone_id} is not a zone id")
    return int(found[1])


@cache
def vpc_link_zones() -> Mapping[str, Sequence[str]]:
    """Region -> the zones in which API Gateway offers VPC link v2. Regions without an entry are not known."""
    text = resources.files("modelstacks.core.spec").joinpath("data", "vpc_link_zones.json").read_text("utf-8")
    regions: dict[str, list[str]] = json.loads(text)["regions"]
    return regions


def without_vpc_links(region: str, zone_ids: Sequence[str]) -> list[str]:
    """Those of a region's zones in which API Gateway is known not to offer VPC link v2."""
    offered = vpc_link_zones().get(region)
    return [] if offered is None else [one for one in zone_ids if one not in offered]
