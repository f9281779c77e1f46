"""The data plane reads the account back, runs its resources on this machine and reports what runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from modelstacks.cloud import api
from modelstacks.cloud.clients import Clients
from modelstacks.cloud.context import Context
from modelstacks.cloud.daemon.channel import Channel
from modelstacks.cloud.daemon.state import StateDirectory
from modelstacks.cloud.host.pool import Pool
from modelstacks.cloud.host.replicas import ImageEnvironment, Registry
from modelstacks.cloud.network.control_plane import ControlPlane
from modelstacks.cloud.network.gateway import FrontDoor
from modelstacks.cloud.network.identities import Identities
from modelstacks.cloud.runtime import Runtimes
from modelstacks.cloud.services.cloudformation.runtime import Stacks
from modelstacks.core.errors import ModelstacksError, UsageError

__all__ = ["DataPlane", "assemble"]

log = logging.getLogger("modelstacks.cloud")


def assemble(
    *,
    state: StateDirectory,
    clients: Clients,
    control_plane: Path,
    images: Callable[[str], ImageEnvironment],
    registry: Registry,
    changed: Callable[[], None],
    first_api_port: int = 0,
) -> DataPlane:
    """Build a data plane for the control plane that listens on the Unix socket `control_plane`."""
    pool = Pool()
    way = ControlPlane(pool, control_plane)
    channel = Channel(way.send)
    context = Context(
        state=state,
        clients=clients,
        identities=Identities(clients),
        control_plane=way,
        pool=pool,
        images=images,
        registry=registry,
        changed=changed,
        report=channel.tell,
        first_api_port=first_api_port,
    )
    return DataPlane(context, Runtimes(context), channel)


class DataPlane:
    """Everything between a caller's request and a model server's answer."""

    def __init__(self, context: Context, runtimes: Runtimes, channel: Channel) -> None:
        self.context, self.runtimes = context, runtimes
        self.front_door = FrontDoor(context, runtimes)
        self._channel = channel
        # The reason why the account cannot be followed now.
        self.problem: str | None = None

    async def follow(self) -> None:
        """Follow the account until `close`: apply each change that CloudFormation makes.

        Raises EnvironmentFault if the account cannot be read.
        """
        await self._channel.open(self._reconcile_quietly)
        await self.runtimes.open()
        await self.reconcile()

    async def _reconcile_quietly(self) -> None:
        """Follow one change of the account.

        No error may stop the data plane from following the account, because CloudFormation waits for its
        reports. `status` shows a defect until a later change is followed without one.
        """
        try:
            await self.reconcile()
        except ModelstacksError as error:
            log.warning("%s", error)
        except Exception as error:
            log.exception("a change of the account cannot be followed")
            self.problem = (
                f"the embedded cloud cannot follow what was deployed: {type(error).__name__}: {error}; "
                "fix: report it with the daemon's log, .modelstacks/daemon.log"
            )
        else:
            self.problem = None

    async def reconcile(self) -> None:
        """Read the account back and start, replace or stop what changed. Raises EnvironmentFault.

        Returns when the work has started; `workloads` shows when it is done.
        """
        await self.runtimes.reconcile()

    async def close(self) -> None:
        """Stop every process and close every port."""
        await self._channel.close()
        await self.runtimes.close()
        await self.context.registry.stop_all(1.0)
        self.context.pool.close()

    def workloads(self) -> tuple[api.Workload, ...]:
        """The workloads that the account defines, with their current state."""
        return tuple(workload for one in self.runtimes for workload in one.workloads())

    def stacks(self) -> tuple[api.Stack, ...]:
        """The stacks as of the last read of the account."""
        return self.runtimes[Stacks].describe()

    def apis(self) -> tuple[api.Api, ...]:
        """The REST APIs and where they listen."""
        return tuple(found for one in self.runtimes for found in one.apis())

    def inject(self, fault: api.Fault) -> None:
        """Inject a fault. Raises UsageError for a replica or workload that does not exist."""
        replicas = {one.id for one in self.context.registry}
        workloads = {one.name for one in self.workloads()}
        if isinstance(fault, (api.KillReplica, api.FailHealthChecks)):
            _known("replica", fault.replica, replicas)
        else:
            _known("workload", fault.workload, workloads)
        if isinstance(fault, api.KillReplica):
            replica = self.context.registry.find(fault.replica)
            if replica is not None:
                replica.kill()
            return
        self.context.faults.add(fault)


def _known(what: str, name: str, names: set[str]) -> None:
    if name not in names:
        raise UsageError(f"no such {what}", got=name, allowed=", ".join(sorted(names)) or "none runs")
