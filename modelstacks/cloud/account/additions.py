"""What one AWS service adds to moto's server. The service's patches.py declares it as ADDITIONS."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from modelstacks.cloud.account.channel import Report
from modelstacks.cloud.services import service_modules

__all__ = ["ROUTES", "Additions", "Answer", "Call", "answered", "discovered", "install"]

#: The folder of the account's own routes. AWS has none of them; the front door does not pass them on.
ROUTES = "/_modelstacks/"


@dataclass(frozen=True, slots=True)
class Call:
    """A request to a route of the account's own. `rest` is the part of its path after the route's."""

    method: str
    rest: str
    query: Mapping[str, str]
    body: bytes
    account: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers."""

    body: bytes
    media_type: str = "application/json"
    status: int = 200


def answered(body: object) -> Answer:
    """A JSON answer."""
    return Answer(json.dumps(body).encode())


def _nothing() -> None:
    """Nothing has to be done."""


@dataclass(frozen=True, slots=True)
class Additions:
    """One service's part of the account's server.

    Attributes:
        install: changes moto's classes in this process, and nothing else.
        hears: kind of report -> what takes over a data plane's report of that kind, given the account's id.
            It is called with ONE_CALL_AT_A_TIME held.
        routes: path -> what answers it and the paths below it.
        in_parallel: the names by which SDKs sign for the service, where its requests are answered side by
            side. Every other service answers one request at a time, because moto's backends are plain
            dictionaries.
        before_answer: called before the answer to such a request is sent.
    """

    install: Callable[[], None] = _nothing
    hears: Mapping[str, Callable[[str, Report], None]] = field(default_factory=dict)
    routes: Mapping[str, Callable[[Call], Answer]] = field(default_factory=dict)
    in_parallel: tuple[str, ...] = ()
    before_answer: Callable[[], None] = _nothing


def discovered() -> list[Additions]:
    """The additions of every service, sorted by name. Raises TypeError for a bad declaration."""
    found = []
    for module in service_modules("patches"):
        additions = getattr(module, "ADDITIONS", None)
        if not isinstance(additions, Additions):
            raise TypeError(f"{module.__name__} needs ADDITIONS = Additions(...); got {additions!r}")
        found.append(additions)
    return found


def install() -> list[Additions]:
    """Change this process's moto as every service asks for, and register the services' resource types."""
    from modelstacks.cloud.cloudformation.resource import emulated_types

    services = discovered()
    for service in services:
        service.install()
    emulated_types()
    return services
