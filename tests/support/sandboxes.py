"""The sandboxes of this machine, and interpreters to run in them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from modelstacks.adapters.sandbox import Sandbox, choose
from modelstacks.core.errors import EnvironmentFault

ROOT = Path(__file__).parents[2]
PACKAGES = Path(numpy.__file__).parents[1]  # where the engines are installed
#: The mechanisms that hide files and the network; "none" does not.
MECHANISMS = ("bubblewrap", "landlock")


def sandbox(kind: str) -> Sandbox:
    """A mechanism of this machine; the test is skipped, with the reason, where it does not work here."""
    try:
        return choose(kind)  # type: ignore[arg-type]
    except EnvironmentFault as error:
        pytest.skip(str(error))


def environment(folder: Path, *paths: Path) -> Path:
    """The interpreter of a new virtual environment whose packages are found in `paths`."""
    base = Path(sys.executable).resolve()
    site = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    site.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\nexecutable = {base}\n")
    (folder / "bin/python").symlink_to(base)
    (site / "packages.pth").write_text("".join(f"{path}\n" for path in paths))
    return folder / "bin/python"


def engines(folder: Path) -> Path:
    """An interpreter with the model server and every engine, as an installed image has it."""
    return environment(folder, ROOT / "serving", PACKAGES)


def pretender(folder: Path, source: str) -> Path:
    """An interpreter whose `model_server` is this program."""
    python = environment(folder)
    (package := next((folder / "lib").glob("*/site-packages")) / "model_server").mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(source)
    return python


def opened(kind: str) -> Callable[[], Sandbox]:
    """What the inspector wants."""
    chosen = sandbox(kind)
    return lambda: chosen
