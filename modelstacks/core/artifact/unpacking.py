"""Unpacking an archive that a stranger made.

Only plain files and folders come out, below the destination and nowhere else, and no more of them than the
bounds allow. A link, a device, a name that model_files.py refuses, or a bomb refuses the whole archive.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from modelstacks.core.artifact.model_files import MOST_FILES, FileTree
from modelstacks.core.errors import UsageError

__all__ = ["Bounds", "unpack"]

_CHUNK = 1 << 20
# tarfile reads an extended header whole into memory.
_LARGEST_HEADER = 1 << 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may come out of an archive."""

    files: int = MOST_FILES
    # Bytes unpacked.
    size: int = 64 << 30
    # Bytes unpacked for one byte packed; weights hardly compress.
    ratio: int = 200
    # Bytes that may be unpacked whatever the ratio: small text compresses well.
    free: int = 64 << 20


def unpack(archive: Path, destination: Path, bounds: Bounds | None = None, *, where: str = "") -> None:
    """Unpack a .tar.gz into an existing folder.

    Raises:
        UsageError: it is no .tar.gz, it is damaged, or something in it is refused; what was written by then
            stays.
    """
    bounds = bounds or Bounds()
    where = where or str(archive)
    packed = archive.stat().st_size
    limit = min(bounds.size, max(bounds.free, packed * bounds.ratio))

    def refuse(what: str, fix: str = "") -> UsageError:
        return UsageError(f"{where}: {what}", fix=fix)

    with archive.open("rb") as start:
        if start.read(2) != b"\x1f\x8b":
            raise refuse(
                "not a .tar.gz: the file is not gzip-compressed", "tar -czf model.tar.gz -C MODEL_FOLDER ."
            )
    tree = FileTree(where, bounds.files)
    total = 0
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=_Bounded(stream, where), mode="r:") as tar:
            for member in tar:
                name = _plain(member.name)
                if member.isdir():
                    # The archive's root is no entry of its own.
                    if name:
                        tree.add_folder(name)
                    continue
                if member.issym() or member.islnk():
                    raise refuse(
                        f"{member.name!a} is a link",
                        "pack the files themselves: tar --dereference --hard-dereference",
                    )
                if not member.isreg():
                    raise refuse(f"{member.name!a} is neither a file nor a folder")
                tree.add(name)
                total += member.size
                if total > limit:
                    raise refuse(f"{packed} bytes would unpack to more than {limit}, as a bomb would")
                _write(tar, member, destination / name)
    except UsageError:
        raise
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise refuse(f"cannot be unpacked: {error.strerror}") from None
        raise refuse(f"the archive is damaged: {error}") from None


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise tarfile.ReadError(f"{member.name} has no content")
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with path.open("xb") as out:
        while left:
            data = source.read(min(_CHUNK, left))
            if not data:
                raise tarfile.ReadError(f"{member.name} ends {left} bytes early")
            out.write(data)
            left -= len(data)


def _plain(name: str) -> str:
    """A member's name without what tar adds to it: `./` in front, a slash after a folder's name."""
    plain = "/".join(part for part in name.split("/") if part not in ("", "."))
    return f"/{plain}" if name.startswith("/") else plain


class _Bounded(io.RawIOBase):
    """Lets tarfile read a stream, but not a header so long that it would fill the memory."""

    def __init__(self, stream: gzip.GzipFile, where: str) -> None:
        self._stream, self._where = stream, where

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _LARGEST_HEADER:
            raise UsageError(f"{self._where}: a header of {size} bytes, as a bomb would have")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
