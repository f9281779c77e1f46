"""Finds the files that a Python interpreter needs to start: a sandbox has to be given them in advance."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["interpreter_paths", "package_paths"]

_MOST_LINKS = 16  # a chain of symbolic links that is longer is a loop
# Of a prefix: never the whole of it, which may be somebody's home folder or ~/.local.
_PARTS = ("lib", "lib64", "pyvenv.cfg")


def interpreter_paths(python: Path) -> tuple[Path, ...]:
    """Every file that this interpreter needs to start.

    These are the interpreter, each one that it links to, the one that its virtual environment was made from,
    and the libraries of all of them. A file that is not an interpreter needs only itself.
    """
    found: dict[Path, None] = {}
    programs = [python]
    for given in programs:  # grows by the ones that environments were made from
        for program in _links(given):
            found[program] = None
            prefix = program.parent.parent
            if (prefix / "pyvenv.cfg").is_file() or any(prefix.glob("lib*/python3*")):
                found.update(dict.fromkeys(prefix / part for part in _PARTS))
            home = _home(prefix)
            if home is not None and home not in programs:
                programs.append(home)
    return tuple(path for path in found if path.exists())


def package_paths(python: Path) -> tuple[Path, ...]:
    """The folders that a virtual environment's .pth files add to sys.path, as editable installations do."""
    return tuple(
        Path(line)
        for file in python.parent.parent.glob("lib/python3*/site-packages/*.pth")
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith("/") and Path(line).is_dir()
    )


def _links(path: Path) -> Iterator[Path]:
    """A path and everything that it links to, one link at a time, each absolute."""
    path = path.absolute()
    for _ in range(_MOST_LINKS):
        yield path
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    yield Path(os.path.realpath(path))  # resolve() refuses a loop


def _home(prefix: Path) -> Path | None:
    """The interpreter that a virtual environment was made from."""
    try:
        lines = (prefix / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    names = (values.get("executable", ""), f"{values['home']}/python3" if values.get("home") else "")
    return next((Path(name) for name in names if name and Path(name).is_file()), None)
