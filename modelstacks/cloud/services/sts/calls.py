"""STS's calls: which role they assume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelstacks.cloud.network.calls import ServiceCalls
from modelstacks.cloud.snapshot import Account

__all__ = ["CALLS"]


def _role(fields: Mapping[str, Any], account: Account) -> str:
    del account
    return str(fields.get("RoleArn") or "*")


CALLS = ServiceCalls("sts", unchecked=frozenset({"GetCallerIdentity", "GetSessionToken"}), resource=_role)
