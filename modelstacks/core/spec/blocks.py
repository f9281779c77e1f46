"""The spec: what a user writes to say which model runs behind which architecture.

The blocks here are the same for every model. The blocks that differ, `model` by its source and `self-hosted`
/ `managed` by their compute target, are declared by the files in sources/ and targets/; the registry joins
them into one closed type (`registry.spec_type()`).
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
        "2 to 32 lower-case letters, digits and hyphens, from a letter to a letter or digit",
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
        description="SPDX identifier of the model's licence; where a model card states one, it must agree",
    )
    trust_code: bool = Field(
        False,
        description="accept a model that runs code when loaded: a pickle, or an inference.py of its own",
    )
    framework_version: (
        Annotated[str, text(r"^[1-9]\d?\.\d{1,2}$", 'a release series in quotes, such as "1.5"')] | None
    ) = Field(
        None,
        description="an older release series of the engine's library for a model that was saved with it; "
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
    burst: int = Field(200, ge=1, le=5_000, description="requests that may arrive at once")


class Quota(Strict):
    """How many requests one API key may send in a period."""

    requests: int = Field(ge=1, description="requests per period")
    per: Literal["day", "week", "month"] = Field("day", description="the period")


class Api(Strict):
    """The REST API in front of either architecture."""

    auth: Literal["api-key", "iam"] = Field(
        "api-key", description="API key with a usage plan, or SigV4 (IAM)"
    )
    throttle: Throttle = Field(default_factory=Throttle, description="how many requests a caller may send")
    quota: Quota | None = Field(None, description="requests per key in a period; unset sets no quota")
    account_logging_role: Literal["create", "existing"] = Field(
        "create",
        description="API Gateway logs under one role per account and region: the stack sets it, or relies on "
        "the one that is set",
    )
    timeout_seconds: int = Field(
        29,
        ge=1,
        le=29,
        description="how long a caller waits; 29 s is API Gateway's limit without a raised quota",
    )

    @model_validator(mode="after")
    def _quota_counts_keys(self) -> Self:
        if self.quota is not None and self.auth != "api-key":
            raise Invalid(
                "a quota is counted per API key, and with auth: iam there is none",
                field="quota",
                fix="remove quota, or set auth: api-key",
            )
        return self


class Scaling(Strict):
    """How many replicas run, and the load for which there are more."""

    min_replicas: int = Field(
        2, ge=0, le=100, description="at least two, so that one zone can be lost; 0 scales to zero"
    )
    max_replicas: int = Field(8, ge=1, le=1000, description="at most this many, whatever the load")
    concurrent_requests_per_replica: int = Field(
        8, ge=1, le=1000, description="target tracking on concurrency"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise Invalid(
                "must not be below min_replicas",
                field="max_replicas",
                got=f"{self.max_replicas}, and min_replicas {self.min_replicas}",
                fix="raise max_replicas or lower min_replicas",
            )
        return self


class Server(Strict):
    """The model server's bounds; the same in both architectures."""

    max_batch_size: int = Field(64, ge=1, le=8192, description="rows in one call of the engine")
    max_queue: int = Field(256, ge=1, le=65_536, description="requests waiting; above it the answer is 429")
    max_body_bytes: int = Field(
        4_194_304,
        ge=1024,
        le=API_PAYLOAD,
        description="a larger request body is answered 413; managed carries at most "
        f"{LAMBDA_BODY}, API Gateway {API_PAYLOAD}",
    )
    max_latency_ms: int = Field(
        0, ge=0, le=1000, description="how long a batch may wait for company; 0 never waits"
    )
    target_wait_ms: int = Field(
        0,
        ge=0,
        le=60_000,
        description="what lasting overload may add to a request's time; above it the answer is 429; "
        "0 allows about as much as one call takes",
    )
    workers: int | None = Field(
        None, ge=1, le=64, description="processes a replica; unset lets the engine decide"
    )
    nan: Literal["allow", "refuse"] = Field(
        "allow", description="whether a missing value (NaN) is a valid input"
    )


class Logs(Strict):
    """Access logs and replicas' logs."""

    retention_days: LogRetentionDays = Field(90, description="days that CloudWatch Logs keeps them")


class Aws(Strict):
    """Where to deploy. Without it the template fits any account and region, over two zones."""

    account: Annotated[str, text(r"^\d{12}$", "the 12 digits of an AWS account id")] = Field(
        description="the AWS account's id, in quotes"
    )
    region: Annotated[str, text(r"^[a-z]{2}(-[a-z]+)+-\d$", "an AWS region such as eu-west-1")] = Field(
        description="the AWS region"
    )
    zones: Annotated[tuple[str, ...], Field(strict=False, min_length=2, max_length=6)] | None = Field(
        None,
        description="ids of availability zones such as use1-az1; unset takes the region's first two",
    )

    @model_validator(mode="after")
    def _zones_of_region(self) -> Self:
        zones = self.zones or ()
        if named := [zone for zone in zones if zone.startswith(self.region)]:
            raise Invalid(
                "zones are given by their ids: each account assigns the names differently",
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
                "a zone is named twice",
                field="zones",
                got=", ".join(zones),
                fix="name each zone once",
            )
        return self


