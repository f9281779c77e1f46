"""HTTP/1.1 on uvloop and llhttp: connections, limits, requests one after another, answers in their order.

A plain asyncio.Protocol and no framework: this is the hot path, where a microsecond is a tenth of a request.
The application decides what a request means; this module turns bytes into requests and answers into bytes.
It is longer than others because the life of a connection is one state machine.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from math import inf
from socket import SO_LINGER, SOL_SOCKET, socket
from struct import pack
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

import httptools

from model_server import metrics
from model_server.problems import ProblemError, too_large
from model_server.request import (
    IDENTITIES,
    IDENTITY,
    MAX_KNOWN_HEAD,
    MAX_KNOWN_HEADS,
    UNLIKE,
    KnownHead,
    Request,
    RequestParts,
    given_id,
    new_id,
)
from model_server.settings import Settings

if TYPE_CHECKING:
    from model_server.streams import Stream

MAX_HEADER_BYTES = 65_536
MAX_URL_BYTES = 8_192
LARGE_BODY = 65_536  # smaller ones are bounded by their number
MAX_HELD_BODIES = 16  # of the largest size allowed, or as many bytes of smaller ones
MAX_PIPELINED = 32  # requests of one connection that wait for an earlier answer before reading pauses
LINGER_SECONDS = 2.0

_STATUS_LINES = {
    status: f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode() for status in metrics.STATUSES
}
MAX_STARTS = 256  # answers' first lines that are kept
_RESET = pack("ii", 1, 0)  # SO_LINGER: whatever is unsent is dropped, and the client sees a reset


class Application(Protocol):
    """Answers requests: each by one call of `request.respond`, now or later."""

    def __call__(self, request: Request) -> None: ...


class Server:
    """What a worker's connections share: limits, counters, the clock, draining."""

    def __init__(self, application: Application, settings: Settings, counters: metrics.WorkerMetrics) -> None:
        self.application = application
        self.settings = settings
        self.counters = counters
        self.values = counters.values
        self.connections: set[Connection] = set()
        self.in_flight = 0
        self.held = 0  # bytes of large bodies, whole or still arriving
        self.max_held = MAX_HELD_BODIES * settings.max_body_bytes
        self.streams: set[Stream] = set()  # answers that are being sent in chunks
        self.max_answer = settings.max_answer_bytes or inf
        self.draining = False  # /ping answers 503; everything else is still answered
        self.closing = False  # each connection's next answer is its last
        self.last_request = 0.0
        self.heads: dict[bytes, KnownHead] = {}
        self.starts: dict[tuple[int, bytes], bytes] = {}  # answers' first lines, of this second
        self.tick()

    def tick(self) -> None:
        """Renews the Date header and closes silent connections; called once a second."""
        self.now = time()
        self.starts.clear()
        for connection in list(self.connections):
            if connection.deadline < self.now:
                connection.expire()

    def start(self, status: int, content_type: bytes) -> bytes:
        """An answer's first lines, up to its request's id."""
        date = formatdate(self.now, usegmt=True).encode()
        start = b"%bcontent-type: %b\r\ndate: %b\r\nx-request-id: " % (
            _STATUS_LINES[status],
            content_type,
            date,
        )
        if len(self.starts) < MAX_STARTS:  # a script may name any number of content types
            self.starts[status, content_type] = start
        return start

    def __call__(self, given: RequestParts | None = None) -> Connection:
        return Connection(self, given)


