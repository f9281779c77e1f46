"""The CDK CLI for the commands: directed to the embedded account and the stand-in for docker."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelstacks.adapters.cdk_events import ResourceEvent
from modelstacks.adapters.cdk_programs import install_cli
from modelstacks.adapters.cdk_toolchain import CdkToolchain, EmulatedAccount, stack_names
from modelstacks.adapters.image_builder import find_image_builder
from modelstacks.cli.ports import image_store
from modelstacks.cli.synthesis import fingerprint, forget, recall, remember
from modelstacks.cloud.host.docker import write_launcher
from modelstacks.core import bundle

if TYPE_CHECKING:
    from modelstacks.cli.interfaces import Event
    from modelstacks.cloud.api import Status
    from modelstacks.core.leftovers import Leftover

__all__ = ["CdkCli", "by_stack"]


class CdkCli:
    """Implements `modelstacks.cli.interfaces.Cdk`."""

    def __init__(self, project: Path) -> None:
        self._project = project
        self._images = image_store(project)
        state = project / ".modelstacks"
        self._toolchain = CdkToolchain(
            project=project, state=state, docker=state / "bin" / "docker", images=self._images.root
        )

    def node(self) -> str:
        return str(self._toolchain.node())

    def cli(self) -> str:
        return str(self._toolchain.cli())

    def install(self) -> str:
        return str(install_cli(self._project))

    def synth(self, context: Mapping[str, str], output: Path, note: Event) -> Sequence[str]:
        inputs = fingerprint(self._project, context)
        if recall(output, inputs):
            note("unchanged")
            return stack_names(output)
        forget(output)
        stacks = self._toolchain.synth(context, output, note)
        remember(output, inputs)
        return stacks

    def environment(self, status: Status) -> Mapping[str, str]:
        write_launcher(self._toolchain.docker)
        return self._toolchain.environment(_account(status))

    def bootstrap(self, status: Status, note: Event) -> None:
        self._toolchain.bootstrap(_account(status), note)

    def deploy(self, assembly: Path, status: Status, note: Event) -> None:
        write_launcher(self._toolchain.docker)
        self._toolchain.deploy(assembly, _account(status), lambda _: None, on_event=by_stack(note))

    def destroy(self, assembly: Path, status: Status, stacks: Sequence[str], note: Event) -> None:
        self._toolchain.destroy(assembly, _account(status), note, stacks=stacks)

    def prepare(self, images: Sequence[Mapping[str, str]], note: Event) -> None:
        for arguments in images:
            self._images.build(bundle.serving(), arguments, note=note)

    def image_builder(self) -> str:
        return str(find_image_builder(os.environ))

    def deploy_into_aws(self, arguments: Sequence[str], *, builds_images: bool) -> int:
        variables: dict[str, str] = {}
        if builds_images:
            variables = find_image_builder(os.environ).environment(self._toolchain.state)
        return self._toolchain.run_in_aws("deploy", arguments, variables)

    def destroy_in_aws(self, arguments: Sequence[str]) -> int:
        return self._toolchain.run_in_aws("destroy", arguments)

    def deployed_in_aws(self, stacks: Sequence[str], region: str | None) -> Sequence[str]:
        from modelstacks.adapters.aws_account import AwsAccount

        return AwsAccount(region).stacks(stacks)

    def leftovers_in_aws(self, stack: str, region: str | None) -> Sequence[Leftover]:
        from modelstacks.adapters.aws_account import AwsAccount

        return AwsAccount(region).leftovers(stack)

    def stop(self) -> None:
        self._toolchain.stop()


def by_stack(note: Event) -> Callable[[ResourceEvent], None]:
    """Return a callback that notes each stack's progress and current resource on every event."""
    latest: dict[str, str] = {}

    def tell(event: ResourceEvent) -> None:
        count = f" {event.done}/{event.total}" if event.total else ""
        latest[event.stack] = f"{event.stack}{count} {event.type}"
        note(", ".join(latest.values()))

    return tell


def _account(status: Status) -> EmulatedAccount:
    return EmulatedAccount(
        endpoint=status.endpoint_url,
        access_key_id=status.credentials.access_key_id,
        secret_access_key=status.credentials.secret_access_key,
        account=status.account,
        region=status.region,
    )
