"""The tags of EC2 resources."""

from __future__ import annotations

from typing import Any

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceType,
    tag_list,
)


def tags_of(request: Request, kind: str) -> list[dict[str, Any]]:
    tags = tag_list(request.properties)
    return [{"ResourceType": kind, "Tags": tags}] if tags else []


class Tagged(ResourceType):
    """A part of a network whose tags are all that can change; anything else makes a new one."""

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        old, new = tag_list(before), tag_list(request.properties)
        if {**before, "Tags": None} != {**request.properties, "Tags": None}:
            return None
        ec2 = request.client("ec2")
        ec2.delete_tags(Resources=[current.physical_id], Tags=old)
        ec2.create_tags(Resources=[current.physical_id], Tags=new)
        return current
