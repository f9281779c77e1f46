"""What the runtimes of all services share: the account, this machine's processes, faults and counters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from modelstacks.cloud import api
from modelstacks.cloud.account.channel import Report
from modelstacks.cloud.clients import Clients
from modelstacks.cloud.daemon.state import StateDirectory
from modelstacks.cloud.host.pool import Pool
from modelstacks.cloud.host.replicas import ImageEnvironment, Registry
from modelstacks.cloud.network import Refused
from modelstacks.cloud.network.control_plane import ControlPlane
from modelstacks.cloud.network.identities import Identities
from modelstacks.cloud.network.reasons import Reasons
from modelstacks.cloud.snapshot import Account
from modelstacks.cloud.workloads.faults import Faults, Traffic

__all__ = ["Context"]


@dataclass
class Context:
    """Shared by every runtime; `account` is replaced whole at each reconcile.

    `report` tells the control plane how a workload is doing; `changed` announces that `status` has changed.
    """

    state: StateDirectory
    clients: Clients
    identities: Identities
    control_plane: ControlPlane
    pool: Pool
    images: Callable[[str], ImageEnvironment]
    registry: Registry
    changed: Callable[[], None]
    report: Callable[[Report], None]
    first_api_port: int = 0  # 0: any free port
    account: Account = field(default_factory=Account)
    settings: api.Settings = field(default_factory=api.Settings)
    faults: Faults = field(default_factory=Faults)
    traffic: Traffic = field(default_factory=Traffic)
    reasons: Reasons = field(default_factory=Reasons)

    async def blocking(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Run boto3 and other blocking work off the event loop."""
        return await asyncio.to_thread(work, *arguments, **options)

    def refuse(self, refused: Refused) -> Refused:
        """Keep a refusal where `status` shows it."""
        self.traffic.refused(refused)
        return refused
