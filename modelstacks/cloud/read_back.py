"""Reads the embedded account back through boto3 into a Topology: never from the spec, never from the Plan."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any
from urllib.parse import unquote

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from modelstacks.cloud.account.client import ENDPOINT, Connection, Unemulated
from modelstacks.cloud.account.credentials import AccessKey
from modelstacks.cloud.api import Credentials
from modelstacks.cloud.topology import (
    ApiKey,
    Bucket,
    CircuitBreaker,
    ClusterService,
    Container,
    Endpoint,
    Function,
    GatewayResponse,
    Integration,
    Key,
    Listener,
    ListenerRule,
    LoadBalancer,
    Method,
    MetricQuery,
    Model,
    NetworkInterface,
    Policy,
    RequestValidator,
    Resource,
    RestApi,
    Role,
    Route,
    RouteTable,
    Rule,
    ScalableTarget,
    ScalingPolicy,
    SecurityGroup,
    StackRecord,
    Stage,
    Subnet,
    TargetBinding,
    TargetGroup,
    TaskDefinition,
    Throttle,
    Topology,
    UsagePlan,
    Variant,
    VpcEndpoint,
    VpcLink,
)

__all__ = ["Account", "ReadError", "read"]

READERS = 12
#: Of botocore: no profile, and files that hold nothing, whatever the environment says.
NO_CONFIGURATION = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
HALF = 50.0  # percent of the desired count: ECS's circuit breaker, unless the service says otherwise


class Account:
    """boto3 clients of the embedded account, made once: making one costs more than calling it.

    Their calls go over the control plane's socket. They read neither the user's AWS configuration nor its
    profiles, and no proxy is in their way.
    """

    def __init__(
        self, control_plane: Connection, credentials: Credentials, region: str = "us-east-1"
    ) -> None:
        self.region = region
        self.credentials = credentials
        self._control_plane = control_plane
        self._session = boto3.Session(
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
            region_name=region,
            botocore_session=botocore.session.Session(session_vars=NO_CONFIGURATION),
        )
        self._config = Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"})
        self._clients: dict[str, Any] = {}
        self.pool = ThreadPoolExecutor(READERS, thread_name_prefix="account")

    def client(self, service: str) -> Any:
        """A thread-safe client of one service."""
        if service not in self._clients:
            made = self._session.client(service, endpoint_url=ENDPOINT, config=self._config)
            self._clients[service] = self._control_plane.carry(made)
        return self._clients[service]

    def unemulated(self) -> list[Unemulated]:
        """What was deployed in this region and nothing emulates. Raises EnvironmentFault."""
        return self._control_plane.unemulated(self.region)

    def access_key(self, access_key_id: str) -> AccessKey | None:
        """An access key that the account's IAM or STS made. Raises EnvironmentFault."""
        return self._control_plane.access_key(access_key_id)

    def pages(self, service: str, operation: str, key: str, **parameters: Any) -> list[dict[str, Any]]:
        """Every item of a list operation."""
        client = self.client(service)
        if not client.can_paginate(operation):
            items: list[dict[str, Any]] = getattr(client, operation)(**parameters).get(key, [])
            return items
        pages = client.get_paginator(operation).paginate(**parameters)
        return [item for page in pages for item in page.get(key, [])]

    def close(self) -> None:
        """Release the threads and connections."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            client.close()


SERVICES = (
    "apigateway", "apigatewayv2", "application-autoscaling", "cloudformation", "ec2", "ecs", "elbv2",
    "iam", "kms", "lambda", "s3", "sagemaker", "sts",
)  # fmt: skip


def read(account: Account) -> Topology:
    """Read the whole account in parallel. Raises ReadError where the control plane refuses a call.

    Stacks change while it is read. What needs other resources (services, functions, endpoints, APIs) is read
    before what it needs: whatever is found here has everything that it was created after.
    """
    for service in SERVICES:  # boto3 makes clients on one thread only
        account.client(service)
    later = account.pool.submit
    skeleton = Topology(region=account.region, subnets=_subnets(account))
    network: Callable[..., NetworkInterface] = skeleton.interface
    services = later(_services, account, network)
    functions = later(_functions, account, network)
    endpoints = later(_endpoints, account, network)
    parts: dict[str, Future[Any]] = {
        "apis": later(_apis, account),
        "usage_plans": later(_usage_plans, account),
        "scalable_targets": later(_scalable_targets, account),
        "scaling_policies": later(_scaling_policies, account),
    }
    first: list[Future[Any]] = [services, functions, endpoints, *parts.values()]
    wait(first)
    parts |= {
        "stacks": later(_stacks, account),
        "security_groups": later(_security_groups, account),
        "route_tables": later(_route_tables, account),
        "vpc_endpoints": later(_vpc_endpoints, account),
        "prefix_lists": later(_prefix_lists, account),
        "roles": later(_roles, account),
        "buckets": later(_buckets, account),
        "keys": later(_keys, account),
        "api_keys": later(_api_keys, account),
        "vpc_links": later(_vpc_links, account),
        "load_balancers": later(_load_balancers, account),
        "target_groups": later(_target_groups, account),
    }
    caller = account.client("sts").get_caller_identity()
    done = {name: part.result() for name, part in parts.items()}
    done["stacks"], owners = done["stacks"]
    done["load_balancers"], listeners = done["load_balancers"]
    found_services, task_definitions = services.result()
    found_endpoints, models = endpoints.result()
    return Topology(
        account=caller["Account"],
        region=account.region,
        subnets=skeleton.subnets,
        owners=owners,
        listeners=listeners,
        services=found_services,
        task_definitions=task_definitions,
        functions=functions.result(),
        endpoints=found_endpoints,
        models=models,
        **done,
    )


def _each(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Apply `work` in parallel with threads of its own: a shared pool that waits for itself would lock up."""
    items = list(items)
    if len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(len(items), 8)) as pool:
        return list(pool.map(work, items))


