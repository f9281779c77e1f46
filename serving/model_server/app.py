"""The application: dispatches each request to its route's handler, before the model is loaded and after."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote, unquote

from model_server import metrics
from model_server.batching import Batcher
from model_server.codecs import dumps
from model_server.engines import Engine, RawEngine
from model_server.handover import Siblings
from model_server.http import Server
from model_server.jobs import fail
from model_server.large_bodies import LargeBodies
from model_server.openapi import describe, public_address
from model_server.problems import ProblemError
from model_server.protocols import handlers
from model_server.protocols.open_inference import server_metadata
from model_server.protocols.tunnel import HEADER, open_tunnel
from model_server.request import Request
from model_server.routes import ROUTES, open_routes
from model_server.served import Handler, ServedModel
from model_server.settings import Settings

OPERATIONS = frozenset(route.operation for route in ROUTES)
JSON = b"application/json"


class Application:
    """Dispatches requests by method and path in one look-up; then by the decoded path."""

    def __init__(self, settings: Settings, counters: metrics.WorkerMetrics) -> None:
        self._settings, self._counters = settings, counters
        self._declared = {route.operation: route for route in open_routes(settings.groups)}
        self._routes: dict[bytes, tuple[Handler, int]] = {}
        self._methods: dict[str, list[str]] = {}  # path -> its methods, for 405
        self._opened: set[str] = set()  # operations that have a handler
        self._waiting = {
            path
            for route in self._declared.values()
            if route.waits
            for path in route.paths(settings.model_name)
        }
        self.server: Server | None = None
        self.ready = False
        self.batcher: Batcher | None = None
        self._open(
            {
                "ready": self._ping,
                "serverLive": _constant({"live": True}),
                "serverReady": self._ping,
                "serverMetadata": _constant(server_metadata()),
                "metrics": self._metrics,
            }
        )

    def install(
        self,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        warm_up_seconds: float,
        siblings: Siblings | None = None,
    ) -> None:
        """Opens the routes of a model that is loaded and has answered once."""
        settings = self._settings
        batcher = Batcher(
            engine,
            loop,
            self._counters,
            max_rows=settings.max_batch_size,
            max_queue=settings.max_queue,
            max_latency=settings.max_latency_ms / 1000,
            target_wait=settings.target_wait_ms / 1000,
            patience=settings.deadline_seconds or math.inf,
            siblings=siblings,
        )
        if not isinstance(engine, RawEngine):  # which has not been asked yet
            batcher.learn(batcher.size_of(engine.example(), 1), warm_up_seconds)
        self.batcher = batcher
        large_bodies = LargeBodies(loop, batcher, self._counters, max_queue=settings.max_queue)
        self._open(handlers(ServedModel(engine, settings, batcher, large_bodies, self._ping)))
        # Last, since it describes what is open.
        described = [
            route for route in self._declared.values() if route.operation in {*self._opened, "openapi"}
        ]
        document = describe(engine, settings.model_name, settings.api_auth, described)
        self._open({"openapi": partial(_openapi, document)})
        self.ready = True
        batcher.share(on=True)

    def __call__(self, request: Request) -> None:
        try:
            known = request.known
            if known is not None and known.handler is not None:
                request.route = known.route
                known.handler(request)
                return
            tunnel = self._settings.tunnel and HEADER in request.headers and request.target == b"/invocations"
            if tunnel:
                open_tunnel(request)
            found = self._routes.get(request.method + request.target)
            handler, request.route = found if found is not None else self._find(request)
            if known is not None and not tunnel:
                known.handler, known.route = handler, request.route
            handler(request)
        except Exception as error:  # every request gets an answer
            fail(request, error)

    def _open(self, offered: Mapping[str, Handler]) -> None:
        """Registers handlers by operation id. Those of a group that is not open are left out."""
        for operation, handler in offered.items():
            route = self._declared.get(operation)
            if route is None:
                if operation not in OPERATIONS:
                    raise LookupError(f"routes.json has no operation {operation!r}")
                continue
            self._opened.add(operation)
            label = metrics.PATHS.index(route.path)
            for path in route.paths(self._settings.model_name):
                for verb in (route.method, "HEAD") if route.method == "GET" else (route.method,):
                    self._routes[f"{verb}{quote(path)}".encode()] = handler, label
                    self._methods.setdefault(path, []).append(verb)

    def _find(self, request: Request) -> tuple[Handler, int]:
        """Finds the handler of a path with a query, an escape or a host before it; raises 404, 405 or 503."""
        target = request.target.decode("latin-1")
        if not target.startswith("/"):  # absolute form, as sent to a proxy
            _, _, rest = target.partition("://")
            target = "/" + rest.partition("/")[2]
        target = target.partition("?")[0]
        path = unquote(target)
        if (
            "%2f" in target.lower()
        ):  # an escaped slash: the API in front, which allows routes by path, does not see it
            raise ProblemError(404, f"there is no {target}; /openapi.json names every route")
        found = self._routes.get(request.method + quote(path).encode())
        if found is not None:
            return found
        if path in self._methods:
            allowed = ", ".join(self._methods[path])
            method = request.method.decode("latin-1")
            raise ProblemError(
                405, f"{method} is not allowed for {path}; allowed: {allowed}", headers={"allow": allowed}
            )
        if not self.ready and path in self._waiting:
            raise _not_ready()
        raise ProblemError(404, f"there is no {path}; /openapi.json names every route")

    def _ping(self, request: Request) -> None:
        if self.server is not None and self.server.draining:
            raise ProblemError(503, "the server is about to stop", headers={"retry-after": "1"})
        if not self.ready:
            raise _not_ready()
        request.respond(200, JSON, b'{"ready":true}')

    def publish(self) -> None:
        """Writes the gauges that are too costly to update with every request."""
        values = self._counters.values
        if self.server is not None:
            values[metrics.IN_FLIGHT] = self.server.in_flight
        if self.batcher is not None:
            self.batcher.publish()

    def _metrics(self, request: Request) -> None:
        self.publish()
        request.respond(
            200, b"text/plain; version=0.0.4; charset=utf-8", metrics.render(self._counters.shared)
        )


def _openapi(document: dict[str, Any], request: Request) -> None:
    """Answers with the API's description, with its address where the API in front names it."""
    address = public_address(request)
    servers = {"servers": [{"url": address}]} if address else {}
    request.respond(200, JSON, dumps(document | servers))


def _constant(body: dict[str, Any]) -> Handler:
    text = dumps(body)
    return lambda request: request.respond(200, JSON, text)


def _not_ready() -> ProblemError:
    return ProblemError(503, "the model is still loading", headers={"retry-after": "1"})
