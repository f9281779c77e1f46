"""The data plane put together: read the account back, make the machine look like it, say what runs."""

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
    """A data plane in front of the control plane that listens on a Unix socket."""
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
        self.problem: str | None = None  # why the account cannot be followed now

    async def follow(self) -> None:
        """Follow the account from now on, until `close`: whatever CloudFormation changes is carried out.

        Raises EnvironmentFault where the account cannot be read.
        """
        await self._channel.open(self._reconcile_quietly)
        await self.runtimes.open()
        await self.reconcile()

    async def _reconcile_quietly(self) -> None:
        """Follow one change of the account.

        No error may end the following: CloudFormation waits for the reports of what runs. A defect is shown
        by `status` until a later change is followed.
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
        """Read the account back and start, replace and stop what changed. Raises EnvironmentFault.

        Returns when the work is under way; `workloads` tells when it is done.
        """
        await self.runtimes.reconcile()

    async def close(self) -> None:
        """Stop every process and close every port."""
        await self._channel.close()
        await self.runtimes.close()
        await self.context.registry.stop_all(1.0)
        self.context.pool.close()

    def workloads(self) -> tuple[api.Workload, ...]:
        """What the account asks to be running."""
        return tuple(workload for one in self.runtimes for workload in one.workloads())

    def stacks(self) -> tuple[api.Stack, ...]:
        """The stacks, as they were when the account was last read."""
        return self.runtimes[Stacks].describe()

    def apis(self) -> tuple[api.Api, ...]:
        """The REST APIs and where they listen."""
        return tuple(found for one in self.runtimes for found in one.apis())

    def inject(self, fault: api.Fault) -> None:
        """Inject a fault. Raises UsageError for a replica or workload that is not there."""
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