def _stacks(account: Account) -> tuple[tuple[StackRecord, ...], dict[str, str]]:
    found = [
        stack
        for stack in account.pages("cloudformation", "describe_stacks", "Stacks")
        if not stack["StackStatus"].startswith("DELETE")
    ]
    records = tuple(
        StackRecord(
            stack["StackName"],
            stack["StackStatus"],
            {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])},
        )
        for stack in found
    )
    client = account.client("cloudformation")

    def members(record: StackRecord) -> dict[str, str]:
        resources = client.describe_stack_resources(StackName=record.name)["StackResources"]
        return {
            item["PhysicalResourceId"]: record.name for item in resources if item.get("PhysicalResourceId")
        }

    owners: dict[str, str] = {}
    for part in _each(members, records):
        owners |= part
    return records, owners


def _rules(permissions: Iterable[Mapping[str, Any]]) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            protocol=str(item.get("IpProtocol", "-1")),
            from_port=_port(item.get("FromPort"), 0),
            to_port=_port(item.get("ToPort"), 65535),
            cidrs=tuple(entry["CidrIp"] for entry in item.get("IpRanges", [])),
            group_ids=tuple(
                entry["GroupId"] for entry in item.get("UserIdGroupPairs", []) if "GroupId" in entry
            ),
            prefix_list_ids=tuple(entry["PrefixListId"] for entry in item.get("PrefixListIds", [])),
        )
        for item in permissions
    )


def _port(value: object, default: int) -> int:
    return default if value is None or value == -1 else int(str(value))


def _security_groups(account: Account) -> dict[str, SecurityGroup]:
    return {
        group["GroupId"]: SecurityGroup(
            group["GroupId"],
            group["GroupName"],
            group.get("VpcId", ""),
            _rules(group.get("IpPermissions", [])),
            _rules(group.get("IpPermissionsEgress", [])),
        )
        for group in account.pages("ec2", "describe_security_groups", "SecurityGroups")
    }


def _subnets(account: Account) -> dict[str, Subnet]:
    return {
        subnet["SubnetId"]: Subnet(
            subnet["SubnetId"], subnet["VpcId"], subnet["CidrBlock"], subnet["AvailabilityZone"]
        )
        for subnet in account.pages("ec2", "describe_subnets", "Subnets")
    }


