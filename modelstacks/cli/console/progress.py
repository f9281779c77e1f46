"""Shows the steps of a long command: redrawn in place on a terminal, plain lines elsewhere.

Steps run side by side in threads, so everything here can be called from any thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

from modelstacks.cli.console.terminal import Terminal, is_interactive

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.table import Table

__all__ = ["Progress", "Step"]

#: How often a long step reports its progress when stderr is not a terminal.
PLAIN_SECONDS = 5.0


@dataclass
class Step:
    """One step of a command."""

    title: str
    _view: _View = field(repr=False)
    started: float = field(default_factory=time.perf_counter)
    ended: float | None = None
    state: Literal["running", "done", "failed"] = "running"
    text: str = ""
    said: float = field(default_factory=time.perf_counter)

    def note(self, text: str) -> None:
        """Set the text that describes its progress."""
        if text != self.text:
            self.text = text
            self._view.changed(self)

    def result(self, text: str) -> None:
        """Set the text that describes its result; shown when the step ends."""
        self.text = text

    @property
    def seconds(self) -> float:
        """Its duration, until now if it is still running."""
        return (self.ended or time.perf_counter()) - self.started


class _View(Protocol):
    def changed(self, step: Step) -> None: ...


class Progress:
    """The steps of one command, shown on stderr.

    with Progress(terminal) as progress:
        with progress.step("synthesize") as step:
            step.note("2 stacks")
    """

    def __init__(self, terminal: Terminal) -> None:
        self.steps: list[Step] = []
        self._terminal = terminal
        self._lock = threading.Lock()
        self._live: Live | None = None

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a step while the block runs; the step fails if the block raises."""
        step = Step(title, self)
        with self._lock:
            self.steps.append(step)
        try:
            yield step
            step.state = "done"
        except BaseException:
            step.state = "failed"
            raise
        finally:
            step.ended = time.perf_counter()
            self.changed(step)

    def changed(self, step: Step) -> None:
        """Show a change. On a terminal, the next frame shows it."""
        if self._live is not None:
            return
        now = time.perf_counter()
        if step.state == "running" and now - step.said < PLAIN_SECONDS:
            return
        step.said = now
        mark = {"running": "...", "done": "ok", "failed": "failed"}[step.state]
        with self._lock:
            text = f": {step.text}" if step.text else ""
            self._terminal.say(f"{mark:<6} {step.title}{text} ({step.seconds:.1f} s)")

    @cached_property
    def _spinner(self) -> Spinner:
        from rich.spinner import Spinner

        return Spinner("dots", style="cyan")

    def __enter__(self) -> Self:
        if is_interactive(self._terminal.err):
            from rich.live import Live

            self._live = Live(
                console=self._terminal.messages, get_renderable=self._frame, refresh_per_second=10
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _frame(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        marks: dict[str, RenderableType] = {
            "running": self._spinner,
            "done": Text("✓", style="green"),
            "failed": Text("✗", style="red"),
        }
        table: Table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column()
        table.add_column(justify="right", style="dim")
        table.add_column(overflow="ellipsis", no_wrap=True, style="dim")
        with self._lock:
            steps = list(self.steps)
        for step in steps:
            table.add_row(marks[step.state], step.title, f"{step.seconds:.1f} s", Text(step.text))
        return table
