"""What every command receives: the project's folder, the terminal, and access to everything outside.

`modelstacks.cli.composition` makes the real one; tests make one with implementations of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from modelstacks.cli.console.terminal import Terminal
from modelstacks.core.errors import EnvironmentFault

if TYPE_CHECKING:
    from modelstacks.adapters.sandbox import Sandbox
    from modelstacks.cli.interfaces import Cdk, Cloud
    from modelstacks.core.ports import Ports

__all__ = ["CommandContext", "missing_package"]

T = TypeVar("T")


@dataclass
class CommandContext:
    """The surroundings of one run of a command. Each `open_...` function is called on first use.

    Args:
        cdk_arguments: what followed `--` on the command line, for commands that pass it to the CDK CLI.
    """

    project: Path
    terminal: Terminal
    open_cloud: Callable[[], Cloud]
    open_cdk: Callable[[Path], Cdk]
    open_ports: Callable[[Path], Ports]
    open_sandbox: Callable[[], Sandbox]
    debug: bool = False
    cdk_arguments: tuple[str, ...] = ()
    _opened: dict[str, object] = field(default_factory=dict)
    _opening: threading.Lock = field(default_factory=threading.Lock)

    @property
    def cloud(self) -> Cloud:
        """The embedded cloud."""
        return self._open("cloud", self.open_cloud)

    @property
    def cdk(self) -> Cdk:
        """The CDK CLI of the project."""
        return self._open("cdk", partial(self.open_cdk, self.project))

    @property
    def ports(self) -> Ports:
        """What `lock` and `package` reach outside: hubs, S3, secrets, the engines."""
        return self._open("ports", partial(self.open_ports, self.project))

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox that models run in. Raises EnvironmentFault if MODELSTACKS_SANDBOX cannot be met."""
        return self._open("sandbox", self.open_sandbox)

    def warn_without_sandbox(self) -> None:
        """Print one line if models would run with the user's own rights."""
        if self.sandbox.warning:
            self.terminal.say(f"warning: {self.sandbox.warning}")

    def _open(self, name: str, opener: Callable[[], T]) -> T:
        # `up` calls this from several threads, which must all get the same object.
        with self._opening:
            if name not in self._opened:
                try:
                    self._opened[name] = opener()
                except ModuleNotFoundError as error:
                    raise missing_package(error) from error
        return self._opened[name]  # type: ignore[return-value]


def missing_package(error: ModuleNotFoundError) -> EnvironmentFault:
    """Name the package that a base install lacks. A missing module of our own is a defect and is raised."""
    if error.name is None or error.name.partition(".")[0] == "modelstacks":
        raise error
    return EnvironmentFault(
        f"this command needs the Python package that has {error.name}, which is not installed",
        fix='pip install "modelstacks[synth,lock,cloud]", or make setup in a checkout',
    )
