"""HTTP messages as the data plane passes them on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

__all__ = ["HOP_BY_HOP", "ConnectionLost", "Handler", "Headers", "Request", "Response", "first", "without"]

Headers = list[tuple[str, str]]

# Of one connection, not of the message that travels on it (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)


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
