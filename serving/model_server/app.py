"""The application: which handler answers which route, before the model is loaded and after."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote, unquote

from model_server import metrics
from model_server.batching import Batcher
from model_server.codecs import dumps
from model_server.engines import Engine, RawEngine
from model_server.http import Request, Server
from model_server.jobs import fail
from model_server.large_bodies import LargeBodies
from model_server.openapi import describe, public_address
from model_server.problems import ProblemError
from model_server.protocols.invocations import Invocations, RawInvocations
from model_server.protocols.open_inference import VERSION, Infer, model_metadata, server_metadata
from model_server.protocols.tunnel import HEADER, open_tunnel
from model_server.settings import Settings
from model_server.validation import InputReader

Handler = Callable[[Request], None]
JSON = b"application/json"


class Application:
    """Routes by method and path in one look-up; a path not found as it was sent is looked at with care."""

    def __init__(self, settings: Settings, counters: metrics.WorkerMetrics) -> None:
        self._settings, self._counters = settings, counters
        self._routes: dict[bytes, tuple[Handler, int]] = {}
        self._methods: dict[str, list[str]] = {}  # path -> its methods, for 405
        self.server: Server | None = None
        self.ready = False
        self.batcher: Batcher | None = None
        self._add("GET", "/ping", self._ping)
        self._add("GET", "/v2/health/live", lambda request: request.respond(200, JSON, b'{"live":true}'))
        self._add("GET", "/v2/health/ready", self._ping)
        self._add("GET", "/v2", _constant(server_metadata()))
        self._add("GET", "/metrics", self._metrics)

    def install(self, engine: Engine, loop: asyncio.AbstractEventLoop, warm_up_seconds: float) -> None:
        """The model is loaded and has answered once: its routes open."""
        settings, model = self._settings, self._settings.model_name
        batcher = Batcher(
            engine,
            loop,
            self._counters,
            max_rows=settings.max_batch_size,
            max_queue=settings.max_queue,
            max_latency=settings.max_latency_ms / 1000,
            target_wait=settings.target_wait_ms / 1000,
            patience=settings.deadline_seconds or math.inf,
        )
        if not isinstance(engine, RawEngine):  # which has not been asked yet
            batcher.learn(batcher.size_of(engine.example(), 1), warm_up_seconds)
        self.batcher = batcher
        if isinstance(engine, RawEngine):
            self._add("POST", "/invocations", RawInvocations(engine, batcher, settings.max_body_bytes))
        else:
            large_bodies = LargeBodies(loop, batcher, self._counters, max_queue=settings.max_queue)
            reader = InputReader(engine.signature, nan=settings.nan == "allow")
            limit = settings.max_body_bytes
            infer = Infer(engine, model, reader, batcher, large_bodies, limit)
            metadata = _constant(model_metadata(engine, model))
            self._add("POST", "/invocations", Invocations(engine, reader, batcher, large_bodies, limit))
            for prefix in (f"/v2/models/{model}", f"/v2/models/{model}/versions/{VERSION}"):
                self._add("GET", prefix, metadata, "/v2/models/{model}")
                self._add("GET", f"{prefix}/ready", self._ping, "/v2/models/{model}/ready")
                self._add("POST", f"{prefix}/infer", infer, "/v2/models/{model}/infer")
        self._add("GET", "/openapi.json", partial(_openapi, describe(engine, model, settings.api_auth)))
        self.ready = True

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

    def _add(self, method: str, path: str, handler: Handler, label: str = "") -> None:
        route = metrics.ROUTES.index(label or path)
        for verb in (method, "HEAD") if method == "GET" else (method,):
            self._routes[f"{verb}{quote(path)}".encode()] = handler, route
            self._methods.setdefault(path, []).append(verb)

    def _find(self, request: Request) -> tuple[Handler, int]:
        """A path with a query, an escape or a host before it; or the reason why there is none."""
        target = request.target.decode("latin-1")
        if not target.startswith("/"):  # absolute form, as a proxy is asked
            _, _, rest = target.partition("://")
            target = "/" + rest.partition("/")[2]
        target = target.partition("?")[0]
        path = unquote(target)
        if "%2f" in target.lower():  # a slash within a name: an API that allows a route by its path saw none
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
        if not self.ready:
            raise _not_ready()
        raise ProblemError(404, f"there is no {path}; /openapi.json names every route")

    def _ping(self, request: Request) -> None:
        if self.server is not None and self.server.draining:
            raise ProblemError(503, "the server is about to stop", headers={"retry-after": "1"})
        if not self.ready:
            raise _not_ready()
        request.respond(200, JSON, b'{"ready":true}')

    def publish(self) -> None:
        """Gauges that would cost every request something: written when asked for, and each second."""
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
    """The API's description, with its address where the API in front says what it is."""
    address = public_address(request)
    servers = {"servers": [{"url": address}]} if address else {}
    request.respond(200, JSON, dumps(document | servers))


def _constant(body: dict[str, Any]) -> Handler:
    text = dumps(body)
    return lambda request: request.respond(200, JSON, text)


def _not_ready() -> ProblemError:
    return ProblemError(503, "the model is still loading", headers={"retry-after": "1"})
