"""Which version of its library a model was saved with, read from its file without loading it.

The bytes come from strangers: every read is bounded, nothing is imported, and what cannot be followed is
None. The version is for messages; a file can state a false one.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

MOST_BYTES = 1 << 30  # of a pickle, decompressed; a version after them is not found
_CHUNK = 1 << 20
_OVERLAP = 128  # more than the key and a version take in any form below

# What reading a damaged archive or stream raises; zipfile raises those of the first line.
_UNREADABLE = (
    *(OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)
_RELEASE = re.compile(rb"\d{1,4}(?:\.\d{1,4}){1,3}[0-9A-Za-z.+]{0,24}")
_IN_SCHEMA = re.compile(rb'"_sklearn_version":\s*\{[^{}]{0,400}?"content":\s*"\\"([^"\\]{1,40})\\""')
# The key, how each pickle protocol remembers it, and the length that is written before the version.
_IN_PICKLE = re.compile(
    rb"_sklearn_version(?:\x94|q.|r.{4})?(?:\x8c(?P<short>.)|X(?P<long>.{4})|\np\d{1,9}\nV)(?P<version>.{1,40})",
    re.DOTALL,
)


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Saved:
    """The version in a model's file, and the one that is installed here."""

    framework: str
    version: str
    served: str

    @property
    def differs(self) -> bool:
        """Whether they are of different release series: 1.5.1 and 1.5.2 are of one."""
        return series(self.version) != series(self.served)

    def explain(self, cause: str) -> str:
        """Why a model of another version cannot be served, and what to do."""
        return (
            f"saved with {self.framework} {self.version}, served with {self.served}: {cause}; "
            f"save it again with {self.served}, or set model.framework_version"
        )


def series(version: str) -> tuple[str, ...]:
    """The release series: ("1", "5") of 1.5.2."""
    return tuple(version.split(".")[:2])


def scikit_learn_version(path: Path) -> str | None:
    """What wrote a skops file, a pickle or a joblib file; None where the file does not say."""
    with suppress(*_UNREADABLE):
        return _of_skops(path) if path.suffix == ".skops" else _of_pickle(path)
    return None


def xgboost_version(path: Path) -> str | None:
    """What wrote a model.json or model.ubj; None where the file does not say."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))  # the keys are sorted, and "version" is the last
        end = file.read(4096)
        found = re.search(rb'"version"\s*:\s*\[(\d{1,4}),\s*(\d{1,4}),\s*(\d{1,4})\]', end)
        if found:
            return ".".join(part.decode() for part in found.groups())
        return _of_ubjson(end)
    return None


def _of_ubjson(end: bytes) -> str | None:
    """An array of three integers under the key "version", each after the mark of its width."""
    key, widths, parts = b"\x07version[", {b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8}, []
    at = end.rfind(key) + len(key)
    if at < len(key):
        return None
    if end[at : at + 1] == b"#":  # the count of a typed or sized array
        at += 2 + widths.get(end[at + 1 : at + 2], 0)
    for _ in range(3):
        width = widths.get(end[at : at + 1])
        if width is None:
            return None
        parts.append(int.from_bytes(end[at + 1 : at + 1 + width], "big"))
        at += 1 + width
    return ".".join(map(str, parts))


def _of_skops(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive, archive.open("schema.json") as schema:
        return _oldest(
            found.group(1) for piece in _windows(schema, 1024) for found in _IN_SCHEMA.finditer(piece)
        )


def _of_pickle(path: Path) -> str | None:
    with path.open("rb") as file:
        magic = file.read(6)
        file.seek(0)
        return _oldest(_pickled(_windows(_decompressed(file, magic), _OVERLAP)))


def _pickled(windows: Iterator[bytes]) -> Iterator[bytes]:
    for window in windows:
        for found in _IN_PICKLE.finditer(window):
            text, length = found["version"], _length(found)
            if 0 < length <= len(text):  # else it goes on in the next window
                yield text[:length]


def _length(found: re.Match[bytes]) -> int:
    """How long the version is, in bytes; -1 where its end is not in this window."""
    if found["short"] is not None:
        return found["short"][0]
    if found["long"] is not None:
        return int.from_bytes(found["long"], "little")
    return found["version"].find(b"\n")


def _oldest(versions: Iterator[bytes]) -> str | None:
    """The oldest of what the estimators of one file say: a pipeline may hold a step from another file."""
    known = {found.group().decode() for text in versions if (found := _RELEASE.fullmatch(text))}
    return min(
        known, key=lambda version: [int(digits) for digits in re.findall(r"\d+", version)], default=None
    )


def _windows(file: Readable, overlap: int) -> Iterator[bytes]:
    """The content in pieces, each with the end of the one before, up to MOST_BYTES."""
    read, kept = 0, b""
    while read < MOST_BYTES and (chunk := file.read(_CHUNK)):
        read += len(chunk)
        yield kept + chunk
        kept = chunk[-overlap:]


def _decompressed(file: BinaryIO, magic: bytes) -> Readable:
    """As joblib finds out how a file is compressed: by its first bytes."""
    openers: list[tuple[tuple[bytes, ...], Callable[[BinaryIO], Readable]]] = [
        ((b"\x1f\x8b",), lambda raw: gzip.GzipFile(fileobj=raw, mode="rb")),
        ((b"BZh",), lambda raw: bz2.BZ2File(raw)),
        ((b"\xfd7zXZ\x00", b"\x5d\x00\x00"), lambda raw: lzma.LZMAFile(raw)),  # noqa: SIM115
        ((b"x",), _Inflating),
    ]
    return next((opener(file) for starts, opener in openers if magic.startswith(starts)), file)


class _Inflating:
    """A zlib stream, which Python has no file for."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._inflate = raw, zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        data = b""
        while not data and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._raw.read(_CHUNK)
            if not packed:
                break
            data = self._inflate.decompress(packed, size)
        return data
