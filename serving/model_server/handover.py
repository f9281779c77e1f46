"""A request that would wait here goes, with its connection, to a worker that begins with it sooner.

The kernel gives a connection to one worker, and a load balancer sends its next request over whichever
connection was free last. Without this, one worker refuses requests while another is idle. Connections are
passed on as file descriptors over Unix sockets that were made before the workers were forked. The request
goes with its connection, read and unanswered, so that the caller sees no difference. It is done only where a
call takes long enough to be worth it; the short calls that run on the event loop never wait.
"""

from __future__ import annotations

import array
import logging
import marshal
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from model_server import metrics
from model_server.logs import event
from model_server.request import Request, RequestParts

# Passing a connection on costs two workers a fraction of a millisecond together.
WORTH_SECONDS = 0.01
# A worker that has not shown a sign of life for so long is given nothing.
FRESH_SECONDS = 1.0
# Larger bodies go through a file in memory: a message has to fit in the socket's buffer.
BODY_IN_MESSAGE = 32_768
MESSAGE = 196_608
_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Siblings(Protocol):
    """The other workers of a replica."""

    def take(self, request: Request, wait: float, cost: float, now: float) -> bool:
        """Whether one of them has taken a request that would wait for so many seconds here.

        Args:
            wait: seconds until this worker would begin with it.
            cost: seconds of the call for it, as far as they are known.
            now: by the clock that all of them share.
        """


class Mailboxes:
    """A pair of sockets for each worker, made before the workers are forked."""

    def __init__(self, workers: int) -> None:
        self._pairs = [_pair() for _ in range(workers)]

    def of(self, slot: int) -> Mailbox:
        """What the worker in a slot reads from and writes to."""
        senders = {other: pair[1] for other, pair in enumerate(self._pairs) if other != slot}
        return Mailbox(self._pairs[slot][0], senders)


class Mailbox:
    """One worker's end: what siblings have sent, and the way to them."""

    def __init__(self, inbox: socket.socket, senders: dict[int, socket.socket]) -> None:
        self._inbox, self._senders = inbox, senders

    def fileno(self) -> int:
        """Readable when something was sent."""
        return self._inbox.fileno()

    def send(self, slot: int, client: socket.socket, parts: RequestParts) -> bool:
        """False: it could not be sent, and still is this worker's matter."""
        head, body = parts[:-1], bytes(parts.body)
        descriptors = [client.fileno()]
        file = -1
        try:
            if len(body) > BODY_IN_MESSAGE:
                file = _file(body)
                descriptors.append(file)
            message = marshal.dumps((*head, body if file < 0 else None))
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            return self._senders[slot].sendmsg([message], ancillary) == len(message)
        except OSError:  # its mailbox is full, or no descriptor or memory is left
            return False
        finally:
            if file >= 0:
                os.close(file)

    def receive(self) -> Iterator[tuple[socket.socket, RequestParts]]:
        """What has been sent since the last time."""
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._inbox, MESSAGE, 2, _FLAGS)
            except OSError:  # nothing more, for now
                return
            if not message:
                return
            # From a process that was forked from the same one as this.
            *head, body = marshal.loads(message)  # noqa: S302
            parts = RequestParts._make((*head, body or b""))
            if len(descriptors) < (2 if body is None else 1):
                for descriptor in descriptors:
                    os.close(descriptor)
                identity = parts.id.decode("latin-1")
                event(logging.ERROR, "a request is lost: no file descriptor is left", request_id=identity)
                continue
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            client = socket.socket(fileno=descriptors[0])
            if len(descriptors) > 1:
                with os.fdopen(descriptors[1], "rb") as file:
                    file.seek(0)
                    parts = parts._replace(body=file.read())
            yield client, parts


class Neighbours:
    """The siblings, chosen by what they say of themselves in shared memory."""

    def __init__(self, slot: int, counters: metrics.WorkerMetrics, mailbox: Mailbox) -> None:
        self._values, self._mailbox = counters.values, mailbox
        shared = counters.shared
        self._others = [
            (other, shared.worker(other).values) for other in range(shared.workers) if other != slot
        ]

    def take(self, request: Request, wait: float, cost: float, now: float) -> bool:
        """See Siblings. The chosen one is noted to be busy at once, so that others choose another."""
        soonest, chosen = wait - WORTH_SECONDS, None
        fresh = int((now - FRESH_SECONDS) * metrics.NANOSECONDS)
        for other, values in self._others:
            free_at = values[metrics.FREE_AT]
            if free_at and values[metrics.BEAT] > fresh:
                its = max(0.0, free_at / metrics.NANOSECONDS - now)
                if its < soonest:
                    soonest, chosen = its, (other, values)
        if chosen is None:
            return False
        other, values = chosen
        # Before it is sent, so that what the other worker says afterwards is what counts.
        before = values[metrics.FREE_AT]
        values[metrics.FREE_AT] = int((now + soonest + cost) * metrics.NANOSECONDS)
        if not request.connection.hand_over(request, lambda *sent: self._mailbox.send(other, *sent)):
            values[metrics.FREE_AT] = before
            return False
        self._values[metrics.HANDED_OVER] += 1
        return True


def _pair() -> tuple[socket.socket, socket.socket]:
    """Messages stay whole in these. macOS has no SOCK_SEQPACKET for Unix sockets."""
    kinds: Sequence[socket.SocketKind] = (socket.SOCK_SEQPACKET, socket.SOCK_DGRAM)
    for kind in kinds:
        with suppress(OSError):
            pair = socket.socketpair(socket.AF_UNIX, kind)
            for end in pair:
                end.setblocking(False)
            return pair
    raise OSError("this system has no Unix sockets that keep messages whole")


def _file(body: bytes | memoryview) -> int:
    """A file without a name that holds a body."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("body", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    view = memoryview(body)
    try:
        while view:
            view = view[os.write(file, view) :]
    except BaseException:
        os.close(file)
        raise
    return file