def _route_tables(account: Account) -> tuple[RouteTable, ...]:
    targets = ("GatewayId", "NatGatewayId", "TransitGatewayId", "NetworkInterfaceId", "InstanceId")

    def route(item: Mapping[str, Any]) -> Route:
        destination = item.get("DestinationCidrBlock") or item.get("DestinationPrefixListId") or ""
        target = next((item[key] for key in targets if item.get(key)), "")
        return Route(destination, target)

    return tuple(
        RouteTable(
            id=table["RouteTableId"],
            vpc_id=table["VpcId"],
            subnet_ids=frozenset(
                link["SubnetId"] for link in table.get("Associations", []) if link.get("SubnetId")
            ),
            main=any(link.get("Main") for link in table.get("Associations", [])),
            routes=tuple(route(item) for item in table.get("Routes", [])),
        )
        for table in account.pages("ec2", "describe_route_tables", "RouteTables")
    )


def _policy(name: str, document: object) -> Policy | None:
    if not document:
        return None
    if isinstance(document, str):
        text = document if document.lstrip().startswith("{") else unquote(document)
        document = json.loads(text)
    return Policy(name, document) if isinstance(document, Mapping) else None


def _vpc_endpoints(account: Account) -> tuple[VpcEndpoint, ...]:
    return tuple(
        VpcEndpoint(
            id=endpoint["VpcEndpointId"],
            vpc_id=endpoint["VpcId"],
            service=endpoint["ServiceName"],
            type=endpoint.get("VpcEndpointType", "Gateway"),
            subnet_ids=frozenset(endpoint.get("SubnetIds", [])),
            security_group_ids=tuple(group["GroupId"] for group in endpoint.get("Groups", [])),
            private_dns=bool(endpoint.get("PrivateDnsEnabled")),
            route_table_ids=frozenset(endpoint.get("RouteTableIds", [])),
            policy=_policy(
                f"the policy of endpoint {endpoint['VpcEndpointId']}", endpoint.get("PolicyDocument")
            ),
        )
        for endpoint in account.pages("ec2", "describe_vpc_endpoints", "VpcEndpoints")
        if endpoint.get("State", "available").lower() != "deleted"
    )


def _prefix_lists(account: Account) -> dict[str, str]:
    lists = account.pages("ec2", "describe_managed_prefix_lists", "PrefixLists")
    return {item["PrefixListId"]: item["PrefixListName"] for item in lists}


def _roles(account: Account) -> dict[str, Role]:
    # The filter leaves out the thousand policies that AWS manages; those that are attached are added.
    details: dict[str, list[dict[str, Any]]] = {"RoleDetailList": [], "Policies": []}
    paginator = account.client("iam").get_paginator("get_account_authorization_details")
    for page in paginator.paginate(Filter=["Role", "LocalManagedPolicy"]):
        for key, items in details.items():
            items.extend(page.get(key, []))
    managed = {
        policy["Arn"]: next(
            (version["Document"] for version in policy["PolicyVersionList"] if version["IsDefaultVersion"]),
            None,
        )
        for policy in details["Policies"]
    }
    for arn in {
        attached["PolicyArn"]
        for role in details["RoleDetailList"]
        for attached in role["AttachedManagedPolicies"]
    } - managed.keys():
        managed[arn] = _managed_document(account, arn)
    return {role["Arn"]: _role(role, managed) for role in details["RoleDetailList"]}


def _managed_document(account: Account, arn: str) -> object:
    iam = account.client("iam")
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    return iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]


def _role(role: Mapping[str, Any], managed: Mapping[str, object]) -> Role:
    inline = [
        _policy(f"policy {item['PolicyName']} of role {role['RoleName']}", item["PolicyDocument"])
        for item in role.get("RolePolicyList", [])
    ]
    attached = [
        _policy(f"policy {item['PolicyName']} of role {role['RoleName']}", managed.get(item["PolicyArn"]))
        for item in role.get("AttachedManagedPolicies", [])
    ]
    boundary_arn = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn", "")
    return Role(
        name=role["RoleName"],
        arn=role["Arn"],
        trust=_policy(f"the trust policy of role {role['RoleName']}", role["AssumeRolePolicyDocument"])
        or Policy("no trust policy", {}),
        policies=tuple(policy for policy in (*inline, *attached) if policy),
        boundary=_policy(f"the permissions boundary of role {role['RoleName']}", managed.get(boundary_arn)),
    )


