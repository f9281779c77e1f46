"""What the commands say of the sandbox: nothing where there is one, one line where there is none."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import FakeCdk, FakeCloud, Result, both, ports

from modelstacks.adapters.sandbox import Sandbox, choose, wish
from modelstacks.cli.console.terminal import Terminal
from modelstacks.cli.context import CommandContext
from modelstacks.cli.main import main

THERE = Sandbox("landlock", abi=7, filters=True)
NONE = Sandbox("none", lacking="bubblewrap: bwrap is not installed; landlock: the kernel has no Landlock")
WARNING = "warning: models run without a sandbox on this machine (bubblewrap: bwrap is not installed; "

Cli = Callable[..., Result]


@pytest.fixture
def cli_with(project: Path) -> Callable[[Callable[[], Sandbox]], Cli]:
    def with_(sandbox: Callable[[], Sandbox]) -> Cli:
        def run(*arguments: str) -> Result:
            out, err = io.StringIO(), io.StringIO()
            context = CommandContext(
                project=project,
                terminal=Terminal(out, err),
                open_cloud=lambda: FakeCloud(both()),
                open_cdk=lambda _: FakeCdk(),
                open_ports=ports,
                open_sandbox=sandbox,
            )
            return Result(main(arguments, context), out.getvalue(), err.getvalue())

        return run

    return with_


@pytest.mark.parametrize("command", [("lock",), ("up", "churn", "--detach")])
def test_a_machine_without_a_sandbox_is_told_so_in_one_line(cli_with, command: tuple[str, ...]) -> None:
    ran = cli_with(lambda: NONE)(*command)
    assert ran.code == 0, ran.err
    (line,) = [line for line in ran.err.splitlines() if "sandbox" in line]
    assert line.startswith(WARNING)
    assert "fix: install bubblewrap" in line


@pytest.mark.parametrize("command", [("lock",), ("up", "churn", "--detach")])
def test_a_machine_with_one_is_told_nothing(cli_with, command: tuple[str, ...]) -> None:
    ran = cli_with(lambda: THERE)(*command)
    assert ran.code == 0, ran.err
    assert "sandbox" not in ran.err


def test_doctor_names_the_mechanism(cli_with) -> None:
    (check,) = [
        one
        for one in cli_with(lambda: THERE)("doctor", "--json").json()["checks"]
        if one["name"] == "sandbox"
    ]
    assert (check["state"], check["found"]) == ("ok", "Landlock ABI 7 and seccomp")


def test_doctor_warns_where_there_is_none(cli_with) -> None:
    (check,) = [
        one for one in cli_with(lambda: NONE)("doctor", "--json").json()["checks"] if one["name"] == "sandbox"
    ]
    assert check["state"] == "warning"
    assert "bwrap is not installed" in check["found"]
    assert "install bubblewrap" in check["fix"]


@pytest.mark.parametrize("command", [("lock",), ("up", "churn", "--detach")])
def test_a_required_sandbox_that_is_missing_stops_the_command(
    cli_with, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSTACKS_SANDBOX", "bubblewrap")
    monkeypatch.setenv("PATH", "/nowhere")
    choose.cache_clear()
    ran = cli_with(lambda: choose(wish()))(*command)
    choose.cache_clear()
    assert ran.code == 4
    assert "MODELSTACKS_SANDBOX is bubblewrap, and this machine has no such sandbox" in ran.err
    assert "bwrap is not installed" in ran.err


def test_a_word_that_names_no_sandbox_is_refused(cli_with, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSTACKS_SANDBOX", "yes")
    ran = cli_with(lambda: choose(wish()))("lock")
    assert ran.code == 2
    assert "got yes; allowed: auto, require, bubblewrap, landlock, none" in ran.err
