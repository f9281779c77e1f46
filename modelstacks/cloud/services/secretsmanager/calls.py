"""Secrets Manager's calls: which secret they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelstacks.cloud.network.calls import ServiceCalls
from modelstacks.cloud.snapshot import Account

__all__ = ["CALLS"]


def _secret(fields: Mapping[str, Any], account: Account) -> str:
    name = str(fields.get("SecretId", ""))
    # Secrets Manager adds six characters to a secret's name, which a policy writes as ??????.
    arn = f"arn:aws:secretsmanager:{account.region}:{account.id}:secret:{name}-??????"
    return name if name.startswith("arn:") else arn


CALLS = ServiceCalls("secretsmanager", resource=_secret)
