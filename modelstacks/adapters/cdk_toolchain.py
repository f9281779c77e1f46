"""The CDK CLI of a project: given its environment, run, and its output turned into events and errors.

Against the embedded cloud, the environment that every AWS SDK reads directs its calls there, so
`CdkToolchain.environment` is also what a person exports to run plain `cdk deploy --all`. Imports neither
aws_cdk nor moto.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from modelstacks.adapters.cdk_events import ASSET, ResourceEvent, failure, resource_event
from modelstacks.adapters.cdk_programs import Program, find_cli, find_node
from modelstacks.core.errors import DeploymentFailed, EnvironmentFault

__all__ = ["CdkToolchain", "EmulatedAccount", "stack_names"]

LOOPBACK = ("localhost", ".localhost", "127.0.0.1", "::1")
#: Stacks that are deployed side by side.
AT_ONCE = 4
_STOP_SECONDS = 5.0
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True, slots=True)
class EmulatedAccount:
    """An account of the embedded cloud, and the credentials to use there.

    The access key must be unique to this emulator: SDKs and the CDK CLI cache accounts by it.
    """

    endpoint: str  # http://localhost:PORT
    access_key_id: str
    secret_access_key: str
    account: str = "123456789012"
    region: str = "us-east-1"

    def environment(self, *, docker: Path, images: Path, cdk_home: Path) -> dict[str, str]:
        """Return the variables that direct the CDK CLI, or any AWS SDK, to this account."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            # The user's own profiles and credentials are not used, so a broken file must not matter.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            **without_proxy(os.environ),
            "CDK_DOCKER": str(docker),
            "CDK_HOME": str(cdk_home),  # account and notice caches: not the user's own
            "MODELSTACKS_IMAGES": str(images),
        }


