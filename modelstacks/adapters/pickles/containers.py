"""Finds the pickles in a file by its content, as the loaders do.

joblib.load detects a compressor by the first bytes and reads everything else as a pickle, never as a zip.
torch.load treats a file that begins like a zip as a zip. numpy.load reads a pickle after a header that names
objects. No library writes a file that two readers would read differently, such as a zip appended to a
pickle; such files are refused.
"""

from __future__ import annotations

import ast
import bz2
import lzma
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import IO, Any

from modelstacks.adapters.pickles.machine import Loader, MalformedError
from modelstacks.adapters.pickles.policy import shown, uses
from modelstacks.core.artifact.skops_types import SCHEMA, is_library_type, schema_types
from modelstacks.core.errors import UsageError

__all__ = ["Stream", "SuspectError", "streams"]

LARGEST = 16 << 30  # bytes after decompression
FREE = 64 << 20  # bytes that may come out whatever the ratio
MOST_RATIO = 1000
MOST_MEMBERS = 10_000
DEEPEST = 3  # archives within archives
_CHUNK = 1 << 20
_IN_MEMORY = 64 << 20
_XZ_MEMORY = 256 << 20
_LONGEST_LINE = 1 << 20
_LONGEST_NPY_HEADER = 1 << 16

_ZIP, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"
_NPY = b"\x93NUMPY"
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib")
# What torch.save before 1.6 begins with: a pickle of this number; four more follow, then raw storages.
TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_TORCH_PICKLES = 5
_TORCH_MEMBER = re.compile(
    r"[^/]+/(data\.pkl|data/[0-9]+|version|byteorder|\.format_version|\.storage_alignment"
    r"|\.data/serialization_id)"
)


class SuspectError(ValueError):
    """No library writes a file like this; the message continues the file's name."""


@dataclass
class Stream:
    """Bytes that a loader reads as consecutive pickles."""

    name: str
    content: IO[bytes]
    size: int
    loader: Loader
    most: int = 1 << 30  # pickles; what follows them is read as something else

    def read(self, size: int, /) -> bytes:
        return self.content.read(max(0, min(size, self.left())))

    def readline(self) -> bytes:
        line = self.content.readline(_LONGEST_LINE)
        if len(line) == _LONGEST_LINE:
            raise MalformedError("a line of more than a MiB")
        return line

    def left(self) -> int:
        return self.size - self.content.tell()


def streams(content: IO[bytes], name: str, depth: int = 0) -> Iterator[Stream]:
    """The streams of pickles in a file.

    Raises:
        SuspectError: no library writes such a file.
        UsageError: it is damaged, or would unpack to far more than a model.
    """
    size = content.seek(0, 2)
    content.seek(0)
    head = content.read(512)
    content.seek(0)
    if head.startswith(_ZIP):
        yield from _in_zip(content, name, size, depth)
    elif head.startswith(_NPY):
        yield from _in_npy(content, name, size)
    elif head.startswith(b"ZF"):
        raise SuspectError("was written by joblib before 0.10, and is not followed; save the model again")
    elif head.startswith(b"\x04\x22\x4d\x18"):
        raise SuspectError("is compressed with lz4, which the serving image cannot read")
    elif head[257:262] == b"ustar":
        raise SuspectError("is a tar archive, as torch wrote before 0.1.10; save the model again")
    elif (inflate := _inflater(head)) is not None:
        plain, length = _inflated(content, inflate, size, name)
        yield Stream(name, plain, length, "joblib")
    elif head.startswith(TORCH_MAGIC):
        yield Stream(name, content, size, "torch", _TORCH_PICKLES)
    else:
        yield Stream(name, content, size, "joblib")


def _inflater(head: bytes) -> Any:
    """The decompressor that joblib chooses for these first bytes, or None."""
    choices: tuple[tuple[bytes, Callable[[], Any]], ...] = (
        (b"\x78", zlib.decompressobj),
        (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
        (b"BZ", bz2.BZ2Decompressor),
        (b"\x5d\x00", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, _XZ_MEMORY)),
        (b"\xfd7zXZ", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)),
    )
    return next((make() for prefix, make in choices if head.startswith(prefix)), None)


def _inflated(content: IO[bytes], inflate: Any, packed: int, name: str) -> tuple[IO[bytes], int]:
    """The decompressed content in a temporary file, and its length."""
    out = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  the stream that is yielded has it
    length = 0
    try:
        for data in _pieces(content, inflate):
            out.write(data)
            length += len(data)
            _bound(name, length, packed)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UsageError(f"{name}: the compressed pickle is damaged: {error}") from None
    if inflate.unused_data or content.read(1):
        raise SuspectError("has bytes after the end of its compressed data")
    out.seek(0)
    return out, length


