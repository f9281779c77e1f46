"""The model archive: a .tar.gz whose bytes depend on the model's files and on nothing else.

SageMaker wants a gzip-compressed tar. Compressors differ between zlib builds, and weights hardly compress, so
the deflate stream here consists of stored blocks: the same bytes on every machine, for ever, at the speed of
the disk.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from modelstacks.core.artifact.model_files import open_file
from modelstacks.core.errors import UsageError

__all__ = ["file_sha256", "write_archive"]

# Deflate, no name, no time, unknown system.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_STORED_BLOCK = 0xFFFF


class _StoredGzip:
    """A write-only gzip stream of stored deflate blocks that hashes what it writes."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._pending = bytearray()
        self._crc = 0
        self._length = 0
        self.digest = hashlib.sha256()
        self.size = 0
        self._emit(_GZIP_HEADER)

    def write(self, data: bytes) -> int:
        self._crc = zlib.crc32(data, self._crc)
        self._length += len(data)
        self._pending += data
        start = 0
        while len(self._pending) - start > _STORED_BLOCK:
            self._block(self._pending[start : start + _STORED_BLOCK], last=False)
            start += _STORED_BLOCK
        del self._pending[:start]
        return len(data)

    def close(self) -> None:
        self._block(self._pending, last=True)
        self._emit(self._crc.to_bytes(4, "little") + (self._length & 0xFFFFFFFF).to_bytes(4, "little"))

    def _block(self, data: bytes | bytearray, *, last: bool) -> None:
        length = len(data)
        header = bytes([last]) + length.to_bytes(2, "little") + (length ^ 0xFFFF).to_bytes(2, "little")
        self._emit(header)
        self._emit(bytes(data))

    def _emit(self, data: bytes) -> None:
        self._out.write(data)
        self.digest.update(data)
        self.size += len(data)


class _Hashed:
    """Hashes what is read from a file."""

    def __init__(self, content: BinaryIO) -> None:
        self._content, self.digest = content, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._content.read(size)
        self.digest.update(data)
        return data


def write_archive(
    directory: Path, paths: Iterable[str], destination: Path, digests: Mapping[str, str] | None = None
) -> tuple[str, int]:
    """Write the files of `directory` named by `paths` (POSIX, relative) to `destination`.

    Args:
        digests: the sha256 that each file must have while it is packed.

    Returns its sha256 and its size in bytes.

    Raises:
        UsageError: a file cannot be read, or is not what its digest says.
    """
    with destination.open("wb") as out:
        gzip = _StoredGzip(out)
        with tarfile.open(fileobj=cast(BinaryIO, gzip), mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(paths):
                with open_file(directory, path) as (content, size):
                    member = tarfile.TarInfo(path)
                    member.size, member.mode = size, 0o644
                    packed = _Hashed(content)
                    tar.addfile(member, cast(BinaryIO, packed))
                if digests is not None and packed.digest.hexdigest() != digests[path]:
                    raise UsageError(
                        f"{path} was changed while it was packed",
                        got=f"sha256 {packed.digest.hexdigest()}",
                        allowed=digests[path],
                        fix="lock a copy that nothing writes to",
                    )
        gzip.close()
    return gzip.digest.hexdigest(), gzip.size


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
