"""One typed snapshot of the embedded account: what CloudFormation created, as the services tell it.

read_back.py fills it through boto3 and from nowhere else. A `Topology` is frozen, so that a request sees one
state of the world.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

__all__ = [
    "ApiKey", "Bucket", "CircuitBreaker",
    "ClusterService", "Container", "Endpoint", "Function", "GatewayResponse",
    "Integration", "Key", "Listener", "ListenerRule", "LoadBalancer", "Method", "MetricQuery", "Model",
    "NetworkInterface", "Policy", "RequestValidator", "Resource", "RestApi", "Role", "Route",
    "RouteTable", "Rule", "ScalableTarget", "ScalingPolicy", "SecurityGroup", "StackRecord", "Stage",
    "Subnet", "TargetBinding", "TargetGroup", "TaskDefinition", "Throttle", "Topology", "UsagePlan",
    "Variant", "VpcEndpoint", "VpcLink",
]  # fmt: skip


# --- network --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """One security group rule. `protocol` is "tcp", "udp", "icmp" or "-1" (all); ports are inclusive."""

    protocol: str
    from_port: int
    to_port: int
    cidrs: tuple[str, ...] = ()
    group_ids: tuple[str, ...] = ()
    prefix_list_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    id: str
    name: str
    vpc_id: str
    ingress: tuple[Rule, ...]
    egress: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Subnet:
    id: str
    vpc_id: str
    cidr: str
    zone: str


@dataclass(frozen=True, slots=True)
class Route:
    """`destination` is a CIDR or a prefix list's id; `target` an igw-, nat-, vpce- id or "local"."""

    destination: str
    target: str


@dataclass(frozen=True, slots=True)
class RouteTable:
    id: str
    vpc_id: str
    subnet_ids: frozenset[str]
    main: bool
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class VpcEndpoint:
    """An interface or gateway endpoint. `service` is AWS's name: com.amazonaws.REGION.sagemaker.runtime."""

    id: str
    vpc_id: str
    service: str
    type: str  # "Interface" | "Gateway"
    subnet_ids: frozenset[str]
    security_group_ids: tuple[str, ...]
    private_dns: bool
    route_table_ids: frozenset[str]
    policy: Policy | None


@dataclass(frozen=True, slots=True)
class NetworkInterface:
    """Where something is plugged into a VPC. `what` names it in refusals: "load balancer churn"."""

    what: str
    vpc_id: str
    subnet_ids: tuple[str, ...]
    security_group_ids: tuple[str, ...]
    addresses: tuple[str, ...] = ()


# --- identity -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy document and the name under which a refusal mentions it."""

    name: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Role:
    name: str
    arn: str
    trust: Policy
    policies: tuple[Policy, ...]  # inline and attached
    boundary: Policy | None = None


@dataclass(frozen=True, slots=True)
class Bucket:
    name: str
    policy: Policy | None


@dataclass(frozen=True, slots=True)
class Key:
    """A KMS key."""

    id: str
    arn: str
    policy: Policy | None


# --- REST API -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Integration:
    """What a method does. `parameters` maps integration.request.* to method.request.* or 'a literal'."""

    type: str  # AWS_PROXY | HTTP_PROXY | HTTP | AWS | MOCK
    http_method: str
    uri: str
    connection_type: str
    connection_id: str
    target: str  # integrationTarget: a load balancer's ARN
    parameters: Mapping[str, str]
    timeout_ms: int
    streams: bool
    credentials: str
    content_handling: str


@dataclass(frozen=True, slots=True)
class RequestValidator:
    body: bool
    parameters: bool


@dataclass(frozen=True, slots=True)
class Method:
    http_method: str
    authorization: str  # NONE | AWS_IAM | ...
    api_key_required: bool
    validator: RequestValidator | None
    required_parameters: tuple[str, ...]  # "method.request.header.Content-Type"
    models: Mapping[str, Mapping[str, Any]]  # content type -> JSON schema
    integration: Integration | None


@dataclass(frozen=True, slots=True)
class Resource:
    id: str
    path: str
    methods: Mapping[str, Method]


@dataclass(frozen=True, slots=True)
class Throttle:
    """Requests a second, and the size of the bucket."""

    rate: float
    burst: int


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    deployment_id: str
    variables: Mapping[str, str]
    throttles: Mapping[str, Throttle]  # "*/*" or "~1invocations/POST" -> limits


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: str
    name: str
    value: str
    enabled: bool


@dataclass(frozen=True, slots=True)
class UsagePlan:
    id: str
    name: str
    stages: frozenset[tuple[str, str]]  # (API id, stage name)
    key_ids: frozenset[str]
    throttle: Throttle | None
    quota: int | None
    period: str  # DAY | WEEK | MONTH


