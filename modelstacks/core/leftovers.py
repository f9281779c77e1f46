"""What stays in an AWS account when a stack is deleted, found in the stack's template.

docs/leftovers.md explains each; `leftovers` names those of one stack, with the command that removes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Leftover", "leftovers"]


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that stays, and the command that removes it; one without goes by itself."""

    # Of the resource in the template that it comes from.
    logical_id: str
    what: str
    why: str
    remove: str = ""


def leftovers(template: Mapping[str, Any], names: Mapping[str, str] | None = None) -> list[Leftover]:
    """What `cdk destroy` leaves of a stack with this template.

    `names` maps logical ids to physical ones (DescribeStackResources) and fills them into the commands.
    """
    found: list[Leftover] = []
    for logical_id, resource in sorted(template["Resources"].items()):
        name = (names or {}).get(logical_id, f"<{logical_id}>")
        found += _of(logical_id, resource, name)
    return found


def _of(logical_id: str, resource: Mapping[str, Any], name: str) -> Iterator[Leftover]:
    properties = resource.get("Properties", {})
    retained = resource.get("DeletionPolicy") == "Retain"
    match resource["Type"]:
        case "AWS::S3::Bucket" if retained:
            yield Leftover(
                logical_id,
                f"bucket {name}",
                "S3 deletes no bucket that holds objects; its lifecycle rule empties it",
                f"aws s3 rb --force s3://{name}",
            )
        case "AWS::KMS::Key":
            days = properties.get("PendingWindowInDays", 30)
            yield Leftover(
                logical_id,
                f"KMS key {name}",
                f"deleted {days} days later, so that a mistake can be undone; free of charge meanwhile",
            )
        case "AWS::IAM::Role" if retained:
            yield Leftover(
                logical_id,
                f"role {name}",
                "API Gateway logs under it for the whole account and region",
                f"aws iam delete-role-policy --role-name {name} --policy-name write "
                f"&& aws iam delete-role --role-name {name}",
            )
        case "AWS::ApiGateway::Account" if retained:
            yield Leftover(
                logical_id,
                "API Gateway's logging role in this account and region",
                "other APIs may rely on the setting",
                "aws apigateway update-account --patch-operations op=replace,path=/cloudwatchRoleArn,value=",
            )
        case "AWS::ECS::Cluster" if properties.get("ClusterSettings"):
            group = f"/aws/ecs/containerinsights/{name}/performance"
            yield Leftover(
                logical_id,
                f"log group {group}",
                "Container Insights makes it, and keeps it for ever",
                f"aws logs delete-log-group --log-group-name {group}",
            )
