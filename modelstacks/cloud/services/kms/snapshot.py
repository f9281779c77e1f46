"""KMS as it is read back: keys and their policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.services.iam.snapshot import Policy, policy_of
from modelstacks.cloud.snapshot import Snapshot, each, unless_absent

__all__ = ["Key", "KmsSnapshot"]


@dataclass(frozen=True, slots=True)
class Key:
    """A KMS key."""

    id: str
    arn: str
    policy: Policy | None


@dataclass(frozen=True)
class KmsSnapshot(Snapshot):
    """The keys of the account, by ARN."""

    keys: Mapping[str, Key] = field(default_factory=dict)

    @classmethod
    def read(cls, clients: Clients) -> KmsSnapshot:
        """Read every key's policy."""
        return cls(_keys(clients))


def _keys(clients: Clients) -> dict[str, Key]:
    kms = clients.client("kms")

    def key(item: Mapping[str, Any]) -> Key:
        found = unless_absent(lambda: kms.get_key_policy(KeyId=item["KeyId"], PolicyName="default")["Policy"])
        return Key(item["KeyId"], item["KeyArn"], policy_of(f"the policy of key {item['KeyId']}", found))

    return {item.arn: item for item in each(key, clients.pages("kms", "list_keys", "Keys"))}