def _absent(work: Callable[[], Any]) -> Any:
    """A value that the API reports as an error where it is not set."""
    try:
        return work()
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status == 404 or error.response["Error"]["Code"].startswith(
            ("NoSuch", "ResourceNotFound", "NotFound")
        ):
            return None
        raise


def _buckets(account: Account) -> dict[str, Bucket]:
    s3 = account.client("s3")

    def bucket(item: Mapping[str, Any]) -> Bucket:
        name = item["Name"]
        found = _absent(lambda: s3.get_bucket_policy(Bucket=name)["Policy"])
        return Bucket(name, _policy(f"the policy of bucket {name}", found))

    return {item.name: item for item in _each(bucket, s3.list_buckets()["Buckets"])}


def _keys(account: Account) -> dict[str, Key]:
    kms = account.client("kms")

    def key(item: Mapping[str, Any]) -> Key:
        found = _absent(lambda: kms.get_key_policy(KeyId=item["KeyId"], PolicyName="default")["Policy"])
        return Key(item["KeyId"], item["KeyArn"], _policy(f"the policy of key {item['KeyId']}", found))

    return {item.arn: item for item in _each(key, account.pages("kms", "list_keys", "Keys"))}


def _apis(account: Account) -> tuple[RestApi, ...]:
    gateway = account.client("apigateway")

    def api(item: Mapping[str, Any]) -> RestApi:
        id = item["id"]  # noqa: A001  AWS's own word
        # Before the resources: a deployment that is found here is found with everything it was made after.
        stages = gateway.get_stages(restApiId=id)["item"]
        resources = account.pages("apigateway", "get_resources", "items", restApiId=id, embed=["methods"])
        validators = {
            found["id"]: RequestValidator(
                bool(found.get("validateRequestBody")), bool(found.get("validateRequestParameters"))
            )
            for found in account.pages("apigateway", "get_request_validators", "items", restApiId=id)
        }
        models = {
            model["name"]: json.loads(model.get("schema") or "{}")
            for model in account.pages("apigateway", "get_models", "items", restApiId=id)
        }
        pairs = [(found["id"], name) for found in resources for name in found.get("resourceMethods") or {}]
        found_methods = _each(lambda pair: _method(gateway, id, pair, validators, models), pairs)
        methods = dict(zip(pairs, found_methods, strict=True))
        return RestApi(
            id=id,
            name=item["name"],
            binary_media_types=tuple(item.get("binaryMediaTypes") or ()),
            gateway_responses={
                found["responseType"]: GatewayResponse(
                    int(found["statusCode"]) if found.get("statusCode") else None,
                    found.get("responseParameters") or {},
                    found.get("responseTemplates") or {},
                )
                for found in gateway.get_gateway_responses(restApiId=id)["items"]
                if not found.get("defaultResponse")
            },
            policy=_policy(f"the resource policy of API {item['name']}", item.get("policy")),
            resources=tuple(
                Resource(
                    found["id"],
                    found["path"],
                    {name: methods[found["id"], name] for name in found.get("resourceMethods") or {}},
                )
                for found in resources
            ),
            stages={
                stage["stageName"]: Stage(
                    stage["stageName"],
                    stage.get("deploymentId", ""),
                    stage.get("variables") or {},
                    {
                        path: Throttle(
                            float(limits["throttlingRateLimit"]), int(limits["throttlingBurstLimit"])
                        )
                        for path, limits in (stage.get("methodSettings") or {}).items()
                        if limits.get("throttlingRateLimit") is not None
                        and limits.get("throttlingBurstLimit") is not None
                    },
                )
                for stage in stages
            },
        )

    return tuple(_each(api, account.pages("apigateway", "get_rest_apis", "items")))