def _pieces(content: IO[bytes], inflate: Any) -> Iterator[bytes]:
    is_zlib = not hasattr(inflate, "needs_input")
    rest = b""
    while not inflate.eof:
        if is_zlib or inflate.needs_input:
            rest = (inflate.unconsumed_tail if is_zlib else b"") or content.read(_CHUNK)
            if not rest:
                raise EOFError("it ends early")
        yield inflate.decompress(rest, _CHUNK)
        rest = b""


def _bound(name: str, size: int, packed: int) -> None:
    if size > LARGEST or size > max(FREE, packed * MOST_RATIO):
        raise UsageError(
            f"{name}: {packed} bytes would unpack to {size} or more: this looks like a decompression bomb"
        )


def _in_npy(content: IO[bytes], name: str, size: int) -> Iterator[Stream]:
    """The pickle after the header of an array of objects; other arrays are raw bytes."""
    version = content.read(8)[6:7]
    length = int.from_bytes(content.read(2 if version == b"\x01" else 4), "little")
    if length > _LONGEST_NPY_HEADER:
        raise SuspectError("has a header longer than numpy writes")
    try:
        header = ast.literal_eval(content.read(length).decode("latin1").strip())
        has_objects = _names_objects(header["descr"])
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise SuspectError(f"has a header that numpy does not write ({type(error).__name__})") from None
    if has_objects:
        yield Stream(name, content, size, "pickle")


def _names_objects(descr: object) -> bool:
    if isinstance(descr, str):
        return "O" in descr
    if isinstance(descr, list):
        return any(_names_objects(field[1]) for field in descr)
    if isinstance(descr, tuple):
        return _names_objects(descr[0])
    raise TypeError("a dtype")


def _in_zip(content: IO[bytes], name: str, size: int, depth: int) -> Iterator[Stream]:
    if depth == DEEPEST:
        raise SuspectError(f"has archives nested more than {DEEPEST} deep")
    try:
        with zipfile.ZipFile(content) as archive:
            members = _plain_members(archive, content, size)
            if any(member.filename == SCHEMA for member in members):
                _check_skops(archive)
            torch = any(PurePosixPath(member.filename).name == "data.pkl" for member in members)
            if torch:
                _check_torch(members)
            for member in members:
                inner = f"{name}:{ascii(member.filename)[1:-1]}"
                if torch and not member.filename.endswith("/data.pkl"):
                    continue  # raw storages, which no loader takes for a pickle
                yield from _member(archive, member, inner, depth, torch=torch)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError) as error:
        raise SuspectError(f"is a damaged zip archive ({ascii(str(error))[1:80]})") from None


def _member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, depth: int, *, torch: bool
) -> Iterator[Stream]:
    """The streams in one member that a loader could read as a pickle."""
    _bound(name, member.file_size, member.compress_size)
    out = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  the stream that is yielded has it
    with archive.open(member) as packed:
        while data := packed.read(_CHUNK):
            out.write(data)
            _bound(name, out.tell(), member.compress_size)
    out.seek(0)
    head = out.read(8)
    out.seek(0)
    if torch:
        yield Stream(name, out, member.file_size, "torch", 1)
    elif member.filename.endswith(_PICKLE_SUFFIXES) or head.startswith((b"\x80", _ZIP, _NPY)):
        yield from streams(out, name, depth + 1)


def _plain_members(archive: zipfile.ZipFile, content: IO[bytes], size: int) -> list[zipfile.ZipInfo]:
    """The members of an archive that all readers read alike: no bytes before, between or after them."""
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise SuspectError(f"is a zip archive of more than {MOST_MEMBERS} members")
    if len({member.filename for member in members}) != len(members):
        raise SuspectError("is a zip archive that lists a member twice")
    if any(member.flag_bits & 1 for member in members):
        raise SuspectError("is an encrypted zip archive")
    content.seek(max(0, size - 22))
    end = content.read(22)
    if not end.startswith(_ZIP_END) or end[20:] != b"\0\0" or archive.comment:
        raise SuspectError("is a zip archive with bytes after its end")
    places = sorted((member.header_offset, member.compress_size) for member in members)
    if places and places[0][0] != 0:
        raise SuspectError("is a zip archive with bytes before its first member")
    if any(start + 30 + packed > after for (start, packed), (after, _) in pairwise(places)):
        raise SuspectError("is a zip archive whose members overlap")
    return members


def _check_skops(archive: zipfile.ZipFile) -> None:
    """Check the names in a skops file's schema: skops imports them, and calls or instantiates them."""
    with archive.open(SCHEMA) as schema:
        named = sorted(schema_types(schema))
    strange = [name for name in named if not uses(name) and not is_library_type(*name)]
    if strange:
        raise SuspectError(f"imports {', '.join(map(shown, strange[:5]))}")


def _check_torch(members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    strange = [name for name in names if not _TORCH_MEMBER.fullmatch(name)]
    if strange:
        raise SuspectError(f"contains {ascii(strange[0])[:80]}, which torch.save does not write")
    if len({name.split("/")[0] for name in names}) != 1:
        raise SuspectError("contains two torch.save archives")