@dataclass(frozen=True, slots=True)
class GatewayResponse:
    status: int | None  # None keeps the error's own
    parameters: Mapping[str, str]  # "gatewayresponse.header.Retry-After" -> "'1'" or "context.requestId"
    templates: Mapping[str, str]  # content type -> template


@dataclass(frozen=True, slots=True)
class RestApi:
    id: str
    name: str
    binary_media_types: tuple[str, ...]
    gateway_responses: Mapping[str, GatewayResponse]  # by response type
    policy: Policy | None
    resources: tuple[Resource, ...]
    stages: Mapping[str, Stage]


@dataclass(frozen=True, slots=True)
class VpcLink:
    id: str
    name: str
    subnet_ids: tuple[str, ...]
    security_group_ids: tuple[str, ...]


# --- load balancer --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListenerRule:
    arn: str
    priority: int | None  # None for the default rule
    conditions: tuple[Mapping[str, Any], ...]
    actions: tuple[Mapping[str, Any], ...]
    transforms: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Listener:
    arn: str
    load_balancer_arn: str
    port: int
    protocol: str
    rules: tuple[ListenerRule, ...]  # by priority; the default rule last


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    arn: str
    name: str
    dns_name: str
    scheme: str
    type: str
    vpc_id: str
    subnet_ids: tuple[str, ...]
    security_group_ids: tuple[str, ...]
    idle_timeout: float  # seconds
    desync_mode: str = "defensive"


@dataclass(frozen=True, slots=True)
class TargetGroup:
    """Intervals and delays in seconds, as deployed; the data plane scales them."""

    arn: str
    name: str
    protocol: str
    port: int
    vpc_id: str
    target_type: str
    health_path: str
    health_port: str  # "traffic-port" or a number
    health_interval: float
    health_timeout: float
    healthy_count: int
    unhealthy_count: int
    matcher: str  # "200", "200-299", "200,204"
    deregistration_delay: float
    least_outstanding: bool


# --- compute --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Container:
    name: str
    image: str
    command: tuple[str, ...]
    entrypoint: tuple[str, ...]
    environment: Mapping[str, str]
    secrets: Mapping[str, str]  # variable -> Secrets Manager or Parameter Store reference
    ports: tuple[int, ...]
    log_driver: str
    log_options: Mapping[str, str]
    essential: bool
    stop_timeout: float


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    arn: str
    family: str
    revision: int
    network_mode: str
    task_role_arn: str
    execution_role_arn: str
    containers: tuple[Container, ...]


@dataclass(frozen=True, slots=True)
class TargetBinding:
    """A service's entry in `loadBalancers`: which port of which container joins which target group."""

    target_group_arn: str
    container: str
    port: int


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """When a deployment is given up: after `limit` failures, or after a percentage of the desired count.

    `bounded` keeps the percentage's result between 3 and 200.
    """

    enabled: bool = False
    rollback: bool = False
    resets: bool = True  # a task that becomes healthy resets the count of failures
    percent: float = 50.0
    bounded: bool = True
    limit: int | None = None

    def threshold(self, desired: int) -> int:
        """How many tasks may fail."""
        if self.limit is not None:
            return self.limit
        calculated = math.ceil(desired * self.percent / 100)
        return min(200, max(3, calculated)) if self.bounded else max(1, calculated)


@dataclass(frozen=True, slots=True)
class ClusterService:
    """An ECS service."""

    arn: str
    name: str
    cluster: str
    desired: int
    task_definition_arn: str
    network: NetworkInterface | None
    public_address: bool
    bindings: tuple[TargetBinding, ...]
    minimum_percent: int
    maximum_percent: int
    breaker: CircuitBreaker
    grace_seconds: float
    deployment: str  # the primary deployment's id
    rollout: str  # its state: IN_PROGRESS | COMPLETED | FAILED
    unemulated: str = ""  # what about its deployments is not emulated


@dataclass(frozen=True, slots=True)
class ScalableTarget:
    namespace: str
    resource_id: str
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class MetricQuery:
    """One line of metric math: an expression, or a metric. `returned` marks the one that counts."""

    id: str
    expression: str
    namespace: str
    metric: str
    returned: bool


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """A target tracking policy: on a predefined `metric`, or on `queries`."""

    name: str
    namespace: str
    resource_id: str
    metric: str
    target: float
    queries: tuple[MetricQuery, ...] = ()


