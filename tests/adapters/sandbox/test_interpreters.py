"""What an interpreter needs to be seen, and no more than that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.sandboxes import MECHANISMS, environment, sandbox

from modelstacks.adapters.sandbox import Policy, interpreter_paths, package_paths, run

BASE = Path(sys.executable).resolve()


def install(prefix: Path) -> Path:
    """A folder that looks like an installed interpreter."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib/python3.11").mkdir(parents=True)
    (prefix / "bin/python3.11").touch(mode=0o755)
    return prefix / "bin/python3.11"


def test_a_virtual_environment_needs_its_own_and_its_bases_libraries(tmp_path: Path) -> None:
    base = install(tmp_path / "opt/python")
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text(f"home = {base.parent}\nexecutable = {base}\n")
    (venv / "bin/python").symlink_to(base)
    (venv / "lib").mkdir()
    assert set(interpreter_paths(venv / "bin/python")) == {
        venv / "bin/python",
        venv / "lib",
        venv / "pyvenv.cfg",
        base,
        base.parents[1] / "lib",
    }


def test_an_interpreter_in_a_home_folder_does_not_show_the_home_folder(tmp_path: Path) -> None:
    """As uv and pyenv link it: ~/.local/bin/python3.11 -> somewhere below ~/.local/share."""
    home = tmp_path / "home"
    real = install(home / ".local/share/uv/python/cpython-3.11")
    (home / ".local/lib/python3.11/site-packages").mkdir(parents=True)
    (home / ".local/bin").mkdir()
    (home / ".local/bin/python3.11").symlink_to(real)
    shown = interpreter_paths(home / ".local/bin/python3.11")
    assert real in shown
    for secret in (home, home / ".local", home / ".local/share", home / ".ssh"):
        assert not any(secret == path or path in secret.parents for path in shown)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert interpreter_paths(tmp_path / "a") == ()


def test_packages_that_pth_files_name_are_seen(tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    python = environment(tmp_path / "venv", tmp_path / "packages", tmp_path / "absent")
    assert package_paths(python) == (tmp_path / "packages",)


@pytest.mark.parametrize("kind", MECHANISMS)
def test_it_starts_with_what_was_found_and_imports_the_same(kind: str, tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/mine.py").write_text("here = __file__")
    python = environment(tmp_path / "venv", tmp_path / "packages")
    source = "import ctypes, hashlib, mine, sqlite3, ssl, sys, zoneinfo; print(mine.here, sys.path)"
    command = [str(python), "-I", "-c", source]
    outside = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (scratch := tmp_path / "scratch").mkdir()
    policy = Policy(readable=(*interpreter_paths(python), *package_paths(python)), scratch=scratch)
    ended = run(sandbox(kind), policy, command, {}, scratch, timeout=60)
    assert (ended.output, ended.errors) == (outside, "")


def test_the_base_interpreter_alone_is_enough_for_itself() -> None:
    shown = interpreter_paths(BASE)
    assert BASE in shown
    assert Path.home() not in shown
