"""Writes data to stdout and messages to stderr, in colour only on a terminal that allows it.

rich is imported for the first table, so that `--help`, `validate` and every `--json` do not need it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

from modelstacks.core.errors import ModelstacksError, SpecInvalid

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

__all__ = ["Terminal", "is_interactive", "one_line"]


#: Columns of a pipe, which has no width of its own; folded lines could not be searched.
PIPE_WIDTH = 400


def is_interactive(stream: TextIO) -> bool:
    """Return whether this stream is a terminal that can be redrawn."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def one_line(error: BaseException) -> str:
    """Return an unexpected exception as one line: its type and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


class Terminal:
    """The two streams of a command."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.out = out if out is not None else sys.stdout
        self.err = err if err is not None else sys.stderr

    # data --------------------------------------------------------------------------------------

    def data(self, text: str) -> None:
        """Write one or several lines of the requested data to stdout."""
        self.out.write(text + "\n")
        self.out.flush()

    def binary(self, content: bytes) -> None:
        """Write bytes unchanged to stdout; on a terminal, write only their number to stderr."""
        if self.out.isatty():
            self.say(f"{len(content)} bytes of binary data; redirect stdout to keep them")
            return
        self.out.flush()
        self.out.buffer.write(content)
        self.out.flush()

    def json(self, value: BaseModel | dict[str, Any] | list[Any]) -> None:
        """Write a report as one JSON document."""
        dump = getattr(value, "model_dump", None)
        self.data(json.dumps(dump(mode="json") if dump else value, indent=2))

    # messages ----------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Write a message to stderr."""
        self.err.write(text + "\n")
        self.err.flush()

    def error(self, error: ModelstacksError) -> None:
        """Write a failure: one line per fault of a spec, one line for anything else."""
        if isinstance(error, SpecInvalid):
            for fault in error.faults:
                self.say(str(fault))
            count = len(error.faults)
            self.fault(f"{count} fault{'s' * (count != 1)} in the spec")
        else:
            self.fault(str(error))

    def fault(self, text: str) -> None:
        """Write one line that begins with the command's name, in red on a terminal."""
        if is_interactive(self.err) and not os.environ.get("NO_COLOR"):
            self.say(f"\x1b[31mmodelstacks:\x1b[0m {text}")
        else:
            self.say(f"modelstacks: {text}")

    # rich --------------------------------------------------------------------------------------

    @cached_property
    def console(self) -> Console:
        """Return rich's console on stdout; lines are not folded when it is not a terminal."""
        return _console(self.out)

    @cached_property
    def messages(self) -> Console:
        """Return rich's console on stderr."""
        return _console(self.err)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
        """Write a compact table: a header, no frame, columns as wide as their widest cell."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, show_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text.from_markup(cell) for cell in row))
        if self.out.isatty():
            self.console.print(table)
            return
        # Trailing spaces are removed for a pipe.
        with self.console.capture() as drawn:
            self.console.print(table)
        self.data("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    # rich itself would keep bold and dim.
    plain = bool(os.environ.get("NO_COLOR"))
    return Console(
        file=stream,
        highlight=False,
        color_system=None if plain else "auto",
        width=None if stream.isatty() else PIPE_WIDTH,
    )