def _method(
    gateway: Any,
    api_id: str,
    pair: tuple[str, str],
    validators: Mapping[str, RequestValidator],
    models: Mapping[str, Mapping[str, Any]],
) -> Method:
    resource_id, name = pair
    found = gateway.get_method(restApiId=api_id, resourceId=resource_id, httpMethod=name)
    wired = found.get("methodIntegration")
    return Method(
        http_method=name,
        authorization=found.get("authorizationType") or "NONE",
        api_key_required=bool(found.get("apiKeyRequired")),
        validator=validators.get(found.get("requestValidatorId") or ""),
        required_parameters=tuple(
            parameter for parameter, required in (found.get("requestParameters") or {}).items() if required
        ),
        models={kind: models.get(model, {}) for kind, model in (found.get("requestModels") or {}).items()},
        integration=Integration(
            type=wired.get("type", ""),
            http_method=wired.get("httpMethod") or name,
            uri=wired.get("uri") or "",
            connection_type=wired.get("connectionType") or "INTERNET",
            connection_id=wired.get("connectionId") or "",
            target=wired.get("integrationTarget") or "",
            parameters=wired.get("requestParameters") or {},
            timeout_ms=int(wired.get("timeoutInMillis") or 29000),
            streams=wired.get("responseTransferMode") == "STREAM",
            credentials=wired.get("credentials") or "",
            content_handling=wired.get("contentHandling") or "",
        )
        if wired
        else None,
    )


def _api_keys(account: Account) -> dict[str, ApiKey]:
    return {
        key["id"]: ApiKey(
            key["id"], key.get("name", ""), key.get("value", ""), bool(key.get("enabled", True))
        )
        for key in account.pages("apigateway", "get_api_keys", "items", includeValues=True)
    }


def _usage_plans(account: Account) -> tuple[UsagePlan, ...]:
    def plan(item: Mapping[str, Any]) -> UsagePlan:
        keys = account.pages("apigateway", "get_usage_plan_keys", "items", usagePlanId=item["id"])
        throttle, quota = item.get("throttle") or {}, item.get("quota") or {}
        return UsagePlan(
            id=item["id"],
            name=item.get("name", ""),
            stages=frozenset((stage["apiId"], stage["stage"]) for stage in item.get("apiStages") or []),
            key_ids=frozenset(key["id"] for key in keys),
            throttle=Throttle(float(throttle["rateLimit"]), int(throttle.get("burstLimit") or 0))
            if throttle.get("rateLimit") is not None
            else None,
            quota=int(quota["limit"]) if quota.get("limit") is not None else None,
            period=quota.get("period") or "DAY",
        )

    return tuple(_each(plan, account.pages("apigateway", "get_usage_plans", "items")))


def _vpc_links(account: Account) -> dict[str, VpcLink]:
    return {
        link["VpcLinkId"]: VpcLink(
            link["VpcLinkId"],
            link["Name"],
            tuple(link.get("SubnetIds", [])),
            tuple(link.get("SecurityGroupIds", [])),
        )
        for link in account.client("apigatewayv2").get_vpc_links().get("Items", [])
    }


def _attributes(client: Any, operation: str, **parameters: str) -> dict[str, str]:
    found = getattr(client, operation)(**parameters)["Attributes"]
    return {item["Key"]: item["Value"] for item in found}


def _load_balancers(account: Account) -> tuple[dict[str, LoadBalancer], dict[str, Listener]]:
    elb = account.client("elbv2")

    def balancer(item: Mapping[str, Any]) -> tuple[LoadBalancer, list[Listener]]:
        arn = item["LoadBalancerArn"]
        attributes = _attributes(elb, "describe_load_balancer_attributes", LoadBalancerArn=arn)
        found = LoadBalancer(
            arn=arn,
            name=item["LoadBalancerName"],
            dns_name=item["DNSName"],
            scheme=item["Scheme"],
            type=item["Type"],
            vpc_id=item["VpcId"],
            subnet_ids=tuple(zone["SubnetId"] for zone in item.get("AvailabilityZones", [])),
            security_group_ids=tuple(item.get("SecurityGroups", [])),
            idle_timeout=float(attributes.get("idle_timeout.timeout_seconds", 60)),
            desync_mode=attributes.get("routing.http.desync_mitigation_mode", "defensive"),
        )
        listeners = account.pages("elbv2", "describe_listeners", "Listeners", LoadBalancerArn=arn)
        return found, [listener(one) for one in listeners]

    def listener(item: Mapping[str, Any]) -> Listener:
        rules = [
            ListenerRule(
                arn=rule["RuleArn"],
                priority=None if rule["Priority"] == "default" else int(rule["Priority"]),
                conditions=tuple(rule.get("Conditions", [])),
                actions=tuple(rule.get("Actions", [])),
                transforms=tuple(rule.get("Transforms", [])),
            )
            for rule in account.pages("elbv2", "describe_rules", "Rules", ListenerArn=item["ListenerArn"])
        ]
        return Listener(
            arn=item["ListenerArn"],
            load_balancer_arn=item["LoadBalancerArn"],
            port=int(item["Port"]),
            protocol=item["Protocol"],
            rules=tuple(
                sorted(rules, key=lambda rule: rule.priority if rule.priority is not None else 1_000_000)
            ),
        )

    balancers = account.pages("elbv2", "describe_load_balancers", "LoadBalancers")
    pairs: list[tuple[LoadBalancer, list[Listener]]] = _each(balancer, balancers)
    return {one.arn: one for one, _ in pairs}, {one.arn: one for _, many in pairs for one in many}


