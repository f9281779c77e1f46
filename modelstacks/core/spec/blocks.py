"""The spec: what a user writes to deploy a model on one of the architectures.

The blocks here are the same for every model. The blocks that differ (`model` by source, `self-hosted` and
`managed` by compute target) are declared by the files in sources/ and targets/. The registry joins them into
one closed type (`registry.spec_type()`).
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from modelstacks.core.base import Strict, text
from modelstacks.core.contract import API_PAYLOAD, LAMBDA_BODY
from modelstacks.core.engines import engines
from modelstacks.core.errors import Invalid
from modelstacks.core.spec.zones import LIST_ZONES, MOST_ZONES, number, prefix

__all__ = [
    "Api",
    "Architecture",
    "Aws",
    "Logs",
    "Network",
    "Scaling",
    "Server",
    "SourceSpec",
    "Spec",
    "TargetSpec",
    "Throttle",
    "subnet_index",
]

Architecture = Literal["self-hosted", "managed"]

Name = Annotated[
    str,
    text(
        r"^[a-z][a-z0-9-]{0,30}[a-z0-9]$",
        "2 to 32 lower-case letters, digits and hyphens, starting with a letter and not ending with a hyphen",
    ),
]
SpdxLicense = Annotated[
    str,
    text(r"^[A-Za-z0-9.+-]{2,64}$", "one SPDX identifier such as Apache-2.0, MIT or LicenseRef-my-company"),
]
LogRetentionDays = Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1827, 3653]


class SourceSpec(Strict):
    """The `model` block; each source extends it with its own fields and narrows `source` to its name."""

    source: str
    license: SpdxLicense | None = Field(
        None,
        description="SPDX identifier of the model's licence; must agree with the model card's, if it has one",
    )
    trust_code: bool = Field(
        False,
        description="accept a model that runs code when it is loaded: a pickle or an inference.py",
    )
    framework_version: (
        Annotated[str, text(r"^[1-9]\d?\.\d{1,2}$", 'a release series in quotes, such as "1.5"')] | None
    ) = Field(
        None,
        description="older release series of the engine's library, for a model that was saved with it; "
        + "; ".join(
            f"{name}: {', '.join(facts.older_series)}"
            for name, facts in engines().items()
            if facts.older_series
        ),
    )


class TargetSpec(Strict):
    """The `self-hosted` or `managed` block.

    Each target extends it with its own fields and narrows `target` to its name.
    """

    target: str


class Throttle(Strict):
    """API Gateway's token bucket, per API key and for the stage as a whole."""

    rate: int = Field(100, ge=1, le=10_000, description="requests per second")
    burst: int = Field(200, ge=1, le=5_000, description="requests that can arrive at once")


class Quota(Strict):
    """How many requests one API key may send in a period."""

    requests: int = Field(ge=1, description="requests per period")
    per: Literal["day", "week", "month"] = Field("day", description="period of the quota")


class Api(Strict):
    """The REST API, the same for both architectures."""

    auth: Literal["api-key", "iam"] = Field(
        "api-key", description="api-key: an API key with a usage plan; iam: requests signed with SigV4"
    )
    throttle: Throttle = Field(
        default_factory=Throttle, description="request rate of each API key and of the stage"
    )
    quota: Quota | None = Field(None, description="requests per API key in a period; if unset, no quota")
    account_logging_role: Literal["create", "existing"] = Field(
        "create",
        description="the one IAM role per account and region with which API Gateway writes logs: "
        "create sets it in the stack, existing uses the role that is already set",
    )
    timeout_seconds: int = Field(
        29,
        ge=1,
        le=29,
        description="integration timeout; API Gateway allows at most 29 s without a quota increase",
    )

    @model_validator(mode="after")
    def _quota_counts_keys(self) -> Self:
        if self.quota is not None and self.auth != "api-key":
            raise Invalid(
                "a quota counts requests per API key, and auth: iam has no API keys",
                field="quota",
                fix="remove quota, or set auth: api-key",
            )
        return self


