"""The list of routes, read from routes.json: dispatch, metrics and /openapi.json are derived from it.

The toolkit reads the same file for the API's resources (modelstacks/core/contract.py). To add a route, add an
entry to the file and a handler under the entry's operation id in a module of protocols/.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

COMMON = "common"  # the group that is always open


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. `{model}` in a path is the model's name."""

    operation: str  # its id in /openapi.json; handlers are registered under it
    method: str  # GET or POST
    path: str
    group: str
    summary: str
    aliases: tuple[str, ...] = ()  # more paths that the server answers; they are not part of the API
    public: bool = True  # False: only the replica's own surroundings reach it
    headers: tuple[str, ...] = ()  # without one of these the API refuses the request
    context: Mapping[str, str] | None = None  # headers that the API sets, each to a variable of its context
    waits: bool = False  # 503 until the model is loaded
    streams: bool = False  # the answer may be sent in chunks while it is made
    failures: tuple[int, ...] = ()  # statuses that the handler may answer with, besides 200
    # Keys of openapi.py's contents and schemas, or a JSON schema.
    request: str | Mapping[str, Any] | None = None
    response: str | Mapping[str, Any] = "Object"

    def paths(self, model: str) -> list[str]:
        """Every path that the server answers, with the model's name."""
        return [path.replace("{model}", model) for path in (self.path, *self.aliases)]


def _read(file: Path) -> tuple[Mapping[str, str], tuple[Route, ...]]:
    content = orjson.loads(file.read_bytes())
    lists = ("aliases", "headers", "failures")
    return content["groups"], tuple(
        Route(**entry | {name: tuple(entry.get(name, ())) for name in lists}) for entry in content["routes"]
    )


GROUPS, ROUTES = _read(Path(__file__).with_name("routes.json"))
# What a deployment can choose.
CONTRACTS = tuple(group for group in GROUPS if group != COMMON)


def open_routes(contracts: Collection[str]) -> list[Route]:
    """The routes of these groups and those that are always open, in the list's order."""
    return [route for route in ROUTES if route.group == COMMON or route.group in contracts]
