"""Runtimes: what a service does with the part of the account that is its own.

A service that runs something, answers calls in AWS's place or listens on a port declares one `Runtime` in
services/<service>/runtime.py, and is found there. Runtimes find each other in `Runtimes`, by type:

    runtimes[LoadBalancers].register(...)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from graphlib import TopologicalSorter
from typing import ClassVar, TypeVar

from modelstacks.cloud import api
from modelstacks.cloud.context import Context
from modelstacks.cloud.host.wire import Request, Response
from modelstacks.cloud.network.calls import Caller
from modelstacks.cloud.services import service_modules
from modelstacks.cloud.snapshot import ReadError, read
from modelstacks.core.errors import EnvironmentFault

__all__ = ["Runtime", "Runtimes", "kinds"]


class Runtime:
    """One service's runtime.

    `needs` names the runtimes that it uses: they are reconciled before it and closed after it.
    """

    needs: ClassVar[tuple[type[Runtime], ...]] = ()

    def __init__(self, context: Context, runtimes: Runtimes) -> None:
        self._context, self._runtimes = context, runtimes

    async def open(self) -> None:
        """Begin; called once, before the account is first read."""

    async def reconcile(self) -> None:
        """Begin to make this machine what the account, which has just been read, asks for."""

    async def close(self) -> None:
        """Stop everything that it started."""

    def workloads(self) -> Sequence[api.Workload]:
        """What the account asks to be running, for `status`."""
        return ()

    def apis(self) -> Sequence[api.Api]:
        """The APIs that it serves on ports of this machine, for `status`."""
        return ()

    def unemulated(self) -> Sequence[tuple[str, str]]:
        """What is accepted and not acted upon, for `status`: a resource's physical id, and what about it."""
        return ()

    async def answer(self, request: Request, service: str) -> Response | None:  # noqa: ARG002
        """Answer an AWS API call in the control plane's place; None where the control plane answers it.

        The signature (for `service`, its signing name) and the permission have been checked.
        """
        return None

    async def receive(self, request: Request, caller: Caller) -> Response | None:  # noqa: ARG002
        """Answer a workload's request that has no signature; None where it is not this runtime's."""
        return None


Kind = TypeVar("Kind", bound=Runtime)
Role = TypeVar("Role")


class Runtimes:
    """Every service's runtime, in the order in which they need each other."""

    def __init__(self, context: Context, wanted: Iterable[type[Runtime]] | None = None) -> None:
        self._context = context
        self._made: dict[type[Runtime], Runtime] = {}
        # Held while the account is read and followed: what is written to it between the two would be undone
        # by the older reading.
        self.following = asyncio.Lock()
        for kind in _order(kinds() if wanted is None else wanted).static_order():
            self._made[kind] = kind(context, self)

    def __iter__(self) -> Iterator[Runtime]:
        return iter(self._made.values())

    def __getitem__(self, kind: type[Kind]) -> Kind:
        """The runtime of this type. Raises KeyError where there is none."""
        made = self._made[kind]
        assert isinstance(made, kind)
        return made

    def playing(self, role: type[Role]) -> list[Role]:
        """The runtimes that also are a `role`: a class that says what one service asks of any other."""
        return [one for one in self if isinstance(one, role)]

    async def open(self) -> None:
        """Let each begin."""
        for one in self:
            await one.open()

    async def reconcile(self) -> None:
        """Read the account back and follow it. Raises EnvironmentFault where it cannot be read."""
        async with self.following:
            context = self._context
            try:
                context.account = await context.blocking(read, context.clients)
            except ReadError as error:
                raise EnvironmentFault(f"the account cannot be read back: {error}") from error
            for one in self:
                await one.reconcile()
            context.changed()

    async def close(self) -> None:
        """Close each after those that need it."""
        waiting: TopologicalSorter[type[Runtime]] = TopologicalSorter()
        for kind in self._made:
            waiting.add(kind)
            for needed in kind.needs:
                waiting.add(needed, kind)
        waiting.prepare()
        while waiting.is_active():
            ready = waiting.get_ready()
            await asyncio.gather(*(self._made[kind].close() for kind in ready))
            waiting.done(*ready)

    async def answer(self, request: Request, service: str) -> Response | None:
        """The answer of the runtime whose call this is; None where the control plane answers it."""
        for one in self:
            if (response := await one.answer(request, service)) is not None:
                return response
        return None

    async def receive(self, request: Request, caller: Caller) -> Response | None:
        """The answer of the runtime whose unsigned request this is; None where it is nobody's."""
        for one in self:
            if (response := await one.receive(request, caller)) is not None:
                return response
        return None


def kinds() -> tuple[type[Runtime], ...]:
    """The runtimes that the services declare, by the services' names."""
    return tuple(
        value
        for module in service_modules("runtime")
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Runtime) and value.__module__ == module.__name__
    )


def _order(wanted: Iterable[type[Runtime]]) -> TopologicalSorter[type[Runtime]]:
    order: TopologicalSorter[type[Runtime]] = TopologicalSorter()
    for kind in wanted:
        order.add(kind, *kind.needs)
    return order