class Connection(asyncio.Protocol):
    """One client. Its requests are answered one at a time and in order; later ones wait here."""

    __slots__ = (
        "_answering",
        "_body",
        "_current",
        "_failed",
        "_given",
        "_head",
        "_header_bytes",
        "_in_head",
        "_packet_body",
        "_packet_tail",
        "_parser",
        "_paused",
        "_reading",
        "_received",
        "_silent",
        "_stream",
        "_transport",
        "_waiting",
        "closed",
        "deadline",
        "server",
    )

    def __init__(self, server: Server, given: RequestParts | None = None) -> None:
        """`given`: the request that another worker has read on this connection."""
        self.server = server
        self.closed = False
        self._given: RequestParts | float | None = given  # once it is admitted: when it began
        self.deadline = server.now + server.settings.keep_alive_seconds
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._current: Request | None = None  # being answered
        self._reading: Request | None = None  # being received
        self._body: list[bytes] = []
        self._received = 0
        self._header_bytes = 0
        self._in_head = False
        self._silent = 0  # bytes in which the parser has found nothing yet
        self._head = b""  # of the request that a packet began with
        self._packet_tail = self._packet_body = 0  # bytes of the last packet after its head; those of bodies
        self._waiting: deque[Request] = deque()
        self._answering = False
        self._failed = False  # nothing more is read: what follows is not a request
        self._paused = False  # the client does not read its answers
        self._stream: Stream | None = None  # the current answer, where it is sent in chunks

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.server.connections.add(self)
        self.server.values[metrics.CONNECTIONS] += 1
        if isinstance(self._given, RequestParts):
            request = Request.of(self, self._given)
            self._given = request.started
            self._admit_whole(request)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed = True
        server = self.server
        server.connections.discard(self)
        server.values[metrics.CONNECTIONS] -= 1
        dropped = [*self._waiting] if self._current is None else [self._current, *self._waiting]
        server.in_flight -= len(dropped)
        for request in dropped if self._reading is None else [*dropped, self._reading]:
            self._let_go(request)
        if self._stream is not None:
            self._stream.lost()
            self._stream = None
        # The parser and this object refer to each other: only the garbage collector would free them.
        self._waiting.clear()
        self._body.clear()
        self._current = self._reading = self._parser = None

    def data_received(self, data: bytes) -> None:
        if self._failed:
            return
        if self._reading is None:
            end = data.find(b"\r\n\r\n") + 4
            head = data[:end]
            identity = IDENTITY.search(head)
            if identity is not None:  # it is left out of the look-up
                head = head[: identity.start()] + head[identity.end() :]
            known = self.server.heads.get(head)
            if known is not None and len(data) - end == known.length:
                self._repeat(known, identity, data[end:])
                return
            self._head = head
            self._packet_tail = len(data) - end
        else:
            self._head = b""
            self._packet_tail = -1 if self._in_head else len(data)
        self._packet_body = 0
        self._silent += len(data)
        rest = memoryview(data)
        while rest:
            try:
                self._parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # An answer in HTTP/1.1 declines the upgrade: what follows are requests as before.
                self._parser = httptools.HttpRequestParser(self)
                rest = rest[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                if not self._failed:
                    reason = str(error) or type(error).__name__
                    self._break(ProblemError(400, f"the request is not HTTP/1.1: {reason}", close=True))
                break
        if self._silent > MAX_HEADER_BYTES and self._reading is not None:
            self._break(_header_too_long())

    def eof_received(self) -> bool:
        if self._reading is not None and not self._failed:
            self._break(ProblemError(400, "the request ended before all of it was sent", close=True))
            return True
        return False

    def pause_writing(self) -> None:
        self._paused = True
        self._transport.pause_reading()
        if self._stream is not None:
            self._stream.pause()
            self.deadline = self.server.now + self.server.settings.keep_alive_seconds

    def resume_writing(self) -> None:
        self._paused = False
        if self._stream is not None:
            self._stream.resume()
        self._go_on()

    def expire(self) -> None:
        """Ends a connection whose deadline has passed: no request, or no complete one, arrived."""
        if self._reading is not None and not self._failed:
            limit = self.server.settings.read_timeout_seconds
            self._break(ProblemError(408, f"the request did not arrive within {limit:g} s", close=True))
        elif (self._stream is not None and self._paused) or self._transport.is_closing():
            self._transport.abort()  # its client has read nothing for all that time
        elif self._current is None:
            self._transport.abort() if self._paused or self._failed else self._transport.close()

    @property
    def busy(self) -> bool:
        """Whether a request is under way, to its answer's last byte."""
        return bool(self._current or self._reading or self._waiting or self.unsent)

    @property
    def unsent(self) -> bool:
        """Whether a part of an answer is not sent yet."""
        return bool(self._transport.get_write_buffer_size())

    def close_if_idle(self) -> None:
        if not self.busy and not self._failed:
            self._transport.close()

    # From the parser

    def on_message_begin(self) -> None:
        if self._failed:  # behind a request that broke, in the same packet
            return
        self._reading = Request(self)
        self._received = self._header_bytes = self._silent = 0
        self._in_head = True
        server = self.server
        self.deadline = server.now + server.settings.read_timeout_seconds

    def on_url(self, url: bytes) -> None:
        self._silent = 0
        if self._reading is not None:
            self._reading.target += url
            if len(self._reading.target) > MAX_URL_BYTES:
                self._break(ProblemError(414, f"the URL is longer than {MAX_URL_BYTES} bytes", close=True))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._silent = 0
        if self._reading is not None:
            if self._in_head:  # a trailer counts as header bytes and is otherwise ignored
                key = name.lower()
                if key == b"host" and key in self._reading.headers:
                    self._break(ProblemError(400, "the request has two Host headers", close=True))
                    return
                self._reading.headers[key] = value
            self._header_bytes += len(name) + len(value) + 4
            if self._header_bytes > MAX_HEADER_BYTES:
                self._break(_header_too_long())

    def on_headers_complete(self) -> None:
        request = self._reading
        if request is None:
            return
        self._in_head = False
        self._silent = 0
        length = int(request.headers.get(b"content-length", 0))
        if length > self.server.settings.max_body_bytes:
            self._too_large()
        elif b"host" not in request.headers and self._parser.get_http_version() == "1.1":
            self._break(ProblemError(400, "an HTTP/1.1 request needs a Host header", close=True))
        elif length >= LARGE_BODY and not self._hold(request, length):
            return
        elif b"expect" in request.headers:
            if request.headers[b"expect"].lower() != b"100-continue":
                self._break(ProblemError(417, "Expect allows only 100-continue", close=True))
            elif self._current is None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        request = self._reading
        if request is None:
            return
        self._silent = 0
        self._packet_body += len(body)
        self._received += len(body)
        if self._received > self.server.settings.max_body_bytes:
            self._too_large()
        elif self._received > request.held + LARGE_BODY and not self._hold(request, self._received):
            return  # a chunked body, which does not say its size
        elif request.body:
            self._body.append(body)
        else:
            request.body = body

    def on_message_complete(self) -> None:
        request = self._reading
        if request is None:
            return
        self._reading = None
        if self._body:
            request.body = b"".join((request.body, *self._body))
            self._body.clear()
        parser = self._parser
        request.method = parser.get_method()
        request.keep_alive = parser.should_keep_alive()
        version = parser.get_http_version()
        if version != "1.1":
            request.http10 = True
            if version != "1.0":
                self._reading = request
                self._break(ProblemError(400, f"HTTP/{version} is not HTTP/1.1", close=True))
                return
        request.started = perf_counter()
        if self._head:
            self._remember(request)
        self._admit(request)

    def _remember(self, request: Request) -> None:
        """Caches a parsed head by its exact bytes without its id, for later requests with the same head."""
        head, self._head = self._head, b""
        heads = self.server.heads
        headers = {name: value for name, value in request.headers.items() if name not in IDENTITIES}
        if len(head) > MAX_KNOWN_HEAD or request.http10 or not UNLIKE.isdisjoint(headers):
            return
        if not request.keep_alive or b"content-length" not in headers:
            return
        # The packet may have begun with something else, or the head may end elsewhere.
        plain = head.startswith(b"%b %b HTTP/1.1\r\n" % (request.method, request.target))
        if not plain or not head.count(b"\n") == head.count(b"\r\n") == len(headers) + 2:
            return
        if len(heads) >= MAX_KNOWN_HEADS:
            heads.clear()
        heads[head] = KnownHead(request.method, request.target, headers, len(request.body))

    def _repeat(self, known: KnownHead, identity: re.Match[bytes] | None, body: bytes) -> None:
        request = Request(self)
        request.known = known
        request.method = known.method
        request.target = known.target
        request.headers = known.headers
        request.id = (identity and given_id({identity[1].lower(): identity[2]})) or new_id()
        request.body = body
        request.started = perf_counter()
        if known.length >= LARGE_BODY:
            self._admit_whole(request)
        else:
            self._admit(request)

    def _admit_whole(self, request: Request) -> None:
        """Admits a request that was not received piece by piece: its body is not counted yet."""
        if len(request.body) >= LARGE_BODY:
            self._reading = request
            if not self._hold(request, len(request.body)):
                return
            self._reading = None
        self._admit(request)

    # Large bodies

    def _hold(self, request: Request, size: int) -> bool:
        """Counts a body against what all connections together may hold; False where that is exceeded."""
        server = self.server
        if server.held + size - request.held > server.max_held:
            server.values[metrics.REJECTED] += 1
            detail = f"the server holds {server.held} bytes of other requests' bodies; try again"
            self._break(ProblemError(429, detail, headers={"retry-after": "1"}, close=True))
            return False
        server.held += size - request.held
        request.held = size
        return True

    def _let_go(self, request: Request) -> None:
        self.server.held -= request.held
        request.held = 0

    # Requests

    def _admit(self, request: Request) -> None:
        server = self.server
        server.last_request = request.started
        server.in_flight += 1
        if self._current is not None or self._answering or self._paused:
            self._waiting.append(request)
            if len(self._waiting) >= MAX_PIPELINED:
                self._transport.pause_reading()
            return
        self._start(request)

    def _start(self, request: Request) -> None:
        self._current = request
        if request.problem is not None:
            request.refuse(request.problem)
        else:
            self.server.application(request)

    def _go_on(self) -> None:
        """Starts the next requests; a loop and not a recursion, since most answers come at once."""
        if self._answering:
            return
        self._answering = True
        while self._waiting and self._current is None and not self._paused and not self.closed:
            self._start(self._waiting.popleft())
        self._answering = False
        if not self._waiting and not self._paused and not self.closed:
            self._transport.resume_reading()

    def hand_over(self, request: Request, send: Callable[[socket, RequestParts], bool]) -> bool:
        """Gives the connection to another worker, with the request that is its only one.

        False where more is under way on it, where the request was given to this worker, or where `send`
        fails; then nothing has changed.
        """
        server = self.server
        follows = request.known is None and self._packet_tail != self._packet_body
        if (
            request is not self._current
            or request.started == self._given
            or follows
            or self._waiting
            or self._reading is not None
            or self._failed
            or self._paused
            or self.closed
            or server.draining
            or self.unsent
        ):
            return False
        try:
            client = self._transport.get_extra_info("socket").dup()
        except OSError:  # no descriptor is left
            return False
        try:
            if not send(client, request.parts()):
                return False
        finally:
            client.close()
        self._current = None
        self._failed = True
        server.in_flight -= 1
        self._let_go(request)
        # Closes this worker's descriptor and sends nothing: the other worker has its own.
        self._transport.abort()
        return True

    def answer(self, request: Request, status: int, content_type: bytes, body: bytes, extra: bytes) -> None:
        if request is not self._current:
            return  # the client is gone
        server = self.server
        server.in_flight -= 1
        if request.held:
            self._let_go(request)
        # While the server drains, a connection closes after the last request that was already received.
        keep_alive = request.keep_alive and not (server.closing and not self._waiting)
        parts = [
            server.starts.get((status, content_type)) or server.start(status, content_type),
            request.id or request.identify(),
            b"\r\ncontent-length: %d\r\n" % len(body),
        ]
        if request.attributes is not None:
            parts.append(_tunnel_header(request, extra))
        if extra:
            parts.append(extra)
        if not keep_alive:
            parts.append(b"connection: close\r\n")
        elif request.http10:
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        if request.method != b"HEAD":
            parts.append(body)
        self._current = None
        self.deadline = server.now + server.settings.keep_alive_seconds
        seconds = perf_counter() - request.started
        self._transport.write(b"".join(parts))
        server.counters.request(request.route, status, seconds)  # the client need not wait for this
        if not keep_alive:
            self._forget_waiting()
            if request.problem is None:
                self._transport.close()
            else:
                # The client may still be sending. Closing now would reset the connection and lose the
                # answer: the rest is read and discarded for a moment.
                self._transport.write_eof()
                self._transport.resume_reading()
                self.deadline = server.now + LINGER_SECONDS
        elif self._waiting:
            self._go_on()

    def _forget_waiting(self) -> None:
        """No answer follows on this connection: what arrived behind the last request is dropped."""
        self._failed = True
        for dropped in self._waiting:
            self._let_go(dropped)
        self.server.in_flight -= len(self._waiting)
        self._waiting.clear()

    # Answers in chunks, from streams.Stream

    def attach(self, request: Request, stream: Stream) -> bool:
        """The stream is the answer to the current request; False where its client is gone."""
        if request is not self._current:
            return False
        self._stream = stream
        return True

    def detach(self, stream: Stream) -> None:
        """The stream has ended."""
        if self._stream is stream:
            self._stream = None

    def begin(self, request: Request, content_type: bytes) -> None:
        """Writes the head. A body on HTTP/1.0 has no chunks: it ends with the connection."""
        if request is not self._current:
            return
        server = self.server
        if request.http10 or (server.closing and not self._waiting):
            request.keep_alive = False
        parts = [server.start(200, content_type), request.identify(), b"\r\n"]
        if not request.http10:
            parts.append(b"transfer-encoding: chunked\r\n")
        if request.attributes is not None:
            parts.append(_tunnel_header(request, b""))
        if not request.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        self._transport.write(b"".join(parts))

    def write_chunk(self, request: Request, data: bytes) -> bool:
        """False where the client is gone."""
        if request is not self._current or self._transport.is_closing():
            return False
        self._transport.write(data if request.http10 else b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def finish(self, request: Request) -> None:
        """Ends a complete body; the next request is answered."""
        if request is not self._current:
            return
        if not request.http10:
            self._transport.write(b"0\r\n\r\n")
        self._end_stream(request)
        self.deadline = self.server.now + self.server.settings.keep_alive_seconds
        if request.keep_alive:
            self._go_on()
        else:
            self._forget_waiting()
            self._transport.close()

    def truncate(self, request: Request) -> None:
        """Ends a body that is not complete, so that no client takes it for a complete one."""
        if request is not self._current:
            return
        self._end_stream(request)
        self._forget_waiting()
        self.deadline = self.server.now + LINGER_SECONDS
        if request.http10:  # nothing but a reset differs from the body's end
            self._transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
            self._transport.abort()
        else:
            self._transport.close()

    def _end_stream(self, request: Request) -> None:
        server = self.server
        server.in_flight -= 1
        self._let_go(request)
        self._current = self._stream = None
        server.counters.request(request.route, 200, perf_counter() - request.started)

    def _too_large(self) -> None:
        problem = too_large(self.server.settings.max_body_bytes)
        problem.close = True
        self._break(problem)

    def _break(self, problem: ProblemError) -> None:
        """Answers a request that was not read completely, in its turn, and closes."""
        request = self._reading or Request(self)
        self._reading = None
        self._failed = True
        self._body.clear()
        self._let_go(request)
        request.body = b""
        request.keep_alive = False
        request.problem = problem
        request.path = unquote(request.target.partition(b"?")[0].decode("latin-1"))
        request.started = perf_counter()
        self._admit(request)


def _header_too_long() -> ProblemError:
    return ProblemError(431, f"the header is longer than {MAX_HEADER_BYTES} bytes", close=True)


def _tunnel_header(request: Request, extra: bytes) -> bytes:
    """The header that carries attributes back through SageMaker, which forwards no other header."""
    attributes = b"request-id=" + request.id
    for line in extra.split(b"\r\n"):
        if line.startswith(b"inference-header-content-length: "):
            attributes += b";" + line.replace(b": ", b"=")
    return b"x-amzn-sagemaker-custom-attributes: %b\r\n" % attributes