@dataclass(frozen=True, slots=True)
class Function:
    """A Lambda function. `invokers` is its resource policy."""

    name: str
    arn: str
    handler: str
    runtime: str
    timeout: float
    memory: int
    environment: Mapping[str, str]
    role_arn: str
    network: NetworkInterface | None
    reserved_concurrency: int | None
    code_sha256: str
    code_location: str
    package_type: str
    log_group: str
    policy: Policy | None


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    arn: str
    image: str
    environment: Mapping[str, str]
    data_uri: str  # s3://...; "" where the image holds the model
    data_type: str  # S3Object | S3Prefix
    compression: str  # Gzip | None
    role_arn: str
    network: NetworkInterface | None
    isolated: bool


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    model: str
    count: int
    weight: float
    startup_timeout: float
    download_timeout: float
    serverless: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`config` and `variants` are those that the endpoint is to have: of an update, the new ones."""

    name: str
    arn: str
    config: str
    variants: tuple[Variant, ...]
    status: str  # Creating | Updating | InService | Failed


@dataclass(frozen=True, slots=True)
class StackRecord:
    name: str
    status: str
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Topology:
    """The account at one moment."""

    account: str = "123456789012"
    region: str = "us-east-1"
    stacks: tuple[StackRecord, ...] = ()
    owners: Mapping[str, str] = field(default_factory=dict)  # physical id -> stack name
    security_groups: Mapping[str, SecurityGroup] = field(default_factory=dict)
    subnets: Mapping[str, Subnet] = field(default_factory=dict)
    route_tables: tuple[RouteTable, ...] = ()
    vpc_endpoints: tuple[VpcEndpoint, ...] = ()
    prefix_lists: Mapping[str, str] = field(default_factory=dict)  # pl- id -> name
    roles: Mapping[str, Role] = field(default_factory=dict)  # by ARN
    buckets: Mapping[str, Bucket] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)  # by ARN
    apis: tuple[RestApi, ...] = ()
    api_keys: Mapping[str, ApiKey] = field(default_factory=dict)
    usage_plans: tuple[UsagePlan, ...] = ()
    vpc_links: Mapping[str, VpcLink] = field(default_factory=dict)
    load_balancers: Mapping[str, LoadBalancer] = field(default_factory=dict)
    listeners: Mapping[str, Listener] = field(default_factory=dict)
    target_groups: Mapping[str, TargetGroup] = field(default_factory=dict)
    services: tuple[ClusterService, ...] = ()
    task_definitions: Mapping[str, TaskDefinition] = field(default_factory=dict)
    scalable_targets: tuple[ScalableTarget, ...] = ()
    scaling_policies: tuple[ScalingPolicy, ...] = ()
    functions: Mapping[str, Function] = field(default_factory=dict)  # by name
    models: Mapping[str, Model] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)

    def interface(
        self, what: str, subnet_ids: Iterable[str], group_ids: Iterable[str], index: int = 0
    ) -> NetworkInterface:
        """Plug something in: one address in each subnet, the `index`th of those that AWS leaves free."""
        subnets = [self.subnets[one] for one in subnet_ids if one in self.subnets]
        return NetworkInterface(
            what=what,
            vpc_id=subnets[0].vpc_id if subnets else "",
            subnet_ids=tuple(subnet.id for subnet in subnets),
            security_group_ids=tuple(group_ids),
            addresses=tuple(_address(subnet.cidr, index) for subnet in subnets),
        )

    def route_table(self, subnet_id: str) -> RouteTable | None:
        """The subnet's own route table, or its VPC's main one."""
        for table in self.route_tables:
            if subnet_id in table.subnet_ids:
                return table
        subnet = self.subnets.get(subnet_id)
        mains = (
            table for table in self.route_tables if subnet and table.main and table.vpc_id == subnet.vpc_id
        )
        return next(mains, None)

    def owner(self, *physical_ids: str) -> str | None:
        """The stack that made a resource, looked up by any of its names."""
        return next((self.owners[one] for one in physical_ids if one in self.owners), None)

    def unfinished(self, *physical_ids: str) -> bool:
        """Whether the stack that a resource belongs to is still being made or changed."""
        stack = self.owner(*physical_ids)
        return any(one.name == stack and one.status.endswith("_IN_PROGRESS") for one in self.stacks)

    @cached_property
    def prefix_list_ids(self) -> Mapping[str, str]:
        """Prefix list name -> id."""
        return {name: number for number, name in self.prefix_lists.items()}


def _address(cidr: str, index: int) -> str:
    network = ipaddress.ip_network(cidr)
    # AWS keeps the first four addresses of a subnet and the last one.
    return str(network[4 + index % max(1, network.num_addresses - 5)])