@dataclass(slots=True)
class CdkToolchain:
    """The CDK CLI of one project.

    Args:
        project: the folder of cdk.json.
        state: the project's .modelstacks, which has the CLI's caches.
        docker: the program that builds images for the embedded cloud.
        images: where that program stores them.
    """

    project: Path
    state: Path
    docker: Path
    images: Path
    _running: set[subprocess.Popen[str]] = field(default_factory=set)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _node: Program | None = None

    # programs ----------------------------------------------------------------------------------

    def node(self) -> Program:
        """Return the Node to use. Raises EnvironmentFault if there is none that jsii supports."""
        if self._node is None:
            self._node = find_node()
        return self._node

    def cli(self) -> Program:
        """Return the CDK CLI to use. Raises EnvironmentFault if there is none that can read the assembly."""
        return find_cli(self.project)

    # commands ----------------------------------------------------------------------------------

    def synth(self, context: Mapping[str, str], output: Path, note: Callable[[str], None]) -> tuple[str, ...]:
        """Write the app's cloud assembly to `output`. Returns its stacks' names.

        Needs no network and no credentials. Raises DeploymentFailed with what the app said.
        """
        words = ["synth", "--quiet", "--output", str(output)]
        for name, value in context.items():
            words += ["--context", f"{name}={value}"]
        self._run("cdk synth", words, self.project, self._surroundings(), note)
        return stack_names(output)

    def bootstrap(self, account: EmulatedAccount, note: Callable[[str], None]) -> None:
        """Create the bucket, repository and roles that deployments use."""
        words = ["bootstrap", f"aws://{account.account}/{account.region}"]
        self.state.mkdir(parents=True, exist_ok=True)
        environment = self._surroundings() | self.environment(account)
        # Outside the project, where the CLI would find cdk.json and run the app first.
        self._run("cdk bootstrap", words, self.state, environment, note)

    def deploy(
        self,
        assembly: Path,
        account: EmulatedAccount,
        note: Callable[[str], None],
        *,
        on_event: Callable[[ResourceEvent], None] | None = None,
        stacks: Sequence[str] = (),
    ) -> None:
        """Deploy an assembly's stacks. Raises DeploymentFailed with CloudFormation's reason."""
        words = ["deploy", *(stacks or ["--all"]), "--app", str(assembly), "--require-approval", "never"]
        words += ["--method", "direct", "--progress", "events", "--asset-parallelism", "true"]
        words += ["--concurrency", str(AT_ONCE)]  # each stack waits for its replicas to start
        self._run_there("cdk deploy", words, account, note, on_event)

    def destroy(
        self,
        assembly: Path,
        account: EmulatedAccount,
        note: Callable[[str], None],
        *,
        on_event: Callable[[ResourceEvent], None] | None = None,
        stacks: Sequence[str] = (),
    ) -> None:
        """Delete an assembly's stacks. Raises DeploymentFailed with CloudFormation's reason."""
        words = ["destroy", *(stacks or ["--all"]), "--app", str(assembly), "--force"]
        self._run_there("cdk destroy", [*words, "--progress", "events"], account, note, on_event)

    def diff(self, assembly: Path, account: EmulatedAccount, note: Callable[[str], None]) -> str:
        """Return what a deploy of the assembly would change, as the CLI prints it."""
        words = ["diff", "--app", str(assembly), "--method", "template"]
        return "\n".join(self._run_there("cdk diff", words, account, note))

    def run_in_aws(
        self, command_name: str, arguments: Sequence[str], variables: Mapping[str, str] | None = None
    ) -> int:
        """Run `cdk deploy` or `cdk destroy` with the caller's environment and terminal; return its exit code.

        Args:
            variables: set in addition to the caller's.
        """
        command = [str(self.node().path), str(self.cli().path), command_name, *arguments]
        environment = {**os.environ, **self._quiet(), **(variables or {}), "PATH": self._path()}
        return subprocess.run(command, cwd=self.project, env=environment, check=False).returncode

    def environment(self, account: EmulatedAccount) -> dict[str, str]:
        """Return what a person exports to use the embedded account with plain `cdk` or `aws`."""
        there = account.environment(docker=self.docker, images=self.images, cdk_home=self.state / "cdk")
        return {**there, **self._quiet()}

    def stop(self) -> None:
        """End every running program; the calls that wait for them raise DeploymentFailed. Used on Ctrl-C."""
        self._stopped.set()
        for process in list(self._running):
            _end(process)

    # running -----------------------------------------------------------------------------------

    def _run_there(
        self,
        what: str,
        words: Sequence[str],
        account: EmulatedAccount,
        note: Callable[[str], None],
        on_event: Callable[[ResourceEvent], None] | None = None,
    ) -> list[str]:
        # In the project: the programs that make assets are named relative to it.
        environment = self._surroundings() | self.environment(account)
        return self._run(what, words, self.project, environment, note, on_event)

    def _run(
        self,
        what: str,
        words: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        note: Callable[[str], None],
        on_event: Callable[[ResourceEvent], None] | None = None,
    ) -> list[str]:
        """Run the CLI, report its output while it runs, and return the lines."""
        lines: list[str] = []
        failures: list[str] = []  # the first one is what all the others follow from
        command = [str(self.node().path), str(self.cli().path), *words, "--no-color", "--no-notices"]
        with self._started(command, directory, environment) as process:
            assert process.stdout is not None
            for raw in process.stdout:
                line = _ANSI.sub("", raw).rstrip()
                lines.append(line)
                if event := resource_event(line):
                    if event.failed:
                        failures.append(f"{event.stack}: {event.type} ({event.logical_id}): {event.reason}")
                    if on_event:
                        on_event(event)
                    note(str(event))
                elif asset := ASSET.match(line):
                    note(f"{asset['stack']} {asset['what']}")
                    if asset["step"] == "fail":
                        failures.append(f"{asset['stack']}: {asset['what']}")
            code = process.wait()
        if self._stopped.is_set():
            raise DeploymentFailed(f"{what} was stopped")
        if code:
            raise failure(what, code, failures, lines)
        return lines

    @contextmanager
    def _started(
        self, command: Sequence[str], directory: Path, environment: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[str]]:
        if self._stopped.is_set():
            raise DeploymentFailed("the CDK CLI was stopped")
        try:
            process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # so that its own children (the app, docker) can be ended with it
            )
        except OSError as error:
            raise EnvironmentFault(f"{command[0]} cannot be run: {error.strerror}") from None
        self._running.add(process)
        try:
            yield process
        finally:
            _end(process)
            self._running.discard(process)

    def _surroundings(self) -> dict[str, str]:
        """Return this process's environment without the variables that select an AWS endpoint or account."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_"))}
        return {**kept, **self._quiet(), "CDK_HOME": str(self.state / "cdk"), "PATH": self._path()}

    def _path(self) -> str:
        """Return PATH with this interpreter (cdk.json runs `python3`) and the chosen Node first."""
        # The interpreter's own path, not the link's target: that is how a virtual environment is activated.
        return os.pathsep.join(
            [
                str(Path(sys.executable).parent),
                str(self.node().path.parent),
                os.environ.get("PATH", os.defpath),
            ]
        )

    @staticmethod
    def _quiet() -> dict[str, str]:
        return {
            "CDK_DISABLE_CLI_TELEMETRY": "true",
            "CDK_DISABLE_VERSION_CHECK": "true",
            "CDK_NOTICES": "false",
            "CDK_VERSION_REPORTING": "false",
            "JSII_SILENCE_WARNING_DEPRECATED_NODE_VERSION": "1",
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1",
            "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
            "NO_COLOR": "1",
        }


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that exempt this machine from a proxy, in addition to the given exemptions."""
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = dict.fromkeys([*filter(None, given.split(",")), *LOOPBACK])
    return dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(names))


def stack_names(assembly: Path) -> tuple[str, ...]:
    """Return the names of an assembly's stacks, in manifest order. Raises DeploymentFailed without one."""
    try:
        artifacts = json.loads((assembly / "manifest.json").read_text()).get("artifacts", {})
    except (OSError, ValueError):
        raise DeploymentFailed(f"{assembly} contains no cloud assembly") from None
    return tuple(
        str(artifact.get("properties", {}).get("stackName", name))
        for name, artifact in artifacts.items()
        if artifact.get("type") == "aws:cloudformation:stack"
    )


def _end(process: subprocess.Popen[str]) -> None:
    """Send SIGTERM, then SIGKILL, to the program and its children, unless it has ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
