"""Content-Encoding of requests: gzip is taken off, with bounds; everything else is refused."""

from __future__ import annotations

import zlib

from model_server.problems import ProblemError, malformed, too_large
from model_server.request import Request

HEADER = b"content-encoding"
GZIP = (b"gzip", b"x-gzip")
MAGIC = b"\x1f\x8b"
CHUNK = 65_536
MAX_MEMBERS = 1_000  # gzip streams in a row; each costs time, and an empty one holds nothing


def is_encoded(request: Request) -> bool:
    """Whether the body has to be decoded. ProblemError 415 for an encoding that is not read here."""
    encoding = request.headers.get(HEADER, b"").strip().lower()
    if encoding in (b"", b"identity"):
        return False
    if encoding not in GZIP:
        raise ProblemError(
            415,
            f"Content-Encoding is {encoding.decode('latin-1')!r}; allowed: gzip, identity",
            headers={"accept-encoding": "gzip"},
        )
    return True


def decoded(body: bytes, limit: int) -> bytes:
    """A gzip body's content, of at most `limit` bytes. ProblemError 413 above it, 400 for a broken body.

    A body that does not begin as gzip does is returned as it is: AWS's documents leave open whether API
    Gateway decompresses a body, and whether Content-Encoding then stays.
    """
    if not body.startswith(MAGIC):
        return body
    content = bytearray()
    source = _Source(body)
    try:
        for _ in range(MAX_MEMBERS):
            _member(source, content, limit)
            if source.ended():
                return bytes(content)
    except zlib.error:
        raise malformed("the body is not gzip, or was cut short or altered") from None
    raise malformed(f"the body has more than {MAX_MEMBERS} gzip members")


class _Source:
    """A body in small pieces: what a member leaves over is copied, and a body may have many members."""

    def __init__(self, body: bytes) -> None:
        self._rest, self.piece = memoryview(body), b""

    def ended(self) -> bool:
        """Whether nothing is left; else the next piece is there."""
        if not self.piece:
            self.piece, self._rest = bytes(self._rest[:CHUNK]), self._rest[CHUNK:]
        return not self.piece


def _member(source: _Source, content: bytearray, limit: int) -> None:
    """Adds the next member's content; leaves what follows it."""
    stream = zlib.decompressobj(wbits=31)
    while not stream.eof:
        if source.ended():
            raise malformed("the body is not gzip: it ends early")
        content += stream.decompress(source.piece, CHUNK)
        if len(content) > limit:
            raise too_large(limit)
        source.piece = stream.unused_data if stream.eof else stream.unconsumed_tail