def _target_groups(account: Account) -> dict[str, TargetGroup]:
    elb = account.client("elbv2")

    def group(item: Mapping[str, Any]) -> TargetGroup:
        arn = item["TargetGroupArn"]
        attributes = _attributes(elb, "describe_target_group_attributes", TargetGroupArn=arn)
        return TargetGroup(
            arn=arn,
            name=item["TargetGroupName"],
            protocol=item.get("Protocol", "HTTP"),
            port=int(item.get("Port") or 80),
            vpc_id=item.get("VpcId", ""),
            target_type=item.get("TargetType", "instance"),
            health_path=item.get("HealthCheckPath") or "/",
            health_port=str(item.get("HealthCheckPort") or "traffic-port"),
            health_interval=float(item.get("HealthCheckIntervalSeconds") or 30),
            health_timeout=float(item.get("HealthCheckTimeoutSeconds") or 5),
            healthy_count=int(item.get("HealthyThresholdCount") or 5),
            unhealthy_count=int(item.get("UnhealthyThresholdCount") or 2),
            matcher=(item.get("Matcher") or {}).get("HttpCode") or "200",
            deregistration_delay=float(attributes.get("deregistration_delay.timeout_seconds", 300)),
            least_outstanding=attributes.get("load_balancing.algorithm.type") == "least_outstanding_requests",
        )

    groups = account.pages("elbv2", "describe_target_groups", "TargetGroups")
    return {one.arn: one for one in _each(group, groups)}


def _services(
    account: Account, interface: Callable[..., NetworkInterface]
) -> tuple[tuple[ClusterService, ...], dict[str, TaskDefinition]]:
    ecs = account.client("ecs")
    services: list[ClusterService] = []
    for cluster in account.pages("ecs", "list_clusters", "clusterArns"):
        arns = account.pages("ecs", "list_services", "serviceArns", cluster=cluster)
        for start in range(0, len(arns), 10):  # DescribeServices takes ten
            found = ecs.describe_services(cluster=cluster, services=arns[start : start + 10])["services"]
            services += [_service(item, interface) for item in found if item.get("status") == "ACTIVE"]
    wanted = {service.task_definition_arn for service in services}
    definitions = _each(lambda arn: _task_definition(ecs, arn), wanted)
    return tuple(services), {definition.arn: definition for definition in definitions}


def _service(item: Mapping[str, Any], interface: Callable[..., NetworkInterface]) -> ClusterService:
    wires = (item.get("networkConfiguration") or {}).get("awsvpcConfiguration")
    rollout = item.get("deploymentConfiguration") or {}
    primary: Mapping[str, Any] = next(iter(item.get("deployments") or []), {})
    name = item["serviceName"]
    return ClusterService(
        arn=item["serviceArn"],
        name=name,
        cluster=item["clusterArn"].rpartition("/")[2],
        desired=int(item.get("desiredCount") or 0),
        task_definition_arn=item["taskDefinition"],
        network=interface(f"service {name}", wires["subnets"], wires.get("securityGroups", []))
        if wires
        else None,
        public_address=bool(wires and wires.get("assignPublicIp") == "ENABLED"),
        bindings=tuple(
            TargetBinding(binding["targetGroupArn"], binding["containerName"], int(binding["containerPort"]))
            for binding in item.get("loadBalancers") or []
            if binding.get("targetGroupArn")
        ),
        minimum_percent=int(rollout.get("minimumHealthyPercent", 100)),
        maximum_percent=int(rollout.get("maximumPercent", 200)),
        breaker=_circuit_breaker(rollout.get("deploymentCircuitBreaker") or {}),
        grace_seconds=float(item.get("healthCheckGracePeriodSeconds") or 0),
        deployment=primary.get("id", ""),
        rollout=primary.get("rolloutState", "COMPLETED"),
        unemulated=_unemulated(rollout),
    )


