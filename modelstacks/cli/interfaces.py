"""What the commands expect of the embedded cloud and of the CDK CLI; tests implement these in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from modelstacks.cloud.api import LogLine, Status
    from modelstacks.core.leftovers import Leftover

__all__ = ["Cdk", "Cloud", "CloudSession", "Event"]

Event = Callable[[str], None]
"""Called with a few words about the progress of a long operation."""


class CloudSession(Protocol):
    """A connection to the embedded cloud of one project (modelstacks.cloud.client.Session)."""

    started: bool

    @property
    def alive(self) -> bool: ...
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
    """Starts, finds and cleans up the embedded cloud of a project (the module modelstacks.cloud.client)."""

    def start(
        self, project: Path, *, port: int | None = None, cancelled: threading.Event | None = None
    ) -> CloudSession: ...
    def attach(self, project: Path) -> CloudSession | None: ...
    def clean(self, project: Path) -> tuple[int, ...]: ...


class Cdk(Protocol):
    """The CDK CLI of one project (modelstacks.cli.toolchain.CdkCli). Every failure is a ModelstacksError."""

    def node(self) -> str:
        """Return the version and path of the Node that runs the CLI."""

    def cli(self) -> str:
        """Return the version and path of the CDK CLI."""

    def install(self) -> str:
        """Install the CDK CLI that the project pins, and return its version and path."""

    def synth(self, context: Mapping[str, str], output: Path, note: Event) -> Sequence[str]:
        """Write the app's cloud assembly to `output` and return the names of its stacks."""

    def environment(self, status: Status) -> Mapping[str, str]:
        """Return the variables that direct the CDK CLI, and any AWS SDK, to the embedded account."""

    def bootstrap(self, status: Status, note: Event) -> None:
        """Bootstrap the embedded account."""

    def deploy(self, assembly: Path, status: Status, note: Event) -> None:
        """Deploy an assembly's stacks into the embedded account. Raises DeploymentFailed with the reason."""

    def destroy(self, assembly: Path, status: Status, stacks: Sequence[str], note: Event) -> None:
        """Delete stacks of the embedded account. Raises DeploymentFailed with the reason."""

    def prepare(self, images: Sequence[Mapping[str, str]], note: Event) -> None:
        """Install the serving images with these build arguments, as `docker build` would."""

    def image_builder(self) -> str:
        """Return what builds images for AWS. Raises EnvironmentFault if SageMaker would refuse them."""

    def deploy_into_aws(self, arguments: Sequence[str], *, builds_images: bool) -> int:
        """Run `cdk deploy` with the caller's environment and terminal; return its exit code."""

    def destroy_in_aws(self, arguments: Sequence[str]) -> int:
        """Run `cdk destroy` with the caller's environment and terminal; return its exit code."""

    def deployed_in_aws(self, stacks: Sequence[str], region: str | None) -> Sequence[str]:
        """Return those of the stacks that exist in the caller's account. Raises EnvironmentFault."""

    def leftovers_in_aws(self, stack: str, region: str | None) -> Sequence[Leftover]:
        """List what deleting a stack leaves in the caller's account. Raises EnvironmentFault."""

    def stop(self) -> None:
        """End every program that runs for a call above; those calls then fail. Used on Ctrl-C."""
