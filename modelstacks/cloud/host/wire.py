"""HTTP messages as the data plane forwards them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

__all__ = ["HOP_BY_HOP", "ConnectionLost", "Handler", "Headers", "Request", "Response", "first", "without"]

Headers = list[tuple[str, str]]

# Headers of one connection, which are not forwarded with the message (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)


class ConnectionLost(Exception):
    """The other side refused the connection, or closed it before its response was complete."""


@dataclass(slots=True)
class Request:
    """A request with its whole body. `path` and `query` are percent-encoded, as sent."""

    method: str
    path: str
    query: str = ""
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    client: str = "127.0.0.1"
    # The body is over the listener's limit and was not read.
    oversize: bool = False

    @property
    def target(self) -> str:
        """Path and query, as in the request line."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def header(self, name: str) -> str | None:
        """The first value of a header; `name` in lower case."""
        return first(self.headers, name)


@dataclass(slots=True)
class Response:
    """A response, whose body is complete or a stream of chunks."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes | AsyncIterator[bytes] = b""

    async def read(self) -> bytes:
        """Read the whole body."""
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
    """The headers to forward: all but those of the connection and `names` (lower case)."""
    return [
        (key, value) for key, value in headers if key.lower() not in HOP_BY_HOP and key.lower() not in names
    ]
