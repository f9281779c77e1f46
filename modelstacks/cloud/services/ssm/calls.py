"""Systems Manager's calls: which parameter they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelstacks.cloud.network.calls import ServiceCalls
from modelstacks.cloud.snapshot import Account

__all__ = ["CALLS"]


def _parameter(fields: Mapping[str, Any], account: Account) -> str:
    name = str(fields.get("Name", "") or (fields.get("Names") or [""])[0])
    arn = f"arn:aws:ssm:{account.region}:{account.id}:parameter/{name.lstrip('/')}"
    return name if name.startswith("arn:") else arn


CALLS = ServiceCalls("ssm", resource=_parameter)
