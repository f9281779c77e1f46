"""The data plane put together: read the account back, make the machine look like it, say what runs."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from modelstacks.cloud import api
from modelstacks.cloud.context import Context
from modelstacks.cloud.daemon.channel import Channel
from modelstacks.cloud.network.gateway import FrontDoor, to_control_plane
from modelstacks.cloud.services.apigateway.runtime import ApiGateways
from modelstacks.cloud.services.cloudformation.runtime import CustomResources
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.ecs.runtime import Services
from modelstacks.cloud.services.elbv2.runtime import LoadBalancers
from modelstacks.cloud.services.lambda_.runtime import Functions
from modelstacks.cloud.services.sagemaker.runtime import Endpoints
from modelstacks.cloud.snapshot import ReadError, read
from modelstacks.core.errors import EnvironmentFault, ModelstacksError, UsageError

__all__ = ["DataPlane"]

log = logging.getLogger("modelstacks.cloud")


class DataPlane:
    """Everything between a caller's request and a model server's answer."""

    def __init__(self, context: Context, *, first_api_port: int = 0) -> None:
        self.context = context
        self.front_door = FrontDoor(context)
        self._balancers = LoadBalancers(context)
        self._busy = asyncio.Lock()
        self._functions = Functions(context, self._busy)
        self._endpoints = Endpoints(context, self._busy)
        self._services = Services(context, self._balancers, self._busy)
        self._apis = ApiGateways(context, self._balancers, self._functions, first_api_port)
        self._custom_resources = CustomResources(context, self._functions, self.reconcile)
        self._unemulated: dict[str, list[api.Unemulated]] = {}
        self._channel = Channel(partial(to_control_plane, context))
        context.report = self._channel.tell
        context.invoke_endpoint = self._endpoints.invoke
        context.invoke_function = self._functions.invoke

    async def follow(self) -> None:
        """Follow the account from now on, until `close`: whatever CloudFormation changes is carried out.

        Raises EnvironmentFault where the account cannot be read.
        """
        await self._channel.open(self._reconcile_quietly)
        self._custom_resources.open()
        await self.reconcile()

    async def _reconcile_quietly(self) -> None:
        try:
            await self.reconcile()
        except ModelstacksError as error:
            log.warning("%s", error)

    async def reconcile(self) -> None:
        """Read the account back and start, replace and stop what changed. Raises EnvironmentFault.

        Returns when the work is under way; `workloads` tells when it is done.
        """
        async with self._busy:
            context = self.context
            try:
                account = await context.blocking(read, context.clients)
                found = await context.blocking(context.clients.unemulated)
            except ReadError as error:
                raise EnvironmentFault(f"the account cannot be read back: {error}") from error
            context.account = account
            self._unemulated = {}
            for one in found:
                entry = api.Unemulated(type=one.type, logical_id=one.logical_id)
                self._unemulated.setdefault(one.stack, []).append(entry)
            await self._functions.reconcile()
            await self._endpoints.reconcile()
            await self._services.reconcile()
            await self._apis.reconcile()
            context.changed()

    async def close(self) -> None:
        """Stop every process and close every port."""
        await self._channel.close()
        await self._custom_resources.close()
        await self._apis.close()
        await asyncio.gather(self._functions.close(), self._endpoints.close(), self._services.close())
        await self._balancers.close()
        await self.context.registry.stop_all(1.0)
        self.context.pool.close()

    def workloads(self) -> tuple[api.Workload, ...]:
        """What the account asks to be running."""
        return (*self._services.describe(), *self._endpoints.describe(), *self._functions.describe())

    def stacks(self) -> tuple[api.Stack, ...]:
        """The stacks, as they were when the account was last read."""
        return tuple(
            api.Stack(
                name=one.name,
                status=one.status,
                outputs=dict(one.outputs),
                unemulated=tuple(self._unemulated.get(one.name, ())),
            )
            for one in self.context.account[CloudFormationSnapshot].stacks
        )

    def apis(self) -> tuple[api.Api, ...]:
        """The REST APIs and where they listen."""
        return tuple(self._apis.describe())

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
