"""A complete request, its id, and the parsed head that it shares with others."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from model_server import metrics
from model_server.problems import ProblemError

if TYPE_CHECKING:
    from model_server.http import Connection

OTHER = metrics.PATHS.index("other")
_PROBLEM = b"application/problem+json"


class RequestParts(NamedTuple):
    """A request as one worker passes it to another."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    id: bytes
    attributes: bytes | None
    keep_alive: bool
    http10: bool
    started: float
    body: bytes


class Request:
    """One complete request. Header names are lower case."""

    __slots__ = (
        "attributes",
        "body",
        "connection",
        "headers",
        "held",
        "http10",
        "id",
        "keep_alive",
        "known",
        "method",
        "path",
        "problem",
        "route",
        "started",
        "target",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.known: KnownHead | None = None
        self.method = b""
        self.target = b""  # as sent
        self.path = ""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.held = 0  # bytes of a large body that the server has counted
        self.id = b""
        self.route = OTHER
        self.started = 0.0
        self.keep_alive = True
        self.http10 = False
        self.problem: ProblemError | None = None  # found before the application saw it
        self.attributes: bytes | None = None  # the tunnel's own answer header

    @property
    def gone(self) -> bool:
        return self.connection.closed

    def parts(self) -> RequestParts:
        """What another worker needs to answer it."""
        identity = self.identify()
        return RequestParts(
            self.method,
            self.target,
            self.headers,
            identity,
            self.attributes,
            self.keep_alive,
            self.http10,
            self.started,
            bytes(self.body),
        )

    @classmethod
    def of(cls, connection: Connection, parts: RequestParts) -> Request:
        """The request that another worker has read."""
        request = cls(connection)
        for name, value in parts._asdict().items():
            setattr(request, name, value)
        return request

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    def respond(self, status: int, content_type: bytes, body: bytes, extra: bytes = b"") -> None:
        """`extra`: more header lines, each with its line end. The request is over."""
        self.connection.answer(self, status, content_type, body, extra)

    def refuse(self, problem: ProblemError) -> None:
        if problem.close:
            self.keep_alive = False
        extra = "".join(f"{name}: {value}\r\n" for name, value in problem.headers.items()).encode("latin-1")
        body = orjson.dumps(problem.to_json(self.identify().decode("latin-1")))
        self.respond(problem.status, _PROBLEM, body, extra)

    def identify(self) -> bytes:
        """The request id: the caller's X-Request-Id, its trace's root, or a new one."""
        if not self.id:
            self.id = given_id(self.headers) or new_id()
        return self.id


def new_id() -> bytes:
    return b"%b%08x" % (_PROCESS, next(_numbers))


_PROCESS = os.urandom(6).hex().encode()
_numbers = count(1)


def renew_process() -> None:
    """After a fork: a worker's request ids are its own."""
    global _PROCESS
    _PROCESS = os.urandom(6).hex().encode()


def given_id(headers: dict[bytes, bytes]) -> bytes:
    given = headers.get(b"x-request-id", b"")
    if given and valid_id(given):
        return given
    root = _ROOT.search(headers.get(b"x-amzn-trace-id", b""))
    return root[1] if root is not None else b""


# An id goes into headers and logs: printable, at most 128 characters, and nothing that ends a value.
_ID = rb'[^\x00-\x20\x7f-\xff;,"\\]{1,128}'
_ROOT = re.compile(rb"(?:^|; *)Root=(" + _ID + rb")(?:$| *;)")
valid_id = re.compile(_ID).fullmatch


class KnownHead:
    """A parsed request head with its handler, cached by its exact bytes.

    All requests that repeat the head share its headers; each has its own `Request.id`.
    """

    __slots__ = ("handler", "headers", "length", "method", "negotiated", "route", "target")

    def __init__(self, method: bytes, target: bytes, headers: dict[bytes, bytes], length: int) -> None:
        self.method, self.target, self.headers, self.length = method, target, headers, length
        self.handler: Callable[[Request], None] | None = None
        self.route = OTHER
        self.negotiated: Any = None  # the handler's own


# The one line in which the heads of a load balancer's requests differ. A line of plain text, if no other line
# continues it, means the same in any position.
IDENTITY = re.compile(
    rb"\r\n([Xx]-(?:[Aa]mzn-[Tt]race-[Ii]d|[Rr]equest-[Ii]d)): ([\x21-\x7e]{1,256})(?=\r\n[^ \t])"
)
IDENTITIES = frozenset((b"x-amzn-trace-id", b"x-request-id"))
# Heads with these headers are never cached: they mean more than one request and its body.
UNLIKE = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"connection"))
MAX_KNOWN_HEADS = 256
MAX_KNOWN_HEAD = 2048
