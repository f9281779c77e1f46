"""HTTP/1.1 as the data plane speaks it: a listener for callers, a keep-alive pool towards replicas.

Both ends are thin, since every request crosses several of them: uvicorn's protocol without its server, and
a client of one class over httptools.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from modelstacks.core.errors import EnvironmentFault

__all__ = [
    "UNLIMITED",
    "ConnectionLost",
    "Headers",
    "Limits",
    "Listener",
    "Pool",
    "Request",
    "Response",
    "first",
    "listen",
    "without",
]

Headers = list[tuple[str, str]]

# Of one connection, not of the message that travels on it (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
BUFFER = 1 << 20  # bytes of a streamed body held before the sender is made to wait
IDLE_CONNECTIONS = 64  # a target


class ConnectionLost(Exception):
    """The other side refused the connection, or closed it before its answer was whole."""


@dataclass(slots=True)
class Request:
    """A request with its whole body. `path` and `query` are as sent: percent-encoded."""

    method: str
    path: str
    query: str = ""
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    client: str = "127.0.0.1"
    oversize: bool = False  # the body is over the listener's limit, and was not read

    @property
    def target(self) -> str:
        """Path and query, as the request line has them."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def header(self, name: str) -> str | None:
        """The first value of a header; `name` in lower case."""
        return first(self.headers, name)


@dataclass(slots=True)
class Response:
    """An answer; its body is whole, or comes in pieces."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes | AsyncIterator[bytes] = b""

    async def read(self) -> bytes:
        """The whole body."""
        if not isinstance(self.body, bytes):
            self.body = b"".join([chunk async for chunk in self.body])
        return self.body

    def header(self, name: str) -> str | None:
        """The first value of a header; `name` in lower case."""
        return first(self.headers, name)


Handler = Callable[[Request], Awaitable[Response]]


def first(headers: Iterable[tuple[str, str]], name: str) -> str | None:
    """The first value of a header; `name` in lower case."""
    return next((value for key, value in headers if key.lower() == name), None)


def without(headers: Iterable[tuple[str, str]], *names: str) -> Headers:
    """The headers that travel on: less those of the connection, less `names` (lower case)."""
    return [
        (key, value) for key, value in headers if key.lower() not in HOP_BY_HOP and key.lower() not in names
    ]


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
    """What a listener takes from its callers; None stands for "as much as comes"."""

    body: int | None = None  # bytes
    head: int | None = None  # bytes of the request line and the headers' values
    seconds: float | None = None  # in which a whole request has to come


UNLIMITED = Limits()


async def listen(
    handler: Handler,
    *,
    port: int = 0,
    limits: Limits = UNLIMITED,
    localhost: bool = False,
    browsers: bool = False,
) -> Listener:
    """Listen on a port of 127.0.0.1 (0: a free one), and of ::1 too where callers will say `localhost`.

    Only requests for this machine's own names are handled, so that a name which a stranger points to
    127.0.0.1 leads nowhere. `localhost` allows names under it too (S3's buckets). Without `browsers`,
    what a web page sends is refused; with it, the handler decides.

    Headers over their limit are answered 431, and a request that takes too long 408. A body over its limit is
    not read, and the handler answers (`Request.oversize`).

    Raises EnvironmentFault where the port is in use.
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
        with contextlib.suppress(OSError):  # a machine without IPv6, or a port that is taken there
            sockets.append(_bind(socket.AF_INET6, "::1", port))
    servers = [await loop.create_server(protocol, sock=one, backlog=1024) for one in sockets]
    return Listener(servers, state, port)


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    # asyncio switches Nagle's algorithm off only where it reads the protocol: 40 ms a request otherwise.
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
    """Which requests may come in, by their headers alone."""

    subdomains: bool
    browsers: bool
    port: int = 0

    def refuses(self, headers: Headers) -> Response | None:
        """The answer to a request that may not come in."""
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
    """An answer of the listener's own, after which the connection is closed."""
    headers = [("content-type", "application/json"), ("connection", "close")]
    headers += [("x-modelstacks-reason", reason)] if reason else []
    return Response(status, headers, json.dumps({"message": message}, separators=(",", ":")).encode())


class _Protocol(HttpToolsProtocol):
    """uvicorn's, with bounds on the head of a request and on the time that it may take to arrive."""

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
        """Answer and close, in the middle of a request."""
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
    """ASGI to Request and Response."""

    def __init__(self, handler: Handler, limits: Limits, door: _Door) -> None:
        self._handler, self._limit, self._door = handler, limits.body, door

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in scope["headers"]]
        if refused := self._door.refuses(headers):
            await self._send(scope["method"], refused, send)
            return
        try:
            body = await self._body(headers, receive)
        except ConnectionLost:
            return  # the caller went away while it sent its body: nobody is there to be answered
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


