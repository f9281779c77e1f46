"""How fast time passes in the embedded cloud."""

from __future__ import annotations

__all__ = ["SPEEDUP"]

#: Health check intervals, scaling periods and CloudFormation's own limits are made for a cloud; here they
#: pass this many times as fast. Time-outs of requests and start-ups are kept as deployed.
SPEEDUP = 20.0
