"""CloudWatch's calls: their actions have another prefix than their signatures."""

from __future__ import annotations

from modelstacks.cloud.network.calls import ServiceCalls

__all__ = ["CALLS"]

CALLS = ServiceCalls("monitoring", prefix="cloudwatch")
