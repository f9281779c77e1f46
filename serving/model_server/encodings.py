"""Content-Encoding of requests: gzip is taken off, with bounds; everything else is refused."""

from __future__ import annotations

import zlib

from model_server.http import Request
from model_server.problems import ProblemError, malformed, too_large

HEADER = b"content-encoding"
GZIP = (b"gzip", b"x-gzip")
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
    """A gzip body's content of at most `limit` bytes: ProblemError 413 above it, 400 for what is not gzip."""
    content = bytearray()
    try:
        for _ in range(MAX_MEMBERS):
            body = _member(body, content, limit)
            if not body:
                return bytes(content)
    except zlib.error as error:
        raise malformed(f"the body is not gzip: {error}") from None
    raise malformed(f"the body has more than {MAX_MEMBERS} gzip members")


def _member(body: bytes, content: bytearray, limit: int) -> bytes:
    """Adds the first member's content; returns what follows it."""
    stream = zlib.decompressobj(wbits=31)
    while not stream.eof:
        chunk = stream.decompress(body, CHUNK)
        content += chunk
        if len(content) > limit:
            raise too_large(limit)
        body = stream.unconsumed_tail
        if not chunk and not body and not stream.eof:
            raise malformed("the body is not gzip: it ends early")
    return stream.unused_data