class Scaling(Strict):
    """The number of replicas, and the load at which more are started."""

    min_replicas: int = Field(
        2,
        ge=0,
        le=100,
        description="minimum number of replicas; 2 or more survive the loss of a zone, 0 scales to zero",
    )
    max_replicas: int = Field(8, ge=1, le=1000, description="maximum number of replicas")
    concurrent_requests_per_replica: int = Field(
        8, ge=1, le=1000, description="target of the scaling policy on concurrent requests"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise Invalid(
                "must not be below min_replicas",
                field="max_replicas",
                got=f"{self.max_replicas}, with min_replicas {self.min_replicas}",
                fix="raise max_replicas or lower min_replicas",
            )
        return self


class Server(Strict):
    """The model server's limits, the same in both architectures."""

    max_batch_size: int = Field(64, ge=1, le=8192, description="maximum rows in one call to the engine")
    max_queue: int = Field(
        256, ge=1, le=65_536, description="maximum number of waiting requests; further ones get 429"
    )
    max_body_bytes: int = Field(
        4_194_304,
        ge=1024,
        le=API_PAYLOAD,
        description="maximum size of a request body; a larger one gets 413; the highest value is "
        f"{LAMBDA_BODY} for managed and {API_PAYLOAD} for self-hosted",
    )
    max_latency_ms: int = Field(
        0, ge=0, le=1000, description="maximum time that a request waits for others to join its batch"
    )
    target_wait_ms: int = Field(
        0,
        ge=0,
        le=60_000,
        description="queueing delay that is allowed during sustained overload; a request that would wait "
        "longer gets 429; 0 allows about the duration of one call to the engine",
    )
    workers: int | None = Field(
        None, ge=1, le=64, description="worker processes per replica; if unset, the engine decides"
    )
    nan: Literal["allow", "refuse"] = Field(
        "allow", description="whether a missing value (NaN) is accepted as input"
    )


class Logs(Strict):
    """Retention of access logs and replica logs."""

    retention_days: LogRetentionDays = Field(
        90, description="number of days that CloudWatch Logs keeps log events"
    )


class Aws(Strict):
    """Where to deploy. Without this block, the templates work in any account and region, in two zones."""

    account: Annotated[str, text(r"^\d{12}$", "the 12 digits of an AWS account id")] = Field(
        description="AWS account id, in quotes"
    )
    region: Annotated[str, text(r"^[a-z]{2}(-[a-z]+)+-\d$", "an AWS region such as eu-west-1")] = Field(
        description="AWS region, such as eu-west-1"
    )
    zones: Annotated[tuple[str, ...], Field(strict=False, min_length=2, max_length=6)] | None = Field(
        None,
        description="ids of availability zones, such as use1-az1; if unset, the region's first two",
    )

    @model_validator(mode="after")
    def _zones_of_region(self) -> Self:
        zones = self.zones or ()
        if named := [zone for zone in zones if zone.startswith(self.region)]:
            raise Invalid(
                "must be zone ids: a zone name refers to different zones in different accounts",
                field="zones",
                got=", ".join(named),
                allowed=f"ids such as {prefix(self.region)}-az1",
                fix=f"look the ids up with `{LIST_ZONES.format(region=self.region)}`",
            )
        possible = {f"{prefix(self.region)}-az{index}" for index in range(1, MOST_ZONES + 1)}
        if strangers := [zone for zone in zones if zone not in possible]:
            raise Invalid(
                f"not zones of region {self.region}",
                field="zones",
                got=", ".join(strangers),
                allowed=f"{prefix(self.region)}-az1 to {prefix(self.region)}-az{MOST_ZONES}",
            )
        if len(set(zones)) < len(zones):
            raise Invalid(
                "lists a zone twice",
                field="zones",
                got=", ".join(zones),
                fix="list each zone once",
            )
        return self


# The ranges that a VPC can use: the private ranges, and the shared range that some organisations use.
_PRIVATE = tuple(
    ipaddress.IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
# SageMaker's instances use this range internally; the VPC guide advises against it ("VPC CIDR blocks").
_DOCKER = ipaddress.IPv4Network("172.17.0.0/16")
# Addresses of each subnet that replicas cannot use: eight that a load balancer needs free, the network
# interfaces of VPC endpoints and the VPC link, and the five that AWS reserves.
_OTHER_ADDRESSES = 8 + 4 + 5


class Network(Strict):
    """The VPC that the stack creates. It is not connected to any other network."""

    cidr: str = Field("10.0.0.0/16", description="address range of the VPC: a private range from /16 to /24")

    @field_validator("cidr")
    @classmethod
    def _is_private(cls, text: str) -> str:
        try:
            network = ipaddress.IPv4Network(text, strict=False)
        except ValueError:
            raise Invalid("not a CIDR block", got=text, allowed="a block such as 10.42.0.0/16") from None
        if "/" not in text or not 16 <= network.prefixlen <= 24:
            raise Invalid("a VPC of this size is not supported", got=text, allowed="a prefix from /16 to /24")
        if text != str(network):
            raise Invalid("the address has host bits set", got=text, fix=f"write {network}")
        if not any(network.subnet_of(private) for private in _PRIVATE):
            raise Invalid(
                "not a private address range",
                got=text,
                allowed=", ".join(str(each) for each in _PRIVATE),
            )
        if network.overlaps(_DOCKER):
            raise Invalid(
                f"overlaps {_DOCKER}, which SageMaker's instances use internally",
                got=text,
                fix="choose another range, such as 10.42.0.0/16",
            )
        return text

    def subnet(self, index: int) -> str:
        """Return the CIDR block of one of the eight equal parts of the VPC's range."""
        network = ipaddress.IPv4Network(self.cidr)
        return str(list(network.subnets(prefixlen_diff=3))[index])

    def most_replicas(self, zones: int) -> int:
        """Return how many replicas the subnets have addresses for while an update runs twice as many."""
        addresses: int = 2 ** (32 - ipaddress.IPv4Network(self.cidr).prefixlen - 3)
        return zones * (addresses - _OTHER_ADDRESSES) // 2


def subnet_index(zone_id: str | None, position: int) -> int:
    """Return which part of the VPC's range a subnet gets.

    A named zone always gets the same part, so that zones can be replaced one by one: two subnets with
    overlapping ranges cannot exist at the same time. The first two parts are for unnamed zones.
    """
    return position if zone_id is None else number(zone_id) + 1


class Spec(Strict):
    """One model, its API, and the architecture behind it."""

    model_config = ConfigDict(title="modelstacks deployment spec")

    name: Name = Field(description="name of the stacks, the API, and the model in /v2/models/{name}")
    description: str = Field(
        "", max_length=256, description="shown in the descriptions of the API and the stacks"
    )
    model: SourceSpec = Field(description="where the model comes from")
    architecture: Architecture = Field(description="which of the two compute blocks is used")
    api: Api = Field(default_factory=Api, description="the REST API")
    network: Network = Field(default_factory=Network, description="the VPC that the stack creates")
    scaling: Scaling = Field(
        default_factory=Scaling, description="number of replicas, and the load at which more are started"
    )
    server: Server = Field(default_factory=Server, description="the model server's limits")
    self_hosted: TargetSpec = Field(
        alias="self-hosted", description="compute of the self-hosted architecture"
    )
    managed: TargetSpec = Field(description="compute of the managed architecture")
    logs: Logs = Field(default_factory=Logs, description="retention of access logs and replica logs")
    tags: dict[str, str] = Field({}, max_length=40, description="tags that every resource gets")
    aws: Aws | None = Field(
        None, description="where to deploy; if unset, the templates work in any account and region"
    )

    @field_validator("tags")
    @classmethod
    def _tags_fit(cls, tags: dict[str, str]) -> dict[str, str]:
        for key, value in tags.items():
            if not 1 <= len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
                raise Invalid(
                    f'AWS does not accept the tag "{key}"',
                    allowed='keys of 1 to 128 characters, not beginning with "aws:", values of at most 256',
                )
        return tags

    @model_validator(mode="after")
    def _replicas_fit(self) -> Self:
        zones = len(self.aws.zones) if self.aws and self.aws.zones else 2
        most = self.network.most_replicas(zones)
        if self.scaling.max_replicas > most:
            raise Invalid(
                f"the subnets have addresses for {most} replicas, because an update runs each one twice",
                field="network",
                got=f"{self.network.cidr}, {zones} zones, scaling.max_replicas {self.scaling.max_replicas}",
                fix="choose a larger range, more zones or a lower scaling.max_replicas",
            )
        return self

    def target(self, architecture: Architecture) -> TargetSpec:
        """Return the compute block of one architecture."""
        return self.self_hosted if architecture == "self-hosted" else self.managed
