"""What the commands work with: doors to the embedded cloud and to the CDK CLI, and who stands behind them.

`Bench` is what the composition root makes: `Bench.real()` for people; tests put doors of their own into it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from modelstacks.cli.console.terminal import Terminal
from modelstacks.cli.project import find_project
from modelstacks.core.errors import EnvironmentFault

if TYPE_CHECKING:
    from modelstacks.adapters.sandbox import Sandbox
    from modelstacks.cloud.api import LogLine, Status
    from modelstacks.core.leftovers import Leftover
    from modelstacks.core.ports import Ports

__all__ = ["Bench", "Cdk", "Cloud", "CloudSession", "missing_package"]


class CloudSession(Protocol):
    """A connection to the embedded cloud of one project (modelstacks.cloud.client.Session)."""

    started: bool

    def status(self) -> Status: ...
    def reconcile(self, *, timeout: float = 300) -> Iterator[Status]: ...
    def logs(
        self, *, workload: str | None = None, replica: str | None = None, tail: int = 100
    ) -> list[LogLine]: ...
    def follow_logs(
        self, *, workload: str | None = None, replica: str | None = None
    ) -> Iterator[LogLine]: ...
    def shutdown(self, *, timeout: float = 30) -> None: ...
    def close(self) -> None: ...


class Cloud(Protocol):
    """The embedded cloud's door: the module modelstacks.cloud.client."""

    def start(
        self, project: Path, *, port: int | None = None, cancelled: threading.Event | None = None
    ) -> CloudSession: ...
    def attach(self, project: Path) -> CloudSession | None: ...
    def clean(self, project: Path) -> tuple[int, ...]: ...


T = TypeVar("T")

Event = Callable[[str], None]
"""Told how far a long piece of work is, in a few words."""


class Cdk(Protocol):
    """The CDK CLI of this project (modelstacks.cli.toolchain.CdkCli). Every failure is a ModelstacksError."""

    def node(self) -> str:
        """The Node that runs it, version and place."""

    def cli(self) -> str:
        """The CDK CLI itself, version and place."""

    def synth(self, context: Mapping[str, str], output: Path, note: Event) -> Sequence[str]:
        """Write the cloud assembly of the app to `output`; the names of its stacks."""

    def environment(self, status: Status) -> Mapping[str, str]:
        """The variables with which the CDK CLI, and any AWS SDK, talk to the embedded account."""

    def bootstrap(self, status: Status, note: Event) -> None:
        """Bootstrap the embedded account."""

    def deploy(self, assembly: Path, status: Status, note: Event) -> None:
        """Deploy an assembly's stacks into the embedded account. Raises DeploymentFailed with the reason."""

    def destroy(self, assembly: Path, status: Status, stacks: Sequence[str], note: Event) -> None:
        """Delete stacks of the embedded account. Raises DeploymentFailed with the reason."""

    def prepare(self, images: Sequence[Mapping[str, str]], note: Event) -> None:
        """Have the serving images with these build arguments installed, as `docker build` would."""

    def deploy_into_aws(self, arguments: Sequence[str]) -> int:
        """`cdk deploy` with the caller's own environment, on the caller's own terminal; its exit code."""

    def destroy_in_aws(self, arguments: Sequence[str]) -> int:
        """`cdk destroy` with the caller's own environment, on the caller's own terminal; its exit code."""

    def deployed_in_aws(self, stacks: Sequence[str], region: str | None) -> Sequence[str]:
        """Those of the stacks that the caller's AWS account has. Raises EnvironmentFault with the reason."""

    def leftovers_in_aws(self, stack: str, region: str | None) -> Sequence[Leftover]:
        """What deleting a stack will leave in the caller's AWS account. Raises EnvironmentFault."""

    def stop(self) -> None:
        """End every program that runs for a call above; those calls then fail. For Ctrl-C."""


@dataclass
class Bench:
    """A command's surroundings. The doors are opened when they are first used."""

    project: Path
    terminal: Terminal
    open_cloud: Callable[[], Cloud]
    open_cdk: Callable[[Path], Cdk]
    open_ports: Callable[[Path], Ports]
    debug: bool = False
    open_sandbox: Callable[[], Sandbox] = field(default=lambda: _real_sandbox())
    cdk_arguments: tuple[str, ...] = ()  # what stood behind `--` on the command line of `deploy`
    _opened: dict[str, object] = field(default_factory=dict)
    _opening: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def real(cls) -> Self:
        """The doors that lead outside."""
        return cls(
            project=find_project(Path.cwd()),
            terminal=Terminal(),
            open_cloud=_real_cloud,
            open_cdk=_real_cdk,
            open_ports=_real_ports,
            debug=os.environ.get("MODELSTACKS_DEBUG", "") not in ("", "0"),
        )

    @property
    def cloud(self) -> Cloud:
        """The embedded cloud's door."""
        return self._open("cloud", self.open_cloud)

    @property
    def cdk(self) -> Cdk:
        """The CDK CLI's door."""
        return self._open("cdk", partial(self.open_cdk, self.project))

    @property
    def ports(self) -> Ports:
        """The doors of `lock` and `package`."""
        return self._open("ports", partial(self.open_ports, self.project))

    @property
    def sandbox(self) -> Sandbox:
        """What models run in. Raises EnvironmentFault where MODELSTACKS_SANDBOX wants what there is not."""
        return self._open("sandbox", self.open_sandbox)

    def warn_without_sandbox(self) -> None:
        """One line where models would run with the user's own rights."""
        if self.sandbox.warning:
            self.terminal.say(f"warning: {self.sandbox.warning}")

    def _open(self, name: str, door: Callable[[], T]) -> T:
        with self._opening:  # `up` comes here from several threads, which must meet behind the same door
            if name not in self._opened:
                try:
                    self._opened[name] = door()
                except ModuleNotFoundError as error:
                    raise missing_package(error) from error
        return self._opened[name]  # type: ignore[return-value]


def _real_sandbox() -> Sandbox:
    from modelstacks.adapters.sandbox import choose, wish

    return choose(wish())


def missing_package(error: ModuleNotFoundError) -> EnvironmentFault:
    """What a base install lacks. Raises the error itself for a module of our own, which is a defect."""
    if error.name is None or error.name.partition(".")[0] == "modelstacks":
        raise error
    return EnvironmentFault(
        f"this command needs the Python package that has {error.name}, which is not installed",
        fix='pip install "modelstacks[synth,lock,cloud]", or make setup in a checkout',
    )


def _real_cloud() -> Cloud:
    from modelstacks.cloud import client

    return client


def _real_cdk(project: Path) -> Cdk:
    from modelstacks.cli.toolchain import CdkCli

    return CdkCli(project)


def _real_ports(project: Path) -> Ports:
    from modelstacks.cli.ports import real_ports

    return real_ports(project)