class Pool:
    """Keep-alive connections to targets on this machine."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], deque[_Connection]] = {}

    async def send(
        self,
        request: Request,
        port: int,
        *,
        host: str = "127.0.0.1",
        connect_timeout: float = 10,
        timeout: float = 60,  # noqa: ASYNC109  of the answer's head, not of the call
    ) -> Response:
        """Send a request; the answer's body comes in pieces (`Response.read` collects them).

        `host` is an address, or the path of a Unix socket, which has no port.

        Raises ConnectionLost where the target refuses or breaks off, TimeoutError where no headers come
        within `timeout` seconds. Nothing is ever sent twice.
        """
        connection = await self._connect(host, port, connect_timeout)
        try:
            name = "localhost" if host.startswith("/") else f"{host}:{port}"
            head = connection.send(request, name)
            status, headers = await asyncio.wait_for(head, timeout)
        except BaseException:
            connection.abort()
            raise
        return Response(status, headers, self._body(connection, host, port))

    async def _body(self, connection: _Connection, host: str, port: int) -> AsyncIterator[bytes]:
        try:
            while (chunk := await connection.chunk()) is not None:
                yield chunk
        except BaseException:
            connection.abort()
            raise
        finally:
            if connection.reusable:
                idle = self._idle.setdefault((host, port), deque())
                if len(idle) < IDLE_CONNECTIONS:
                    idle.append(connection)
                else:
                    connection.abort()
            else:
                connection.abort()

    async def _connect(self, host: str, port: int, patience: float) -> _Connection:
        idle = self._idle.get((host, port))
        while idle:
            connection = idle.pop()
            if connection.reusable:
                return connection
        loop = asyncio.get_running_loop()
        try:
            opening: Any = (
                loop.create_unix_connection(_Connection, host)
                if host.startswith("/")
                else loop.create_connection(_Connection, host, port)
            )
            opened: _Connection = (await asyncio.wait_for(opening, patience))[1]
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise ConnectionLost("connection refused") from error
        return opened

    def forget(self, port: int, host: str = "127.0.0.1") -> None:
        """Drop the idle connections to a target that is going away."""
        for connection in self._idle.pop((host, port), ()):
            connection.abort()

    def close(self) -> None:
        """Drop every idle connection."""
        for idle in self._idle.values():
            for connection in idle:
                connection.abort()
        self._idle.clear()


class _Connection(asyncio.Protocol):
    """One connection to a target; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._lost = False
        self._head: asyncio.Future[tuple[int, Headers]] | None = None
        self._reset("")

    def _reset(self, method: str) -> None:
        self._method = method
        self._parser: Any = httptools.HttpResponseParser(self)
        self._headers: Headers = []
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._waiter: asyncio.Future[None] | None = None
        self._done = method == ""
        self._keep_alive = True

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionLost(f"the answer is not HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's name
        if not self._done and self._head is not None and self._head.done() and not self._framed():
            self._done = True  # a body without a length ends with its connection
        self._lost = True
        if not self._done:
            self._fail(ConnectionLost("the connection was closed before the answer was whole"))
        self._wake()

    def _framed(self) -> bool:
        names = {key.lower() for key, _ in self._headers}
        return "content-length" in names or "transfer-encoding" in names

    # httptools' side

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            return
        self._keep_alive = self._parser.should_keep_alive()
        if self._head is not None and not self._head.done():
            self._head.set_result((status, self._headers))
        if self._method == "HEAD":
            self._done = True
            self._keep_alive = False  # the parser would wait for a body that never comes

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._held += len(body)
        if self._held > BUFFER and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if 100 <= self._parser.get_status_code() < 200:
            self._headers = []
            return
        self._done = True
        self._wake()

    # the pool's side

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent."""
        transport = self._transport
        return (
            self._done
            and self._keep_alive
            and not self._lost
            and transport is not None
            and not transport.is_closing()
        )

    def send(self, request: Request, host: str) -> asyncio.Future[tuple[int, Headers]]:
        """Write the request; the future is the answer's status and headers. `host` is for one without."""
        self._reset(request.method)
        self._head = asyncio.get_running_loop().create_future()
        lines = [f"{request.method} {request.target} HTTP/1.1"]
        if request.header("host") is None:  # HTTP/1.1 wants one, and servers refuse a request without it
            lines.append(f"host: {host}")
        lines += [f"{key}: {value}" for key, value in request.headers if key.lower() != "content-length"]
        if request.body or request.method in ("POST", "PUT", "PATCH"):
            lines.append(f"content-length: {len(request.body)}")
        assert self._transport is not None
        self._transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + request.body)
        if self._lost:
            self._fail(ConnectionLost("the connection was closed"))
        return self._head

    async def chunk(self) -> bytes | None:
        """The next piece of the body; None at its end."""
        while not self._chunks:
            if self._done:
                return None
            if self._lost:
                raise ConnectionLost("the connection was closed before the answer was whole")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        piece = b"".join(self._chunks)
        self._chunks.clear()
        self._held = 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        return piece

    def abort(self) -> None:
        """Close at once."""
        self._keep_alive = False
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: ConnectionLost) -> None:
        self._lost = True
        if self._head is not None and not self._head.done():
            self._head.set_exception(error)
        self._wake()
        if self._transport is not None:
            self._transport.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
