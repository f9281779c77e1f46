"""Which mechanism is used: the strongest that works, or the one that was asked for, or none and a reason."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelstacks.adapters.sandbox import Sandbox, choose, wish
from modelstacks.adapters.sandbox.landlock import kernel_abi
from modelstacks.core.errors import EnvironmentFault, UsageError


@pytest.fixture(autouse=True)
def forget_choices() -> Iterator[None]:
    choose.cache_clear()
    yield
    choose.cache_clear()


def bwrap(folder: Path, script: str) -> Path:
    """A bwrap of ours on PATH."""
    program = folder / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.fixture
def only_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


needs_landlock = pytest.mark.skipif(not kernel_abi(), reason="the kernel has no Landlock")


@needs_landlock
def test_without_bwrap_it_is_landlock(only_path: Path) -> None:
    chosen = choose("auto")
    assert (chosen.kind, chosen.filters, chosen.warning) == ("landlock", True, "")


@needs_landlock
def test_a_bwrap_that_may_not_make_namespaces_is_not_used(only_path: Path) -> None:
    bwrap(only_path, "echo 'bwrap: No permissions to create a new namespace' >&2; exit 1")
    assert choose("auto").kind == "landlock"
    with pytest.raises(EnvironmentFault, match=r"got bubblewrap: bwrap: No permissions to create.*fix:"):
        choose("bubblewrap")


def test_a_bwrap_that_is_asked_for_and_absent_is_refused(only_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="bwrap is not installed") as refused:
        choose("bubblewrap")
    assert refused.value.exit_code == 4


def test_none_can_be_asked_for_and_is_named() -> None:
    chosen = choose("none")
    assert chosen.summary == "none: resource limits only"
    assert "MODELSTACKS_SANDBOX is none" in chosen.warning


def test_require_is_met_by_any_mechanism() -> None:
    try:
        chosen = choose("require")
    except EnvironmentFault as error:
        pytest.skip(str(error))
    assert chosen.kind != "none"
    assert chosen.warning == ""


def test_the_choice_is_made_once() -> None:
    assert choose("auto") is choose("auto")


@pytest.mark.parametrize(("text", "wanted"), [("", "auto"), ("require", "require"), ("none", "none")])
def test_the_variable_says_what_is_wished(text: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSTACKS_SANDBOX", text)
    assert wish() == wanted


def test_an_unknown_wish_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSTACKS_SANDBOX", "docker")
    with pytest.raises(UsageError, match="got docker; allowed: auto, require, bubblewrap, landlock, none"):
        wish()


@pytest.mark.parametrize(
    ("sandbox", "summary"),
    [
        (
            Sandbox("bubblewrap", Path("/usr/bin/bwrap"), 7, True),
            "bubblewrap with Landlock ABI 7 and seccomp",
        ),
        (Sandbox("bubblewrap", Path("/usr/bin/bwrap")), "bubblewrap"),
        (Sandbox("landlock", abi=4, filters=True), "Landlock ABI 4 and seccomp"),
    ],
)
def test_it_describes_itself(sandbox: Sandbox, summary: str) -> None:
    assert sandbox.summary == summary
