"""ECR's calls: which repository they ask for, and those that pulling an image takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelstacks.cloud.network.calls import ApiCall, ServiceCalls
from modelstacks.cloud.snapshot import Account

__all__ = ["CALLS", "image_pull"]

ECR_IMAGE = re.compile(r"(\d{12})\.dkr\.ecr\.([\w-]+)\.amazonaws\.com(?:\.cn)?/([^:@]+)")


def _repository(fields: Mapping[str, Any], account: Account) -> str:
    repository = fields.get("repositoryName")
    return f"arn:aws:ecr:{account.region}:{account.id}:repository/{repository}" if repository else "*"


def image_pull(image: str, network_service: str) -> list[ApiCall]:
    """The calls that pulling an image from a private ECR repository takes; none for another registry."""
    found = ECR_IMAGE.match(image)
    if not found:
        return []
    account, region, repository = found.groups()
    arn = f"arn:aws:ecr:{region}:{account}:repository/{repository}"
    return [
        ApiCall("ecr", network_service, "ecr:GetAuthorizationToken", "*"),
        ApiCall("ecr", network_service, "ecr:BatchGetImage", arn),
        ApiCall("ecr", network_service, "ecr:GetDownloadUrlForLayer", arn),
    ]


CALLS = ServiceCalls("ecr", network="ecr.api", resource=_repository)
