"""The access keys that the account's own IAM and STS made, as moto stores them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC

__all__ = ["AccessKey", "find"]


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key pair; with a token and an end, where STS gave it out."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    expires: float | None = None  # seconds since the epoch
    role_arn: str | None = None


def find(account: str, access_key_id: str) -> AccessKey | None:
    """Return the active key with this id, or None.

    The fixed example keys that moto answers to GetSessionToken are in no table, so they give no access.
    """
    from moto.iam.models import iam_backends
    from moto.sts.models import sts_backends

    role = sts_backends[account]["aws"].get_assumed_role_from_access_key(access_key_id)
    if role is not None:
        return AccessKey(
            access_key_id,
            role.secret_access_key,
            role.session_token,
            role.expiration.replace(tzinfo=UTC).timestamp(),  # moto's moments are UTC without saying so
            role.role_arn,
        )
    for user in iam_backends[account]["aws"].users.values():
        for key in user.access_keys:
            if key.access_key_id == access_key_id and key.status == "Active":
                return AccessKey(access_key_id, key.secret_access_key)
    return None
