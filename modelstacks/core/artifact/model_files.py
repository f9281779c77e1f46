"""Which files a model may consist of: their names, their kinds and how many of them there are.

The same rules hold for a folder, an archive, a bucket's listing and a hub's. A name has to mean the same file
on every file system and look the same on every screen; a folder holds plain files, and no link leads out of
it. `docs/sources/artifact.md` states the rules for users.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from modelstacks.core.errors import UsageError

__all__ = ["MOST_FILES", "FileTree", "name_fault", "open_file", "pin", "walk"]

MOST_FILES = 10_000
# Files, folders and hidden entries that are looked at before a tree is refused.
MOST_ENTRIES = 20_000
# Folders in one path.
DEEPEST = 32
# In bytes; what Linux's and macOS's file systems hold.
LONGEST_NAME = 255
_CHUNK = 1 << 20
# In bytes; an object's key in S3 may have 1,024 with its prefix.
LONGEST_PATH = 1000

_NOT_ON_WINDOWS = re.compile(r'[<>:"|?*\\]')
_DEVICE_NAMES = re.compile(r"(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
# Drawn as nothing, though Unicode counts them as letters or marks: fillers, joiners and variation selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (lambda mode: not stat.S_ISREG(mode), "no plain file"),
)


def name_fault(path: str) -> str:
    """What is wrong with a file's path (POSIX, relative), or nothing.

    Examples:
        >>> name_fault("code/inference.py")
        ''
        >>> name_fault("../evil")
        "would be written outside the model's folder"
    """
    if len(path.encode("utf-8", "surrogatepass")) > LONGEST_PATH:
        return f"has a path of more than {LONGEST_PATH} bytes"
    parts = path.split("/")
    if len(parts) > DEEPEST:
        return f"is more than {DEEPEST} folders deep"
    if path.startswith("/") or ".." in re.split(r"[/\\]", path) or re.match(r"[A-Za-z]:", path):
        return "would be written outside the model's folder"
    return next((fault for part in parts if (fault := _part_fault(part))), "")


def _part_fault(part: str) -> str:
    if part in ("", "."):
        return "is not a plain path"
    for character in part:
        if fault := _character_fault(character):
            return fault
    if not unicodedata.is_normalized("NFC", part):
        return "is not in Unicode's composed form (NFC), so that some systems would store another name"
    if len(part.encode()) > LONGEST_NAME:
        return f"has a name of more than {LONGEST_NAME} bytes"
    if found := _NOT_ON_WINDOWS.search(part):
        return f"has the character {found[0]}, which Windows does not allow in names"
    if part[-1] in ". ":
        return "ends with a dot or a space, which Windows removes"
    if part[0] == " ":
        return "begins with a space"
    if _DEVICE_NAMES.fullmatch(part):
        return "is the name of a device on Windows"
    return ""


def _character_fault(character: str) -> str:
    if " " < character <= "~" or character == " ":
        return ""
    code, category = f"U+{ord(character):04X}", unicodedata.category(character)
    if category == "Cs":
        return "is not valid UTF-8"
    if character in _BIDIRECTIONAL:
        return f"has a character that changes the direction of text ({code})"
    if category == "Cf" or _INVISIBLE.match(character):
        return f"has an invisible character ({code})"
    if category in ("Cc", "Zl", "Zp"):
        return f"has a control character ({code})"
    if category == "Zs":
        return f"has a space other than U+0020 ({code})"
    if category in ("Cn", "Co"):
        return f"has a character that Unicode does not define ({code})"
    return ""


@dataclass
class FileTree:
    """The paths of one model, taken in one by one; the first that cannot be part of it is refused.

    Args:
        where: how messages name the folder, the archive or the listing.
        most_files: how many files it may have.
    """

    where: str
    most_files: int = MOST_FILES
    _files: set[str] = field(default_factory=set)
    _entries: int = 0
    # The folded path -> path, whether a folder.
    _names: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def add(self, path: str) -> None:
        """Take in one file (POSIX, relative).

        Raises:
            UsageError: its name is refused, it is there already, or there are too many files.
        """
        self.count()
        self._check(path)
        if path in self._files:
            raise UsageError(f"{self.where}: {path!a} is listed twice")
        self._enter(path, folder=False)
        self._files.add(path)
        if len(self._files) > self.most_files:
            raise UsageError(
                f"{self.where}: it holds more than {self.most_files} files",
                fix="leave only what the model needs, or name a folder that has only that",
            )

    def add_folder(self, path: str) -> None:
        """Take in one folder (POSIX, relative); the same one may come again."""
        self.count()
        self._check(path)
        self._enter(path, folder=True)

    def count(self) -> None:
        """Count an entry that was looked at, whether it is taken in or not."""
        self._entries += 1
        if self._entries > MOST_ENTRIES:
            raise UsageError(
                f"{self.where}: it holds more than {MOST_ENTRIES} files and folders",
                fix="leave only what the model needs, or name a folder that has only that",
            )

    def _check(self, path: str) -> None:
        if fault := name_fault(path):
            raise UsageError(f"{self.where}: {ascii(path)[:200]} {fault}", fix="rename it")

    def _enter(self, path: str, *, folder: bool) -> None:
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            part, is_folder = "/".join(parts[:end]), end < len(parts) or folder
            key = unicodedata.normalize("NFKC", part).casefold()
            other, was_folder = self._names.setdefault(key, (part, is_folder))
            if other != part:
                raise UsageError(
                    f"{self.where}: {part!a} and {other!a} are one name where case is ignored or compatible "
                    "characters are replaced",
                    fix="rename or remove one of them",
                )
            if is_folder != was_folder:
                raise UsageError(f"{self.where}: {part!a} is both a file and a folder")


def walk(directory: Path, where: str = "") -> list[str]:
    """Every file below a folder, as sorted POSIX paths; hidden ones and Python's caches are left out.

    Links to files that stay inside the folder are taken as the files that they lead to.

    Raises:
        UsageError: a name is refused, a link leads outside, something is neither a file nor a folder, or
            there is too much of it. Only folders are read for this, no file.
    """
    where = where or str(directory)
    tree, root = FileTree(where), directory.resolve()
    found: dict[str, os.stat_result] = {}
    followed: set[str] = set()
    pending = [""]
    while pending:
        for entry in _entries(root, pending.pop(), tree):
            path = entry.path.removeprefix(f"{root}/") if root != Path("/") else entry.path.lstrip("/")
            if entry.is_symlink():
                found[path] = _follow(entry, path, root, where)
                followed.add(path)
            elif entry.is_dir(follow_symlinks=False):
                tree.add_folder(path)
                pending.append(path)
                continue
            else:
                found[path] = entry.stat(follow_symlinks=False)
            _refuse_special(path, found[path].st_mode, where)
            tree.add(path)
    _refuse_links_outside({path: found[path] for path in found.keys() - followed}, where)
    return sorted(found)


@contextmanager
def open_file(directory: Path, path: str) -> Iterator[tuple[BinaryIO, int]]:
    """One file of a walked folder and its size in bytes, whatever has taken its place since the walk.

    Raises:
        UsageError: it is gone, leads out of the folder by now, or is no plain file.
    """
    try:
        real = (directory / path).resolve(strict=True)
        if not real.is_relative_to(directory.resolve()):
            raise UsageError(f"{path!a} is a link out of the model's folder", got=ascii(str(real)))
        # Not blocked by a FIFO, and not led elsewhere by a link that was put here after resolve().
        handle = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a circle of links"
        raise UsageError(f"{path!a} cannot be read: {reason}") from None
    with os.fdopen(handle, "rb") as content:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path!a} is no plain file")
        yield content, status.st_size


def pin(directory: Path, path: str) -> tuple[int, str]:
    """A file's size in bytes and its sha256.

    Raises:
        UsageError: it cannot be read, or holds more or less than its size says, as files of /proc do.
    """
    digest, read = hashlib.sha256(), 0
    with open_file(directory, path) as (content, size):
        while read <= size and (data := content.read(min(_CHUNK, size + 1 - read))):
            digest.update(data)
            read += len(data)
    if read != size:
        raise UsageError(
            f"{path!a} changes while it is read",
            got=f"{'more' if read > size else 'fewer'} than {size} bytes",
            fix="lock a copy that nothing writes to",
        )
    return size, digest.hexdigest()


def _entries(root: Path, folder: str, tree: FileTree) -> Iterator[os.DirEntry[str]]:
    """What a folder holds, without what never is part of a model."""
    try:
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__pycache__":
                    tree.count()
                else:
                    yield entry
    except OSError as error:
        raise UsageError(f"{tree.where}: {folder or '.'} cannot be read: {error.strerror}") from None


def _follow(entry: os.DirEntry[str], path: str, root: Path, where: str) -> os.stat_result:
    """The file that a link leads to."""
    target = str(Path(entry.path).readlink())
    try:
        real = Path(entry.path).resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a circle of links
        raise UsageError(
            f"{where}: {path!a} is a link that leads nowhere", got=ascii(target), fix="remove the link"
        ) from None
    if not real.is_relative_to(root):
        raise UsageError(
            f"{where}: {path!a} is a link out of the model's folder",
            got=ascii(str(real)),
            allowed="links to files in the folder",
            fix="put a copy of the file in its place, if it is yours",
        )
    if real.is_dir():
        raise UsageError(
            f"{where}: {path!a} is a link to a folder",
            got=ascii(target),
            allowed="links to files in the folder",
            fix="remove the link, or put a copy of the folder in its place",
        )
    if any(part.startswith(".") for part in real.relative_to(root).parts):
        raise UsageError(
            f"{where}: {path!a} is a link to a hidden file",
            got=ascii(target),
            fix="put the file itself in its place",
        )
    return real.stat()


def _refuse_special(path: str, mode: int, where: str) -> None:
    for is_kind, kind in _KINDS:
        if is_kind(mode):
            raise UsageError(f"{where}: {path!a} is {kind}", allowed="files and folders", fix="remove it")


def _refuse_links_outside(found: dict[str, os.stat_result], where: str) -> None:
    """A file with more names than the folder has for it can be somebody else's, and change without notice."""
    names = Counter((status.st_dev, status.st_ino) for status in found.values())
    for path, status in found.items():
        if status.st_nlink > names[status.st_dev, status.st_ino]:
            raise UsageError(
                f"{where}: {path!a} is a hard link: the same file has a name outside the folder",
                got=f"{status.st_nlink} names",
                allowed="files of the folder's own",
                fix=f"replace it by a copy: cp {shlex.quote(path)} copy && mv copy {shlex.quote(path)}",
            )
