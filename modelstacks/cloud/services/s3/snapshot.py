"""S3 as it is read back: buckets and their policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.services.iam.snapshot import Policy, policy_of
from modelstacks.cloud.snapshot import Snapshot, each, unless_absent

__all__ = ["Bucket", "S3Snapshot"]


@dataclass(frozen=True, slots=True)
class Bucket:
    policy: Policy | None


@dataclass(frozen=True)
class S3Snapshot(Snapshot):
    """The buckets of the account, by name."""

    buckets: Mapping[str, Bucket] = field(default_factory=dict)

    @classmethod
    def read(cls, clients: Clients) -> S3Snapshot:
        """Read every bucket's policy."""
        return cls(_buckets(clients))


def _buckets(clients: Clients) -> dict[str, Bucket]:
    s3 = clients.client("s3")

    def bucket(item: Mapping[str, Any]) -> Bucket:
        name = item["Name"]
        found = unless_absent(lambda: s3.get_bucket_policy(Bucket=name)["Policy"])
        return Bucket(policy_of(f"the policy of bucket {name}", found))

    found = s3.list_buckets()["Buckets"]
    return {item["Name"]: one for item, one in zip(found, each(bucket, found), strict=True)}
