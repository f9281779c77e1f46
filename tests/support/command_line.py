"""The embedded cloud and the CDK CLI in memory, for the commands to use, and statuses to report."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelstacks.adapters.sandbox import Sandbox, choose, wish
from modelstacks.cli.interfaces import Event
from modelstacks.cloud.api import (
    Api,
    ApiKey,
    ApiRoute,
    Credentials,
    LogLine,
    Replica,
    Stack,
    Status,
    Workload,
)
from modelstacks.core.errors import EnvironmentFault
from modelstacks.core.leftovers import Leftover
from modelstacks.core.ports import Inspection, ObjectVersion, Ports
from modelstacks.core.signature import Signature, Tensor

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = ("self-hosted", "managed")


@dataclass
class Result:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    def json(self) -> dict:
        return json.loads(self.out)


class FakeSession:
    """A daemon whose status is whatever the test says."""

    def __init__(self, cloud: FakeCloud, *, started: bool) -> None:
        self.cloud, self.started = cloud, started

    @property
    def alive(self) -> bool:
        return self.cloud.running

    def status(self) -> Status:
        self.cloud.asked += 1
        if self.cloud.on_status is not None:
            self.cloud.on_status(self.cloud)
        return self.cloud.current

    def reconcile(self, *, timeout: float = 300) -> Iterator[Status]:
        yield self.cloud.current

    def logs(
        self, *, workload: str | None = None, replica: str | None = None, tail: int = 100
    ) -> list[LogLine]:
        lines = [line for group, line in self.cloud.log_lines if group == workload]
        return [line for line in lines if replica in (None, line.stream)][-tail:]

    def follow_logs(self, *, workload: str | None = None, replica: str | None = None) -> Iterator[LogLine]:
        yield from self.cloud.followed

    def shutdown(self, *, timeout: float = 30) -> None:
        self.cloud.running = False
        self.cloud.shutdowns += 1

    def close(self) -> None:
        pass


@dataclass
class FakeCloud:
    """An embedded cloud in memory."""

    current: Status
    running: bool = False
    shutdowns: int = 0
    asked: int = 0
    leftovers: tuple[int, ...] = ()
    refuses: Exception | None = None
    never_starts: bool = False  # until it is cancelled
    starting: threading.Event = field(default_factory=threading.Event)
    on_status: Callable[[FakeCloud], None] | None = None
    log_lines: list[tuple[str, LogLine]] = field(default_factory=list)
    followed: list[LogLine] = field(default_factory=list)
    ports: list[int | None] = field(default_factory=list)

    def start(
        self, project: Path, *, port: int | None = None, cancelled: threading.Event | None = None
    ) -> FakeSession:
        if self.refuses:
            raise self.refuses
        if self.never_starts:
            assert cancelled is not None
            self.starting.set()
            assert cancelled.wait(30)
            raise EnvironmentFault("the start of the embedded cloud was cancelled")
        self.ports.append(port)
        started, self.running = not self.running, True
        return FakeSession(self, started=started)

    def attach(self, project: Path) -> FakeSession | None:
        if self.refuses:
            raise self.refuses
        return FakeSession(self, started=False) if self.running else None

    def clean(self, project: Path) -> tuple[int, ...]:
        return self.leftovers


@dataclass
class FakeCdk:
    """A CDK CLI that records its calls, and fails those that the test names."""

    calls: list[str] = field(default_factory=list)
    contexts: list[dict[str, str]] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    fails: dict[str, BaseException] = field(default_factory=dict)
    exit_code: int = 0
    prepared: list[dict[str, str]] = field(default_factory=list)
    in_aws: tuple[str, ...] = ()  # the stacks of the caller's AWS account
    stopped: bool = False

    def _do(self, call: str) -> None:
        self.calls.append(call)
        if call in self.fails:
            raise self.fails[call]

    def node(self) -> str:
        self._do("node")
        return "v24.19.0 at /node"

    def cli(self) -> str:
        self._do("cli")
        return "2.1148.1 at /cdk"

    def install(self) -> str:
        self._do("install")
        return "2.1148.1 at /cdk"

    def synth(self, context: Mapping[str, str], output: Path, note: Event) -> Sequence[str]:
        self.contexts.append(dict(context))
        self._do("synth")
        return ["churn-self-hosted"]

    def environment(self, status: Status) -> Mapping[str, str]:
        return {"AWS_ENDPOINT_URL": status.endpoint_url, "AWS_SECRET_ACCESS_KEY": "it's"}

    def bootstrap(self, status: Status, note: Event) -> None:
        self._do("bootstrap")

    def deploy(self, assembly: Path, status: Status, note: Event) -> None:
        self._do("deploy")

    def prepare(self, images: Sequence[Mapping[str, str]], note: Event) -> None:
        self.prepared = [dict(arguments) for arguments in images]
        self._do("prepare")

    def image_builder(self) -> str:
        if "image_builder" in self.fails:
            raise self.fails["image_builder"]
        return "docker 29.1.2 (/docker)"

    def deploy_into_aws(self, arguments: Sequence[str], *, builds_images: bool) -> int:
        self._do("deploy_into_aws")
        self.arguments = list(arguments)
        return self.exit_code

    def destroy(self, assembly: Path, status: Status, stacks: Sequence[str], note: Event) -> None:
        self._do("destroy")
        self.arguments = list(stacks)

    def destroy_in_aws(self, arguments: Sequence[str]) -> int:
        self._do("destroy_in_aws")
        self.arguments = list(arguments)
        return self.exit_code

    def deployed_in_aws(self, stacks: Sequence[str], region: str | None) -> Sequence[str]:
        self._do("deployed_in_aws")
        return [stack for stack in stacks if stack in self.in_aws]

    def leftovers_in_aws(self, stack: str, region: str | None) -> Sequence[Leftover]:
        self._do("leftovers_in_aws")
        return [Leftover("Key", "KMS key k-1", "deleted 30 days later")]

    def stop(self) -> None:
        self.stopped = True


class Nothing:
    """A hub, a bucket, a scanner, a catalogue with nothing in them; an inspector that believes the file."""

    def list(self, bucket: str, prefix: str) -> Sequence[ObjectVersion]:
        return ()

    def serving_images(self, framework: str, version: str) -> Mapping[str, str]:
        return {}

    def scan(self, directory: Path, paths: Sequence[str]) -> Sequence[str]:
        return ()

    def inspect(
        self, directory: Path, engine: str, *, image: Mapping[str, str], trust_code: bool
    ) -> Inspection:
        return Inspection(
            engine=engine,
            framework=engine,
            framework_version="3.1.0",
            task="classification",
            signature=Signature(
                inputs=(Tensor(name="input", datatype="FP32", shape=(-1, 3)),),
                outputs=(Tensor(name="probabilities", datatype="FP32", shape=(-1, 2)),),
            ),
        )


def ports(_: Path) -> Ports:
    nothing = Nothing()
    return Ports(
        hub=nothing, objects=nothing, secrets=nothing, images=nothing, inspector=nothing, scanner=nothing
    )


def sandbox() -> Sandbox:
    """Return what models run in on this machine."""
    return choose(wish())


def status_of(*stacks: Stack, apis: Sequence[Api] = (), workloads: Sequence[Workload] = ()) -> Status:
    return Status(
        project="/project",
        pid=1,
        started_at="2026-01-01T00:00:00Z",
        endpoint_url="http://localhost:4566",
        region="us-east-1",
        account="123456789012",
        credentials=Credentials(access_key_id="AKIA", secret_access_key="secret"),
        settled=True,
        stacks=stacks,
        apis=tuple(apis),
        workloads=tuple(workloads),
    )


def api(name: str, url: str = "http://127.0.0.1:1/live", authorization: str = "API_KEY") -> Api:
    return Api(
        id=f"id-{name}",
        name=name,
        stack=name,
        stage="live",
        url=url,
        api_keys=(ApiKey(id="k", name="key", value="the-key"),) if authorization == "API_KEY" else (),
        routes=(
            ApiRoute(method="POST", path="/invocations", authorization=authorization, target="load balancer"),
        ),
    )


def replica(name: str, state: str = "healthy", reason: str | None = None) -> Replica:
    return Replica(
        id=name,
        pid=4711,
        state=state,
        port=50001,
        container_port=8080,
        log_group="/ecs/churn",
        log_stream=name,
        log_path=f"/logs/{name}.log",
        reason=reason,
    )


def workload(
    stack: str,
    *replicas: Replica,
    state: str = "stable",
    reason: str | None = None,
    died: tuple[Replica, ...] = (),
) -> Workload:
    kind = "ecs-service" if stack.endswith("self-hosted") else "sagemaker-endpoint"
    return Workload(
        kind=kind,
        name=f"{stack}-workload",
        stack=stack,
        desired=len(replicas),
        state=state,
        reason=reason,
        replicas=replicas,
        died=died,
    )


def both(url: str = "http://127.0.0.1:1/live") -> Status:
    """churn as both architectures, every replica healthy."""
    names = [f"churn-{architecture}" for architecture in ARCHITECTURES]
    return status_of(
        *(Stack(name=name, status="CREATE_COMPLETE", outputs={}) for name in names),
        apis=[api(name, url) for name in names],
        workloads=[workload(name, replica(f"{name}-1"), replica(f"{name}-2")) for name in names],
    )


@dataclass
class Server:
    """A deployed API as a caller sees it: answers what the test says, keeps what it was sent."""

    url: str
    answer: tuple[int, str, bytes] = (200, "application/json", b'{"predictions": [[0.25, 0.75]]}')
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


def stopped_answering() -> EnvironmentFault:
    return EnvironmentFault("the embedded cloud stopped answering: its daemon was killed or crashed")
