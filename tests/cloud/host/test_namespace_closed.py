"""A replica that dies while the daemon waits for its sockets does not leave the daemon waiting."""

from __future__ import annotations

import asyncio
import socket

import pytest

from modelstacks.cloud.host.namespace import Namespace
from modelstacks.cloud.host.wire import ConnectionLost


def test_a_caller_that_waits_for_a_socket_is_told_when_the_namespace_is_closed() -> None:
    async def main() -> None:
        # The launcher's end stays open, as a helper of it that outlives the program keeps it.
        ours, theirs = socket.socketpair()
        with theirs:
            namespace = Namespace(ours, ())
            waiting = asyncio.create_task(namespace.connect(8080))
            await asyncio.sleep(0.05)
            namespace.close()
            with pytest.raises(ConnectionLost):
                await asyncio.wait_for(waiting, 30)

    asyncio.run(main())
