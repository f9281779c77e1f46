"""An HTTP client with a pool of keep-alive connections to targets on this machine.

Each connection carries one request at a time. The client is a small class over httptools, because every
request passes several hops.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httptools

from modelstacks.cloud.host.wire import ConnectionLost, Headers, Request, Response

__all__ = ["Pool"]

# Bytes of a streamed body that are buffered before reading pauses.
BUFFER = 1 << 20
# Idle connections that are kept for each target.
IDLE_CONNECTIONS = 64


class Pool:
    """Keep-alive connections to targets on this machine."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], deque[_Connection]] = {}
        self._ways: dict[int, Callable[[int], Awaitable[socket.socket]]] = {}

    async def send(
        self,
        request: Request,
        port: int,
        *,
        host: str = "127.0.0.1",
        connect_timeout: float = 10,
        timeout: float = 60,  # noqa: ASYNC109
    ) -> Response:
        """Send a request and return the response, whose body is a stream (`Response.read` collects it).

        `host` is an address, or the path of a Unix socket, which has no port. `timeout` limits the time until
        the response's headers arrive, not the whole call.

        Raises ConnectionLost if the target refuses or closes the connection, TimeoutError if no headers
        arrive within `timeout` seconds. A request is never sent twice.
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
                else self._through(self._ways[port], port)
                if port in self._ways
                else loop.create_connection(_Connection, host, port)
            )
            opened: _Connection = (await asyncio.wait_for(opening, patience))[1]
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise ConnectionLost("connection refused") from error
        return opened

    async def _through(
        self, way: Callable[[int], Awaitable[socket.socket]], port: int
    ) -> tuple[Any, _Connection]:
        connected = await way(port)
        return await asyncio.get_running_loop().create_connection(_Connection, sock=connected)

    def reach(self, port: int, way: Callable[[int], Awaitable[socket.socket]]) -> None:
        """Connect to a target through `way`, until `forget` is called for its port."""
        self._ways[port] = way

    def forget(self, port: int, host: str = "127.0.0.1") -> None:
        """Close the idle connections to a target that is being removed."""
        self._ways.pop(port, None)
        for connection in self._idle.pop((host, port), ()):
            connection.abort()

    def close(self) -> None:
        """Close every idle connection."""
        for idle in self._idle.values():
            for connection in idle:
                connection.abort()
        self._idle.clear()


class _Connection(asyncio.Protocol):
    """A connection to a target, for one request at a time."""

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

    # --- called by asyncio

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
            # A body without a length ends with its connection.
            self._done = True
        self._lost = True
        if not self._done:
            self._fail(ConnectionLost("the connection was closed before the answer was whole"))
        self._wake()

    def _framed(self) -> bool:
        names = {key.lower() for key, _ in self._headers}
        return "content-length" in names or "transfer-encoding" in names

    # --- called by httptools

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
            # The parser would wait for a body that never arrives.
            self._keep_alive = False

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

    # --- called by the pool

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
        """Write the request and return a future of the response's status and headers.

        `host` is the Host header of a request that has none: HTTP/1.1 requires one.
        """
        self._reset(request.method)
        self._head = asyncio.get_running_loop().create_future()
        lines = [f"{request.method} {request.target} HTTP/1.1"]
        if request.header("host") is None:
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
        """The next chunk of the body, or None at its end."""
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
        """Close the connection immediately."""
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