def _circuit_breaker(given: Mapping[str, Any]) -> CircuitBreaker:
    threshold = given.get("thresholdConfiguration") or {}
    kind, value = threshold.get("type") or "BOUNDED_PERCENT", threshold.get("value")
    percent = HALF if value is None else float(value)
    return CircuitBreaker(
        enabled=bool(given.get("enable")),
        rollback=bool(given.get("rollback")),
        resets=bool(given.get("resetOnHealthyTask", True)),
        percent=percent,
        bounded=kind == "BOUNDED_PERCENT",
        limit=int(percent) if kind == "COUNT" else None,
    )


def _unemulated(rollout: Mapping[str, Any]) -> str:
    strategy = rollout.get("strategy") or "ROLLING"
    if strategy != "ROLLING":
        return f"the deployment strategy {strategy}"
    if (rollout.get("alarms") or {}).get("enable"):
        return "deployment alarms"
    return "deployment lifecycle hooks" if rollout.get("lifecycleHooks") else ""


def _task_definition(ecs: Any, arn: str) -> TaskDefinition:
    item = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
    return TaskDefinition(
        arn=item["taskDefinitionArn"],
        family=item["family"],
        revision=int(item["revision"]),
        network_mode=item.get("networkMode") or "bridge",
        task_role_arn=item.get("taskRoleArn") or "",
        execution_role_arn=item.get("executionRoleArn") or "",
        containers=tuple(_container(one) for one in item["containerDefinitions"]),
    )


def _container(item: Mapping[str, Any]) -> Container:
    logging = item.get("logConfiguration") or {}
    return Container(
        name=item["name"],
        image=item["image"],
        command=tuple(item.get("command") or ()),
        entrypoint=tuple(item.get("entryPoint") or ()),
        environment={entry["name"]: entry["value"] for entry in item.get("environment") or []},
        secrets={entry["name"]: entry["valueFrom"] for entry in item.get("secrets") or []},
        ports=tuple(int(entry["containerPort"]) for entry in item.get("portMappings") or []),
        log_driver=logging.get("logDriver", ""),
        log_options=logging.get("options") or {},
        essential=bool(item.get("essential", True)),
        stop_timeout=float(item.get("stopTimeout") or 30),
    )


def _scalable_targets(account: Account) -> tuple[ScalableTarget, ...]:
    return tuple(
        ScalableTarget(
            item["ServiceNamespace"], item["ResourceId"], int(item["MinCapacity"]), int(item["MaxCapacity"])
        )
        for namespace in ("ecs", "sagemaker")
        for item in account.pages(
            "application-autoscaling",
            "describe_scalable_targets",
            "ScalableTargets",
            ServiceNamespace=namespace,
        )
    )


def _scaling_policies(account: Account) -> tuple[ScalingPolicy, ...]:
    found = (
        (item, item.get("TargetTrackingScalingPolicyConfiguration"))
        for namespace in ("ecs", "sagemaker")
        for item in account.pages(
            "application-autoscaling",
            "describe_scaling_policies",
            "ScalingPolicies",
            ServiceNamespace=namespace,
        )
    )
    return tuple(
        ScalingPolicy(
            name=item["PolicyName"],
            namespace=item["ServiceNamespace"],
            resource_id=item["ResourceId"],
            metric=(tracking.get("PredefinedMetricSpecification") or {}).get("PredefinedMetricType", ""),
            target=float(tracking["TargetValue"]),
            queries=tuple(
                _metric_query(query)
                for query in (tracking.get("CustomizedMetricSpecification") or {}).get("Metrics") or []
            ),
        )
        for item, tracking in found
        if tracking
    )


