"""The daemon's access to a replica's own network namespace.

Nothing else on this machine can reach the replica's ports, including a web page in the user's browser. The
sandbox's launcher creates sockets inside the namespace and passes them to the daemon. Some are listeners at
the address of the replica's AWS endpoint; the others are for connections to the replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from modelstacks.cloud.host.wire import ConnectionLost

__all__ = ["Namespace"]

CHUNK = 1 << 16


class Namespace:
    """The daemon's end of the channel over which the launcher passes sockets."""

    def __init__(self, channel: socket.socket, ports: Sequence[int]) -> None:
        """`ports` are the ports of the daemon's listeners that the replica may reach."""
        channel.setblocking(False)
        self._channel, self._ports = channel, tuple(ports)
        self._turn = asyncio.Lock()
        self._spare: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._relayed: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Event] = set()

    async def open(self) -> None:
        """Receive the listeners, and relay their connections to the daemon's. Raises ConnectionLost."""
        for port in self._ports:
            listener = await self._receive()
            self._servers.append(await asyncio.start_server(self._relay(port), sock=listener))

    async def connect(self, port: int) -> socket.socket:
        """Connect to a port of the replica. Raises ConnectionLost, OSError."""
        connection = self._spare.pop() if self._spare else await self._fresh()
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close every socket; the launcher's helper process ends with the channel."""
        for server in self._servers:
            server.close()
        for task in self._relayed:
            task.cancel()
        if self._waiting:
            asyncio.get_running_loop().remove_reader(self._channel)
        # Closing a descriptor wakes nobody who waits for it: a caller that waits for a socket must be told.
        for waiting in self._waiting:
            waiting.set()
        for one in (*self._spare, self._channel):
            one.close()
        self._spare.clear()

    async def _fresh(self) -> socket.socket:
        """Request a socket; if the caller is cancelled, the socket is kept for the next one."""
        asked = asyncio.ensure_future(self._ask())
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(self._keep)
            raise

    def _keep(self, asked: asyncio.Future[socket.socket]) -> None:
        if not asked.cancelled() and asked.exception() is None:
            self._spare.append(asked.result())

    async def _ask(self) -> socket.socket:
        async with self._turn:
            try:
                await asyncio.get_running_loop().sock_sendall(self._channel, b"?")
            except OSError as error:
                raise ConnectionLost("connection refused") from error
            return await self._receive()

    async def _receive(self) -> socket.socket:
        """Wait for the next socket that the launcher passes."""
        while True:
            try:
                _, found, _, _ = socket.recv_fds(self._channel, 1, 1)
            except BlockingIOError:
                await self._readable()
                continue
            except OSError as error:
                raise ConnectionLost("connection refused") from error
            if not found:
                raise ConnectionLost("connection refused")
            passed = socket.socket(fileno=found[0])
            passed.setblocking(False)
            return passed

    async def _readable(self) -> None:
        readable = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel, readable.set)
        self._waiting.add(readable)
        try:
            await readable.wait()
        finally:
            self._waiting.discard(readable)
            if self._channel.fileno() >= 0:
                loop.remove_reader(self._channel)

    def _relay(
        self, port: int
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._relayed.add(task)
            try:
                with contextlib.suppress(OSError):
                    there, back = await asyncio.open_connection("127.0.0.1", port)
                    await asyncio.gather(_pour(reader, back), _pour(there, writer))
            finally:
                writer.close()
                self._relayed.discard(task)

        return relay


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy bytes from source to sink until the end, then close the sink."""
    with contextlib.suppress(OSError):
        while chunk := await source.read(CHUNK):
            sink.write(chunk)
            await sink.drain()
    with contextlib.suppress(OSError, RuntimeError):
        sink.close()
