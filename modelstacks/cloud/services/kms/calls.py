"""KMS's calls: which key they use, and the one that S3 makes in a reader's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelstacks.cloud.network.calls import ApiCall, ServiceCalls
from modelstacks.cloud.services.iam.snapshot import Policy
from modelstacks.cloud.services.kms.snapshot import KmsSnapshot
from modelstacks.cloud.snapshot import Account

__all__ = ["CALLS", "decrypt_call"]


def _key(fields: Mapping[str, Any], account: Account) -> str:
    key = str(fields.get("KeyId", ""))
    known = (one.arn for one in account[KmsSnapshot].keys.values() if key in (one.id, one.arn))
    return next(known, f"arn:aws:kms:{account.region}:{account.id}:key/{key}")


def _policy(account: Account, resource: str) -> Policy | None:
    key = account[KmsSnapshot].keys.get(resource)
    return key.policy if key else None


def decrypt_call(account: Account, key: str) -> ApiCall:
    """What S3 asks KMS on a reader's behalf for an object encrypted with `key` (an id or ARN)."""
    region = account.region
    arn = key if key.startswith("arn:") else f"arn:aws:kms:{region}:{account.id}:key/{key}"
    context = {"kms:ViaService": f"s3.{region}.amazonaws.com", "kms:CallerAccount": account.id}
    return ApiCall("kms", "s3", "kms:Decrypt", arn, context)


CALLS = ServiceCalls("kms", resource=_key, policy=_policy)