def _metric_query(item: Mapping[str, Any]) -> MetricQuery:
    metric = (item.get("MetricStat") or {}).get("Metric") or {}
    return MetricQuery(
        id=item["Id"],
        expression=item.get("Expression") or "",
        namespace=metric.get("Namespace") or "",
        metric=metric.get("MetricName") or "",
        returned=bool(item.get("ReturnData", True)),
    )


def _functions(account: Account, interface: Callable[..., NetworkInterface]) -> dict[str, Function]:
    client = account.client("lambda")

    def function(listed: Mapping[str, Any]) -> Function:
        name = listed["FunctionName"]
        found = client.get_function(FunctionName=name)
        item = found["Configuration"]
        wires = item.get("VpcConfig") or {}
        policy = _absent(lambda: client.get_policy(FunctionName=name)["Policy"])
        return Function(
            name=name,
            arn=item["FunctionArn"],
            handler=item.get("Handler", ""),
            runtime=item.get("Runtime", ""),
            timeout=float(item.get("Timeout") or 3),
            memory=int(item.get("MemorySize") or 128),
            environment=(item.get("Environment") or {}).get("Variables") or {},
            role_arn=item["Role"],
            network=interface(f"lambda {name}", wires["SubnetIds"], wires.get("SecurityGroupIds", []))
            if wires.get("SubnetIds")
            else None,
            reserved_concurrency=(found.get("Concurrency") or {}).get("ReservedConcurrentExecutions"),
            code_sha256=item.get("CodeSha256", ""),
            code_location=(found.get("Code") or {}).get("Location", ""),
            package_type=item.get("PackageType", "Zip"),
            log_group=(item.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{name}",
            policy=_policy(f"the resource policy of lambda {name}", policy),
        )

    found = _each(function, account.pages("lambda", "list_functions", "Functions"))
    return {one.name: one for one in found}


def _endpoints(
    account: Account, interface: Callable[..., NetworkInterface]
) -> tuple[dict[str, Endpoint], dict[str, Model]]:
    sagemaker = account.client("sagemaker")

    def endpoint(item: Mapping[str, Any]) -> Endpoint:
        found = sagemaker.describe_endpoint(EndpointName=item["EndpointName"])
        pending = found.get("PendingDeploymentSummary") or found
        config = sagemaker.describe_endpoint_config(EndpointConfigName=pending["EndpointConfigName"])
        return Endpoint(
            name=found["EndpointName"],
            arn=found["EndpointArn"],
            config=pending["EndpointConfigName"],
            variants=tuple(_variant(variant) for variant in config["ProductionVariants"]),
            status=found["EndpointStatus"],
        )

    def model(name: str) -> Model:
        found = sagemaker.describe_model(ModelName=name)
        container = found.get("PrimaryContainer") or (found.get("Containers") or [{}])[0]
        source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
        wires = found.get("VpcConfig") or {}
        return Model(
            name=name,
            arn=found["ModelArn"],
            image=container.get("Image", ""),
            environment=container.get("Environment") or {},
            data_uri=source.get("S3Uri") or container.get("ModelDataUrl") or "",
            data_type=source.get("S3DataType") or "S3Object",
            compression=source.get("CompressionType") or "Gzip",
            role_arn=found.get("ExecutionRoleArn") or "",
            network=interface(f"model {name}", wires["Subnets"], wires.get("SecurityGroupIds", []))
            if wires.get("Subnets")
            else None,
            isolated=bool(found.get("EnableNetworkIsolation")),
        )

    endpoints = _each(endpoint, account.pages("sagemaker", "list_endpoints", "Endpoints"))
    names = sorted({variant.model for one in endpoints for variant in one.variants if variant.model})
    models = _each(model, names)
    return {one.name: one for one in endpoints}, {one.name: one for one in models}


def _variant(item: Mapping[str, Any]) -> Variant:
    return Variant(
        name=item["VariantName"],
        model=item.get("ModelName", ""),
        count=int(item.get("InitialInstanceCount") or 1),
        weight=float(item.get("InitialVariantWeight", 1.0)),
        startup_timeout=float(item.get("ContainerStartupHealthCheckTimeoutInSeconds") or 480),
        download_timeout=float(item.get("ModelDataDownloadTimeoutInSeconds") or 3600),
        serverless=bool(item.get("ServerlessConfig")),
    )


ReadError = (BotoCoreError, ClientError)
