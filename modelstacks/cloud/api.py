"""What the embedded cloud's daemon says about itself: the admin API's messages, shared by daemon and client.

Every message is a frozen pydantic model; `model_dump_json()` is what `modelstacks status --json` prints.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Api",
    "ApiKey",
    "ApiRoute",
    "Credentials",
    "FailHealthChecks",
    "Fault",
    "HopTraffic",
    "KillReplica",
    "Latency",
    "LogLine",
    "PoisonDeploys",
    "Refusal",
    "Replica",
    "Settings",
    "Stack",
    "Status",
    "Unemulated",
    "Workload",
]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Credentials(_Message):
    """The embedded account's administrator: what the CDK CLI and any AWS SDK sign with."""

    access_key_id: str
    secret_access_key: str


class Unemulated(_Message):
    """A resource that was accepted and that nothing here acts upon, or `what` of it."""

    type: str  # "AWS::WAFv2::WebACL"
    logical_id: str
    what: str = ""  # "targets of type lambda"; empty: nothing of it


class Stack(_Message):
    """A CloudFormation stack of the embedded account."""

    name: str
    status: str  # CloudFormation's own word: CREATE_COMPLETE, UPDATE_COMPLETE ...
    outputs: dict[str, str]
    unemulated: tuple[Unemulated, ...] = ()


class ApiKey(_Message):
    """An API key of a usage plan: the value goes into the `x-api-key` header."""

    id: str
    name: str
    value: str


class ApiRoute(_Message):
    """One method of a REST API."""

    method: str
    path: str  # "/v2/models/{model}/infer"
    authorization: Literal["NONE", "AWS_IAM", "API_KEY"]
    target: str  # what stands behind it: "load balancer <name>", "lambda <name>"


class Api(_Message):
    """A stage of a REST API, and where it listens on this machine."""

    id: str
    name: str
    stack: str | None
    stage: str
    url: str  # http://127.0.0.1:PORT/STAGE, without a slash at the end
    api_keys: tuple[ApiKey, ...]
    routes: tuple[ApiRoute, ...]


class Replica(_Message):
    """One process that stands for a task, an endpoint's instance or a Lambda execution environment."""

    id: str
    pid: int | None
    state: Literal["starting", "healthy", "unhealthy", "draining", "stopped", "failed"]
    zone: str | None = None  # the availability zone, where the template chooses subnets
    port: int | None  # where the process really listens on 127.0.0.1; None for Lambda
    container_port: int | None  # where the template's container listens
    log_group: str
    log_stream: str
    log_path: str
    reason: str | None = None  # the root cause of its death, or what its last health check met


class Workload(_Message):
    """Something the templates ask to be running, and how far it got."""

    kind: str  # the service's own: "ecs-service", "sagemaker-endpoint", "lambda-function"
    name: str
    stack: str | None
    desired: int  # replicas; 0 for Lambda, which starts on demand
    state: Literal["starting", "stable", "failed"]
    reason: str | None = None  # the root cause, where it failed
    replicas: tuple[Replica, ...] = ()
    unemulated: tuple[str, ...] = ()  # what about it is accepted and not acted upon
    died: tuple[Replica, ...] = ()  # the latest that ended by themselves, oldest first; since replaced


class HopTraffic(_Message):
    """What passed one hop since the daemon started."""

    requests: int = 0
    errors: int = 0  # answers of 500 and above, and connections that broke
    refusals: int = 0  # stopped by a rule: security group, route, policy, key, throttle
    seconds: float = 0.0  # the sum of the time spent at and behind this hop


class Refusal(_Message):
    """A request that the embedded cloud stopped for the reason AWS would."""

    time: str  # ISO 8601, UTC
    hop: str  # "vpc link -> load balancer"
    reason: str  # names the rule that is missing


class Settings(_Message):
    """How the embedded cloud behaves where AWS's documents and recorded runs contradict each other.

    A template has to work either way; the tests run it both ways.
    """

    # Whether API Gateway puts the stage's name in front of the path that it sends through a VPC link. The
    # developer guide says that it does; recorded runs of a REST API, VPC link v2 and ALB did not receive it.
    stage_in_path: bool = False


class Status(_Message):
    """Everything that `modelstacks status` shows."""

    version: Literal[1] = 1
    project: str
    pid: int
    started_at: str  # ISO 8601, UTC
    endpoint_url: str  # AWS_ENDPOINT_URL of the embedded account
    region: str
    account: str
    credentials: Credentials
    settled: bool  # no workload is still starting
    problem: str | None = None  # what broke the embedded cloud itself, and how to mend it
    stacks: tuple[Stack, ...] = ()
    apis: tuple[Api, ...] = ()
    workloads: tuple[Workload, ...] = ()
    faults: tuple[Fault, ...] = ()
    settings: Settings = Settings()
    refusals: tuple[Refusal, ...] = ()  # the latest ones, oldest first
    traffic: dict[str, HopTraffic] = Field(default_factory=dict)

    @property
    def failed(self) -> tuple[Workload, ...]:
        """The workloads that gave up, each with its root cause."""
        return tuple(workload for workload in self.workloads if workload.state == "failed")


class LogLine(_Message):
    """One line that a replica, a Lambda or the control plane wrote."""

    group: str
    stream: str
    text: str


class KillReplica(_Message):
    """Kill one replica as the out-of-memory killer would."""

    kind: Literal["kill-replica"] = "kill-replica"
    replica: str  # a replica's id


class Latency(_Message):
    """Hold every request to a workload's replicas for a while."""

    kind: Literal["latency"] = "latency"
    workload: str
    seconds: float = Field(ge=0)


class FailHealthChecks(_Message):
    """Answer one replica's health checks with 503 in its place."""

    kind: Literal["fail-health-checks"] = "fail-health-checks"
    replica: str


class PoisonDeploys(_Message):
    """Make every replica that a workload starts from now on exit at once."""

    kind: Literal["poison-deploys"] = "poison-deploys"
    workload: str


Fault = Annotated[KillReplica | Latency | FailHealthChecks | PoisonDeploys, Field(discriminator="kind")]
Status.model_rebuild()
