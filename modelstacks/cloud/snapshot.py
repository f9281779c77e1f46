"""The embedded account at one moment, read back through boto3: never from the spec, never from the Plan.

Each service that something here acts upon declares one `Snapshot` in services/<service>/snapshot.py: frozen
data, and how it is read. An `Account` holds one of each, keyed by its type:

    account[ElbSnapshot].load_balancers
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from typing import Any, ClassVar, Self, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.services import service_modules

__all__ = ["Account", "ReadError", "Snapshot", "at_once", "each", "kinds", "read", "unless_absent"]

ReadError = (BotoCoreError, ClientError)
THREADS = 8  # of one reader
ATTEMPTS = 5  # at reading an account that changes meanwhile


class Snapshot:
    """One service's part of the account: a frozen dataclass whose fields are empty by default.

    `needs` names the snapshots of what its own resources were created after. Stacks change while the account
    is read, so a snapshot is read before those that it needs: whatever it finds, they have everything
    that it was created after. What starts nothing by itself (a load balancer) needs nobody: each level of
    needs makes reading slower, and the next reading, which its creation announces, completes it.
    """

    needs: ClassVar[tuple[type[Snapshot], ...]] = ()

    @classmethod
    def read(cls, clients: Clients) -> Self:
        """Read it back, in a thread of its own. Raises ReadError where the control plane refuses a call."""
        raise NotImplementedError

    def holds(self, clients: Clients) -> bool:
        """Whether what leads to other resources is still as it was read.

        What a stage or a service leads to is deleted only after it has moved on. A part that was read before
        it moved on, and the others after what it led to was deleted, would lead nowhere.
        """
        del clients
        return True


Kind = TypeVar("Kind", bound=Snapshot)


class Account:
    """The account at one moment. It never changes, so that a request sees one state of the world."""

    def __init__(self, *parts: Snapshot, id: str = "123456789012", region: str = "us-east-1") -> None:
        self.id, self.region = id, region
        self._parts: Mapping[type[Snapshot], Snapshot] = {type(part): part for part in parts}

    def __getitem__(self, kind: type[Kind]) -> Kind:
        """One service's part; an empty one where it was not read."""
        part = self._parts.get(kind)
        return part if isinstance(part, kind) else kind()

    def having(self, *parts: Snapshot) -> Account:
        """The same account with other parts."""
        return Account(
            *{**self._parts, **{type(part): part for part in parts}}.values(), id=self.id, region=self.region
        )


def kinds() -> tuple[type[Snapshot], ...]:
    """The snapshots that the services declare, by the services' names."""
    return tuple(
        value
        for module in service_modules("snapshot")
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Snapshot) and value.__module__ == module.__name__
    )


def read(clients: Clients, wanted: Iterable[type[Snapshot]] | None = None) -> Account:
    """Read the whole account, again where it changed in a way that leaves its parts at odds.

    Raises ReadError where the control plane refuses a call.
    """
    kinds_wanted = tuple(kinds() if wanted is None else wanted)
    for _ in range(ATTEMPTS - 1):
        parts, identity = _read_once(clients, kinds_wanted)
        if all(at_once(*(functools.partial(part.holds, clients) for part in parts))):
            break
    else:
        parts, identity = _read_once(clients, kinds_wanted)
    return Account(*parts, id=identity, region=clients.region)


def _read_once(clients: Clients, wanted: Iterable[type[Snapshot]]) -> tuple[list[Snapshot], str]:
    """Each part, read as soon as those that need it have been read, and the account's number."""
    order = _order(wanted)
    parts: list[Snapshot] = []
    running: dict[Future[Snapshot], type[Snapshot]] = {}
    with ThreadPoolExecutor(thread_name_prefix="account") as pool:
        identity = pool.submit(clients.account_id)
        while order.is_active():
            running |= {pool.submit(kind.read, clients): kind for kind in order.get_ready()}
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                parts.append(done.result())
                order.done(running.pop(done))
    return parts, identity.result()


def _order(wanted: Iterable[type[Snapshot]]) -> TopologicalSorter[type[Snapshot]]:
    """What needs others comes before them. Raises graphlib.CycleError for a circle."""
    order: TopologicalSorter[type[Snapshot]] = TopologicalSorter()
    for kind in wanted:
        order.add(kind)
        for needed in kind.needs:
            order.add(needed, kind)
    order.prepare()
    return order


def each(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Apply `work` to every item at the same time, in threads of its own; the results in the items' order."""
    items = list(items)
    if len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(len(items), THREADS)) as pool:
        return list(pool.map(work, items))


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Do different things at the same time; their results in the same order."""
    return each(lambda work: work(), works)


def unless_absent(work: Callable[[], Any]) -> Any:
    """A value that the API reports as an error where it is not set: None then."""
    try:
        return work()
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status == 404 or error.response["Error"]["Code"].startswith(
            ("NoSuch", "ResourceNotFound", "NotFound")
        ):
            return None
        raise