# Where a VPC's addresses may come from: private ranges, and the shared range that some organisations use.
_PRIVATE = tuple(
    ipaddress.IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
# SageMaker's instances use this range themselves, which the VPC guide advises to avoid ("VPC CIDR blocks").
_DOCKER = ipaddress.IPv4Network("172.17.0.0/16")
# What is not a replica's in each subnet: eight addresses that a load balancer must find free, the network
# interfaces of VPC endpoints and VPC link, and the five that AWS keeps.
_OTHER_ADDRESSES = 8 + 4 + 5


class Network(Strict):
    """The VPC that the deployment makes. It is not connected to anything, unless you connect it."""

    cidr: str = Field("10.0.0.0/16", description="addresses of the VPC: a private range from /16 to /24")

    @field_validator("cidr")
    @classmethod
    def _is_private(cls, text: str) -> str:
        try:
            network = ipaddress.IPv4Network(text, strict=False)
        except ValueError:
            raise Invalid("not a range of addresses", got=text, allowed="one such as 10.42.0.0/16") from None
        if "/" not in text or not 16 <= network.prefixlen <= 24:
            raise Invalid("a VPC of this size is not supported", got=text, allowed="a prefix from /16 to /24")
        if text != str(network):
            raise Invalid("the address has bits beyond its prefix", got=text, fix=f"write {network}")
        if not any(network.subnet_of(private) for private in _PRIVATE):
            raise Invalid(
                "not a range of private addresses",
                got=text,
                allowed=", ".join(str(each) for each in _PRIVATE),
            )
        if network.overlaps(_DOCKER):
            raise Invalid(
                f"SageMaker's instances use {_DOCKER} themselves",
                got=text,
                fix="choose a range that does not overlap it, such as 10.42.0.0/16",
            )
        return text

    def subnet(self, index: int) -> str:
        """The `index`th of the eight equal parts of the VPC's range."""
        network = ipaddress.IPv4Network(self.cidr)
        return str(list(network.subnets(prefixlen_diff=3))[index])

    def most_replicas(self, zones: int) -> int:
        """How many replicas fit into subnets in this many zones while a rollout runs twice as many."""
        addresses: int = 2 ** (32 - ipaddress.IPv4Network(self.cidr).prefixlen - 3)
        return zones * (addresses - _OTHER_ADDRESSES) // 2


def subnet_index(zone_id: str | None, position: int) -> int:
    """Which part of the VPC's range a subnet gets.

    A zone that is named always has the same part, so that zones can be exchanged one by one: two subnets with
    overlapping ranges cannot exist at the same time. The first two parts are for zones that are not named.
    """
    return position if zone_id is None else number(zone_id) + 1


class Spec(Strict):
    """One model, its API, and the architecture behind it."""

    model_config = ConfigDict(title="modelstacks deployment spec")

    name: Name = Field(description="names the stacks, the API and the model in /v2/models/{name}")
    description: str = Field(
        "", max_length=256, description="shown in the API's and the stacks' descriptions"
    )
    model: SourceSpec = Field(description="where the model comes from")
    architecture: Architecture = Field(description="which of the two compute blocks runs the model")
    api: Api = Field(default_factory=Api, description="the REST API in front of either architecture")
    network: Network = Field(default_factory=Network, description="the VPC that the deployment makes")
    scaling: Scaling = Field(
        default_factory=Scaling, description="how many replicas run, and the load for which there are more"
    )
    server: Server = Field(default_factory=Server, description="the model server's bounds")
    self_hosted: TargetSpec = Field(
        alias="self-hosted", description="the compute of the self-hosted architecture"
    )
    managed: TargetSpec = Field(description="the compute of the managed architecture")
    logs: Logs = Field(default_factory=Logs, description="access logs and replicas' logs")
    tags: dict[str, str] = Field({}, max_length=40, description="tags on every resource")
    aws: Aws | None = Field(
        None, description="where to deploy; unset makes templates that fit any account and region"
    )

    @field_validator("tags")
    @classmethod
    def _tags_fit(cls, tags: dict[str, str]) -> dict[str, str]:
        for key, value in tags.items():
            if not 1 <= len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
                raise Invalid(
                    f'tag "{key}" does not fit AWS',
                    allowed='a key of 1 to 128 characters, not beginning with "aws:", a value of at most 256',
                )
        return tags

    @model_validator(mode="after")
    def _replicas_fit(self) -> Self:
        zones = len(self.aws.zones) if self.aws and self.aws.zones else 2
        most = self.network.most_replicas(zones)
        if self.scaling.max_replicas > most:
            raise Invalid(
                f"its subnets hold {most} replicas while a rollout runs each twice",
                field="network",
                got=f"{self.network.cidr}, {zones} zones, scaling.max_replicas {self.scaling.max_replicas}",
                fix="choose a larger range, more zones or a lower scaling.max_replicas",
            )
        return self

    def target(self, architecture: Architecture) -> TargetSpec:
        """The compute block of one architecture."""
        return self.self_hosted if architecture == "self-hosted" else self.managed
