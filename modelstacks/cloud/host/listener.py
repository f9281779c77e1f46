"""Listeners are ports of this machine on which a handler answers HTTP/1.1.

They use uvicorn's protocol without its server, because each request passes several listeners. A listener
rejects requests that it must not accept, for example those of a web page in the user's browser.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from modelstacks.cloud.host.wire import (
    HOP_BY_HOP,
    ConnectionLost,
    Handler,
    Headers,
    Request,
    Response,
    first,
)
from modelstacks.core.errors import EnvironmentFault

__all__ = ["UNLIMITED", "Limits", "Listener", "listen"]


class Listener:
    """A port of this machine on which a handler answers."""

    def __init__(self, servers: list[asyncio.Server], state: ServerState, port: int) -> None:
        self._servers, self._state, self.port = servers, state, port

    async def close(self) -> None:
        """Stop listening and drop the connections."""
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a listener's requests; None means no limit."""

    # Bytes of the body.
    body: int | None = None
    # Bytes of the request line and the header values.
    head: int | None = None
    # Time in which a whole request has to arrive.
    seconds: float | None = None


UNLIMITED = Limits()


async def listen(
    handler: Handler,
    *,
    port: int = 0,
    limits: Limits = UNLIMITED,
    localhost: bool = False,
    browsers: bool = False,
) -> Listener:
    """Listen on a port of 127.0.0.1 (0 selects a free one), and with `localhost` on the same port of ::1.

    The Host header must be one of this machine's own names, so a DNS name that somebody points to 127.0.0.1
    does not work. `localhost` also allows names under `.localhost` (S3 buckets). Without `browsers`, requests
    of web pages are refused; with it, the handler decides.

    Headers over their limit are answered 431, and a request that takes too long 408. A body over its limit is
    not read, and the handler answers (`Request.oversize`).

    Raises EnvironmentFault if the port is in use.
    """
    door = _Door(subdomains=localhost, browsers=browsers)
    config = uvicorn.Config(
        _Application(handler, limits, door),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        ws="none",
    )
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()

    def protocol() -> asyncio.Protocol:
        return _Protocol(limits, config=config, server_state=state, app_state={}, _loop=loop)

    try:
        bound = _bind(socket.AF_INET, "127.0.0.1", port)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        why = (
            "is in use by another program"
            if error.errno == errno.EADDRINUSE
            else "is not for this user to use"
        )
        raise EnvironmentFault(
            f"port {port} {why}", fix="choose another port with --port, or leave it out for a free one"
        ) from error
    port = door.port = bound.getsockname()[1]
    sockets = [bound]
    if localhost:
        # The machine may have no IPv6, or the port may be in use on ::1.
        with contextlib.suppress(OSError):
            sockets.append(_bind(socket.AF_INET6, "::1", port))
    servers = [await loop.create_server(protocol, sock=one, backlog=1024) for one in sockets]
    return Listener(servers, state, port)


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    # asyncio disables Nagle's algorithm only if the socket names its protocol. Nagle costs 40 ms a request.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


@dataclass(slots=True)
class _Door:
    """Decides by its headers whether a request may enter."""

    subdomains: bool
    browsers: bool
    port: int = 0

    def refuses(self, headers: Headers) -> Response | None:
        """The response to a request that may not enter, or None if it may."""
        hosts = [value for name, value in headers if name == "host"]
        if len(hosts) != 1:
            return _plain(400, "Bad Request", f"a request needs exactly one Host header; got {len(hosts)}")
        if not self._ours(hosts[0].lower()):
            names = f"localhost:{self.port} or 127.0.0.1:{self.port}"
            return _plain(403, "Forbidden", f"the Host header has to be {names}")
        if self.browsers:
            return None
        if first(headers, "origin") is not None or first(headers, "sec-fetch-site") not in (None, "none"):
            return _plain(403, "Forbidden", "the embedded cloud takes no requests of web pages")
        return None

    def _ours(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        known = name in ("localhost", "127.0.0.1", "[::1]")
        return port == str(self.port) and (known or (self.subdomains and name.endswith(".localhost")))


def _plain(status: int, message: str, reason: str = "") -> Response:
    """A response of the listener itself, which closes the connection."""
    headers = [("content-type", "application/json"), ("connection", "close")]
    headers += [("x-modelstacks-reason", reason)] if reason else []
    return Response(status, headers, json.dumps({"message": message}, separators=(",", ":")).encode())


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol with limits on the size of a request's head and on the time it takes to arrive."""

    def __init__(self, limits: Limits, **options: Any) -> None:
        super().__init__(**options)
        self._limits = limits
        self._head = 0
        self._begun = False
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._head, self._begun = 0, True
        if self._patience is None:
            self._wait()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(value))

    def on_headers_complete(self) -> None:
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._begun = False
        self._stop_waiting()
        if not self.transport.is_closing():
            super().on_message_complete()

    def _count(self, more: int) -> None:
        self._head += more
        most = self._limits.head
        if most is not None and self._head > most and not self.transport.is_closing():
            self._refuse(431, "Request Header Fields Too Large")

    def _refuse(self, status: int, message: str) -> None:
        """Answer in the middle of a request and close the connection."""
        body = json.dumps({"message": message}, separators=(",", ":")).encode()
        head = (
            f"HTTP/1.1 {status} {message}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _wait(self) -> None:
        if self._limits.seconds is not None:
            self._patience = self.loop.call_later(self._limits.seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _too_slow(self) -> None:
        if self._begun:
            self._refuse(408, "Request Timeout")
        else:
            self.transport.close()


class _Application:
    """Translates between ASGI and our Request and Response."""

    def __init__(self, handler: Handler, limits: Limits, door: _Door) -> None:
        self._handler, self._limit, self._door = handler, limits.body, door

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in scope["headers"]]
        if refused := self._door.refuses(headers):
            await self._send(scope["method"], refused, send)
            return
        try:
            body = await self._body(headers, receive)
        # The caller disconnected while it sent its body.
        except ConnectionLost:
            return
        response = await self._handler(
            Request(
                method=scope["method"],
                path=scope["raw_path"].decode("latin-1"),
                query=scope["query_string"].decode("latin-1"),
                headers=headers,
                body=body or b"",
                client=scope["client"][0] if scope["client"] else "127.0.0.1",
                oversize=body is None,
            )
        )
        await self._send(scope["method"], response, send)

    async def _body(self, headers: Headers, receive: Any) -> bytes | None:
        declared = first(headers, "content-length")
        if self._limit is not None and declared is not None and int(declared) > self._limit:
            return None
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionLost
        if not message.get("more_body"):
            return bytes(message.get("body", b""))
        chunks, size = [message["body"]], len(message["body"])
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionLost
            chunks.append(message["body"])
            size += len(message["body"])
            if self._limit is not None and size > self._limit:
                return None
        return b"".join(chunks)

    async def _send(self, method: str, response: Response, send: Any) -> None:
        headers = [
            (key.lower().encode("latin-1"), value.encode("latin-1"))
            for key, value in response.headers
            if key.lower() not in HOP_BY_HOP or key.lower() == "connection"
        ]
        body = response.body
        if isinstance(body, bytes) and method != "HEAD":
            headers = [pair for pair in headers if pair[0] != b"content-length"]
            headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if isinstance(body, bytes):
            await send({"type": "http.response.body", "body": body})
            return
        async for chunk in body:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
