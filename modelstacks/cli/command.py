"""A command's declaration, and the discovery of the commands in `modelstacks/cli/commands/`.

Each file of that folder declares one command as `COMMAND`; the file's name is the command's name. All of
them are imported for `modelstacks --help`, so they import typer and the standard library at module level, and
everything else inside their functions.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from modelstacks.cli import commands

__all__ = ["Command", "CommandGroup", "Section", "command_names", "load"]


class Section(Enum):
    """The headings of `modelstacks --help`, in their order."""

    START = "Start"
    MODELS = "Specs and locks"
    HERE = "On this machine"
    AWS = "AWS"
    CHECKS = "Checks"
    HIDDEN = "not listed"


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        run: its typer function: the parameters are the options, the docstring is the help. It returns the
            exit code, or None for 0.
        section: the heading it is listed under.
        order: its position there.
        examples: complete command lines, shown at the end of its help.
        passes_on: whether the arguments after `--` go to the CDK CLI.
    """

    run: Callable[..., int | None]
    section: Section
    order: int = 100
    examples: tuple[str, ...] = ()
    passes_on: bool = False

    @property
    def summary(self) -> str:
        """The first line of the function's docstring, for the list of commands."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]


def command_names() -> list[str]:
    """Return the names of all commands, in the order of the files' names."""
    return [_command_name(module.name) for module in pkgutil.iter_modules(commands.__path__)]


@cache
def load(name: str) -> Command:
    """Import the file of a command and return its declaration."""
    module = import_module(f"{commands.__name__}.{name.replace('-', '_')}")
    declared: Command = module.COMMAND
    return declared


def _command_name(module: str) -> str:
    return module.replace("_", "-")


class CommandGroup(TyperGroup):
    """The commands of the folder, each imported only when it is run or listed."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Return the names of all commands, by section and order."""
        return [name for name, _ in _sorted(command_names())]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """Return one command, or None for an unknown name."""
        return _built(cmd_name) if cmd_name in command_names() else None

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write the commands of each section under its heading, all with the same column widths."""
        listed = _sorted(command_names())
        width = max(len(name) for name, _ in listed)
        for section in Section:
            rows = [
                (name.ljust(width), command.summary)
                for name, command in listed
                if command.section is section and section is not Section.HIDDEN
            ]
            if rows:
                with formatter.section(section.value):
                    formatter.write_dl(rows)


def _sorted(names: Iterable[str]) -> list[tuple[str, Command]]:
    sections = list(Section)
    return sorted(
        ((name, load(name)) for name in names),
        key=lambda one: (sections.index(one[1].section), one[1].order, one[0]),
    )


@cache
def _built(name: str) -> Any:
    """Return the declaration as the command object that typer runs."""
    command = load(name)
    single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    single.command(name, hidden=command.section is Section.HIDDEN, epilog=_epilog(command))(command.run)
    return typer.main.get_command(single)


def _epilog(command: Command) -> str | None:
    """Return the examples as a block that typer does not wrap."""
    if not command.examples:
        return None
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in command.examples)
