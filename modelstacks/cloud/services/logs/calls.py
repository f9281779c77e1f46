"""CloudWatch Logs' calls: which group and stream they write to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelstacks.cloud.network.calls import ServiceCalls
from modelstacks.cloud.snapshot import Account

__all__ = ["CALLS"]


def _stream(fields: Mapping[str, Any], account: Account) -> str:
    group, stream = fields.get("logGroupName"), fields.get("logStreamName")
    arn = f"arn:aws:logs:{account.region}:{account.id}:log-group:{group}:log-stream:{stream or ''}"
    return arn if group else "*"


CALLS = ServiceCalls("logs", resource=_stream)
