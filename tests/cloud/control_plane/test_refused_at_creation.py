"""What the services refuse when a resource is created or changed, of CloudFormation and of boto3 alike."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.control_plane import FRONT, LOGGING, NETWORK, Account, role

from modelstacks.cloud.services.ecs.sizes import is_fargate_size
from modelstacks.targets.ecs_fargate import SIZES


def changed(resources: Mapping[str, Any], logical_id: str, **properties: Any) -> dict[str, Any]:
    """A copy in which one resource has other properties; None takes one away."""
    other = copy.deepcopy(dict(resources))
    own = other[logical_id].setdefault("Properties", {})
    own.update(properties)
    other[logical_id]["Properties"] = {name: value for name, value in own.items() if value is not None}
    return other


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    found: str = error.value.response["Error"]["Code"]
    return found


# --- logs -----------------------------------------------------------------------------------------


def key(*statements: Mapping[str, Any]) -> dict[str, Any]:
    root = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
    root["Principal"] = {"AWS": {"Fn::Sub": "arn:aws:iam::${AWS::AccountId}:root"}}
    policy = {"Version": "2012-10-17", "Statement": [root, *statements]}
    return {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": policy}}


def logs_may(*actions: str, group: str = "log-group:*") -> dict[str, Any]:
    arn = {"Fn::Sub": "arn:aws:logs:${AWS::Region}:${AWS::AccountId}:" + group}
    return {
        "Effect": "Allow",
        "Principal": {"Service": {"Fn::Sub": "logs.${AWS::Region}.amazonaws.com"}},
        "Action": list(actions),
        "Resource": "*",
        "Condition": {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": arn}},
    }


USES = ("kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*")
ENCRYPTED = {"Type": "AWS::Logs::LogGroup", "Properties": {"KmsKeyId": {"Fn::GetAtt": ["Key", "Arn"]}}}


def test_a_log_group_is_encrypted_with_a_key_whose_policy_lets_the_service_use_it(account: Account) -> None:
    account.create("encrypted", {"Key": key(logs_may(*USES)), "Group": ENCRYPTED})


@pytest.mark.parametrize(
    ("statements", "missing"),
    [
        ([], "kms:Encrypt, kms:Decrypt"),
        (
            [logs_may("kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:Describe*")],
            "kms:GenerateDataKey",
        ),
        ([logs_may(*USES, group="log-group:/another")], "kms:Encrypt"),
    ],
    ids=["no statement", "an action short", "another group's"],
)
def test_a_log_group_is_refused_a_key_whose_policy_lacks_the_service(
    account: Account, statements: list[dict[str, Any]], missing: str
) -> None:
    reason = account.refuse("unencrypted", {"Key": key(*statements), "Group": ENCRYPTED})["Group"]
    assert reason.startswith("The specified KMS key does not exist or is not allowed to be used with Arn ")
    assert "does not let logs.eu-west-1.amazonaws.com use " in reason
    assert missing in reason
    assert "AccessDeniedException" in reason


def test_a_log_group_is_not_given_such_a_key_later_either(account: Account) -> None:
    plain = {"Key": key(), "Group": {"Type": "AWS::Logs::LogGroup"}}
    ids = account.create("later", plain)
    assert (
        "is not allowed to be used" in account.refuse_update("later", plain | {"Group": ENCRYPTED})["Group"]
    )
    logs = account.client("logs")
    with pytest.raises(ClientError, match="is not allowed to be used with Arn") as error:
        logs.associate_kms_key(logGroupName=ids["Group"], kmsKeyId="no-such-key")
    assert code(error) == "AccessDeniedException"
    allowed = {"Key": key(logs_may(*USES)), "Group": ENCRYPTED}
    account.update("later", allowed)
    (found,) = logs.describe_log_groups(logGroupNamePrefix=ids["Group"])["logGroups"]
    assert found["kmsKeyId"].endswith(ids["Key"])
    account.update("later", plain)
    (found,) = logs.describe_log_groups(logGroupNamePrefix=ids["Group"])["logGroups"]
    assert "kmsKeyId" not in found


def targets(**properties: Any) -> dict[str, Any]:
    own = {"Port": 8080, "Protocol": "HTTP", "TargetType": "ip", "VpcId": {"Ref": "Vpc"}, **properties}
    return {"Type": "AWS::ElasticLoadBalancingV2::TargetGroup", "Properties": own}


BALANCED = NETWORK | FRONT | {"Targets": targets()}


# --- API Gateway ----------------------------------------------------------------------------------


@pytest.fixture
def no_role(account: Account) -> Iterator[Account]:
    """An account whose APIs may not write logs."""
    operation = {"op": "replace", "path": "/cloudwatchRoleArn", "value": ""}
    account.client("apigateway").update_account(patchOperations=[operation])
    yield account
    account.client("apigateway").update_account(patchOperations=[operation])


def api(**stage: Any) -> dict[str, Any]:
    reference = {"RestApiId": {"Ref": "Api"}}
    place = {"ResourceId": {"Fn::GetAtt": ["Api", "RootResourceId"]}, "HttpMethod": "GET"}
    method = {**reference, **place, "AuthorizationType": "NONE", "Integration": {"Type": "MOCK"}}
    return {
        "Api": {"Type": "AWS::ApiGateway::RestApi", "Properties": {"Name": "api"}},
        "Method": {"Type": "AWS::ApiGateway::Method", "Properties": method},
        "Deployment": {
            "Type": "AWS::ApiGateway::Deployment",
            "Properties": reference,
            "DependsOn": "Method",
        },
        "Stage": {
            "Type": "AWS::ApiGateway::Stage",
            "Properties": {**reference, "StageName": "live", "DeploymentId": {"Ref": "Deployment"}, **stage},
        },
    }


ACCESS_LOG = {
    "DestinationArn": "arn:aws:logs:eu-west-1:123456789012:log-group:g",
    "Format": "$context.requestId",
}
LOGGING_STAGES: list[dict[str, Any]] = [
    {"AccessLogSetting": ACCESS_LOG},
    {"MethodSettings": [{"HttpMethod": "*", "ResourcePath": "/*", "LoggingLevel": "ERROR"}]},
    {"MethodSettings": [{"HttpMethod": "*", "ResourcePath": "/*", "DataTraceEnabled": True}]},
]


@pytest.mark.parametrize("stage", LOGGING_STAGES, ids=["access log", "execution log", "data trace"])
def test_a_stage_logs_only_once_the_account_has_a_role(no_role: Account, stage: dict[str, Any]) -> None:
    reasons = no_role.refuse("logless", api(**stage))
    assert reasons["Stage"].startswith(
        "CloudWatch Logs role ARN must be set in account settings to enable logging"
    )
    resources = copy.deepcopy(api(**stage) | LOGGING)
    resources["Stage"]["DependsOn"] = "Account"
    no_role.create("logging", resources)


def test_a_stage_without_logs_needs_no_role(no_role: Account) -> None:
    silent = {"HttpMethod": "*", "ResourcePath": "/*", "LoggingLevel": "OFF", "MetricsEnabled": True}
    ids = no_role.create("silent", api(MethodSettings=[silent]))
    on = {"op": "replace", "path": "/*/*/logging/loglevel", "value": "INFO"}
    with pytest.raises(ClientError, match="CloudWatch Logs role ARN must be set") as error:
        no_role.client("apigateway").update_stage(
            restApiId=ids["Api"], stageName="live", patchOperations=[on]
        )
    assert code(error) == "BadRequestException"


WRITES = {"Effect": "Allow", "Action": "logs:*", "Resource": "*"}


@pytest.mark.parametrize(
    ("roles", "missing"),
    [
        (
            {"LogsRole": role("lambda.amazonaws.com", WRITES)},
            "does not let apigateway.amazonaws.com assume it",
        ),
        ({"LogsRole": role("apigateway.amazonaws.com")}, "do not allow logs:CreateLogGroup"),
    ],
    ids=["trust", "permissions"],
)
def test_the_account_takes_no_role_that_cannot_write_logs(
    no_role: Account, roles: dict[str, Any], missing: str
) -> None:
    reason = no_role.refuse("wrong-role", LOGGING | roles)["Account"]
    assert reason.startswith("The role ARN does not have required permissions configured.")
    assert missing in reason
    assert not no_role.client("apigateway").get_account().get("cloudwatchRoleArn")


@pytest.mark.parametrize(
    ("timeout", "more", "limit"),
    [(29_001, {}, 29_000), (900_001, {"ResponseTransferMode": "STREAM"}, 900_000)],
)
def test_an_integration_times_out_within_the_quota(
    account: Account, timeout: int, more: dict[str, Any], limit: int
) -> None:
    def integration(milliseconds: int) -> dict[str, Any]:
        return {
            "Type": "HTTP_PROXY",
            "IntegrationHttpMethod": "GET",
            "Uri": "https://example.com",
            "TimeoutInMillis": milliseconds,
            **more,
        }

    reasons = account.refuse("hasty", changed(api(), "Method", Integration=integration(timeout)))
    assert reasons["Method"].startswith(f"Timeout should be between 50 ms and {limit} ms")
    ids = account.create("patient", changed(api(), "Method", Integration=integration(limit)))
    gateway = account.client("apigateway")
    refused = changed(api(), "Method", Integration=integration(timeout))
    assert "Timeout should be between" in account.refuse_update("patient", refused)["Method"]
    (root,) = gateway.get_resources(restApiId=ids["Api"])["items"]
    kept = gateway.get_integration(restApiId=ids["Api"], resourceId=root["id"], httpMethod="GET")
    assert kept["timeoutInMillis"] == limit
    with pytest.raises(ClientError, match="Timeout should be between 50 ms and 29000 ms"):
        gateway.put_integration(
            restApiId=ids["Api"], resourceId=root["id"], httpMethod="GET", type="MOCK", timeoutInMillis=49
        )


LINK = {
    "Type": "AWS::ApiGatewayV2::VpcLink",
    "Properties": {"Name": "l", "SubnetIds": [{"Ref": "Subnet"}], "SecurityGroupIds": [{"Ref": "Group"}]},
}


def private(**target: Any) -> dict[str, Any]:
    """An API that sends to a load balancer over a VPC link."""
    integration = {
        "Type": "HTTP_PROXY",
        "IntegrationHttpMethod": "GET",
        "Uri": "http://balancer.internal",
        "ConnectionType": "VPC_LINK",
        "ConnectionId": {"Ref": "Link"},
        **target,
    }
    return BALANCED | {"Link": LINK} | changed(api(), "Method", Integration=integration)


def test_a_private_integration_sends_to_a_load_balancer(account: Account) -> None:
    ids = account.create("private", private(IntegrationTarget={"Ref": "Balancer"}))
    account.delete("private")
    listener = account.refuse("listener", private(IntegrationTarget={"Ref": "Listener"}))["Method"]
    assert ":listener/app/" in listener
    assert "is not a valid ALB or NLB arn" in listener
    assert "Error Code: BadRequestException" in listener
    nowhere = account.refuse("nowhere", private())["Method"]
    assert nowhere.startswith("IntegrationTarget is required for VpcLinkV2")
    assert ids["Link"]


# --- networks -------------------------------------------------------------------------------------


def interface(service: str = "sagemaker.runtime", **properties: Any) -> dict[str, Any]:
    own = {
        "ServiceName": {"Fn::Sub": f"com.amazonaws.${{AWS::Region}}.{service}"},
        "VpcId": {"Ref": "Vpc"},
        "VpcEndpointType": "Interface",
        "PrivateDnsEnabled": True,
        "SubnetIds": [{"Ref": "Subnet"}, {"Ref": "Other"}],
        **properties,
    }
    kept = {name: value for name, value in own.items() if value is not None}
    return {"Type": "AWS::EC2::VPCEndpoint", "Properties": kept}


@pytest.mark.parametrize("attribute", ["EnableDnsSupport", "EnableDnsHostnames"])
def test_private_dns_needs_the_network_s_dns(account: Account, attribute: str) -> None:
    network = changed(NETWORK, "Vpc", **{attribute: False})
    reason = account.refuse("no-dns", network | {"Endpoint": interface()})["Endpoint"]
    assert reason.startswith(
        "Enabling private DNS requires both enableDnsSupport and enableDnsHostnames VPC attributes set to"
    )
    account.create("no-private-dns", network | {"Endpoint": interface(PrivateDnsEnabled=None)})


def test_private_dns_can_be_switched_on_where_the_network_has_dns(account: Account) -> None:
    resources = NETWORK | {"Endpoint": interface(PrivateDnsEnabled=False)}
    ids = account.create("switched", resources)
    ec2 = account.client("ec2")
    ec2.modify_vpc_attribute(VpcId=ids["Vpc"], EnableDnsHostnames={"Value": False})
    with pytest.raises(ClientError, match="Enabling private DNS requires both") as error:
        ec2.modify_vpc_endpoint(VpcEndpointId=ids["Endpoint"], PrivateDnsEnabled=True)
    assert code(error) == "InvalidParameter"
    ec2.modify_vpc_attribute(VpcId=ids["Vpc"], EnableDnsHostnames={"Value": True})
    account.update("switched", resources | {"Endpoint": interface()})
    (found,) = ec2.describe_vpc_endpoints(VpcEndpointIds=[ids["Endpoint"]])["VpcEndpoints"]
    assert found["PrivateDnsEnabled"] is True


def test_one_service_has_one_private_name_in_a_network(account: Account) -> None:
    first = NETWORK | {"First": interface()}
    second = {**interface(), "DependsOn": "First"}
    reason = account.refuse("twice", first | {"Second": second})["Second"]
    assert (
        "already a conflicting DNS domain for runtime.sagemaker.eu-west-1.amazonaws.com in the VPC" in reason
    )
    account.create("apart", first | {"Second": {**interface("logs"), "DependsOn": "First"}})


def subnet(cidr: str, zone: int) -> dict[str, Any]:
    place = {"Fn::Select": [zone, {"Fn::GetAZs": ""}]}
    properties = {"VpcId": {"Ref": "Vpc"}, "CidrBlock": cidr, "AvailabilityZone": place}
    return {"Type": "AWS::EC2::Subnet", "Properties": properties}


def test_an_interface_endpoint_has_one_subnet_a_zone(account: Account) -> None:
    network = NETWORK | {"Other": subnet("10.0.1.0/24", 0)}
    reason = account.refuse("one-zone", network | {"Endpoint": interface()})["Endpoint"]
    assert reason.startswith("Found another VPC endpoint subnet in the availability zone of subnet-")
    assert "DuplicateSubnetsInSameZone" in reason


# --- load balancers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resources", "reason"),
    [
        (
            changed(BALANCED, "Balancer", Subnets=[{"Ref": "Subnet"}]),
            "At least two subnets in two different Availability Zones must be specified",
        ),
        (
            BALANCED | {"Other": subnet("10.0.1.0/24", 0)},
            "A load balancer cannot be attached to multiple subnets in the same Availability Zone",
        ),
        (
            changed(
                BALANCED,
                "Balancer",
                LoadBalancerAttributes=[{"Key": "idle_timeout.timeout_seconds", "Value": "4001"}],
            ),
            "'idle_timeout.timeout_seconds' value '4001' must be between '1-4000' inclusive",
        ),
        (
            changed(
                BALANCED,
                "Balancer",
                LoadBalancerAttributes=[{"Key": "routing.http.desync_mitigation_mode", "Value": "strict"}],
            ),
            "'routing.http.desync_mitigation_mode' value 'strict' must be one of [monitor, defensive",
        ),
        (
            BALANCED | {"Targets": targets(HealthCheckIntervalSeconds=10, HealthCheckTimeoutSeconds=10)},
            "Health check interval must be greater than the timeout.",
        ),
        (
            BALANCED | {"Targets": targets(HealthCheckIntervalSeconds=5)},
            "Health check interval must be greater than the timeout.",
        ),
    ],
    ids=[
        "one subnet", "one zone", "idle timeout", "desync mode", "interval as timeout",
        "interval as default timeout",
    ],
)  # fmt: skip
def test_a_load_balancer_is_refused(account: Account, resources: dict[str, Any], reason: str) -> None:
    (found,) = account.refuse("unbalanced", resources).values()
    assert found.startswith(reason)
    balancing = account.client("elbv2")
    assert balancing.describe_load_balancers()["LoadBalancers"] == []  # a half-made one is deleted too
    assert balancing.describe_target_groups()["TargetGroups"] == []


def test_a_load_balancer_needs_eight_free_addresses_in_each_subnet(account: Account) -> None:
    # A /28 has eleven: AWS keeps five for itself.
    roomy = account.create("roomy", NETWORK | {"Small": subnet("10.0.2.0/28", 1)})
    ec2 = account.client("ec2")
    taken = [ec2.create_network_interface(SubnetId=roomy["Small"])["NetworkInterface"] for _ in range(4)]
    balancer = changed(BALANCED, "Balancer", Subnets=[roomy["Subnet"], roomy["Small"]])["Balancer"]
    del balancer["Properties"]["SecurityGroups"]
    reason = account.refuse("full", {"Balancer": balancer})["Balancer"]
    assert reason.startswith(
        f"Not enough IP space available in {roomy['Small']}. ELB requires at least 8 free"
    )
    ec2.delete_network_interface(NetworkInterfaceId=taken.pop()["NetworkInterfaceId"])
    account.create("fits", {"Balancer": balancer})
    for interface_ in taken:
        ec2.delete_network_interface(NetworkInterfaceId=interface_["NetworkInterfaceId"])


def test_a_load_balancer_keeps_two_zones_and_its_health_checks_their_bounds(account: Account) -> None:
    ids = account.create("balanced", BALANCED | {"Third": subnet("10.0.2.0/24", 1)})
    balancing = account.client("elbv2")
    with pytest.raises(ClientError, match="At least two subnets in two different") as error:
        balancing.set_subnets(LoadBalancerArn=ids["Balancer"], Subnets=[ids["Subnet"]])
    assert code(error) == "ValidationError"
    balancing.set_subnets(LoadBalancerArn=ids["Balancer"], Subnets=[ids["Subnet"], ids["Third"]])
    for change, said in (
        ({"HealthCheckTimeoutSeconds": 30}, "Health check interval must be greater than the timeout"),
        ({"HealthCheckIntervalSeconds": 301}, "Value '301' at 'healthCheckIntervalSeconds' failed"),
        ({"HealthCheckTimeoutSeconds": 121}, "Value '121' at 'healthCheckTimeoutSeconds' failed"),
    ):
        with pytest.raises(ClientError, match=said):
            balancing.modify_target_group(TargetGroupArn=ids["Targets"], **change)


@pytest.mark.parametrize(
    ("regex", "replace", "said"),
    [
        ("^/live(", "$1", r"is not valid: missing \), unterminated subpattern"),
        ("^/live(/.*)$", "$2", "refers to a group that the regex"),
        ("a" * 1025, "x", "at most 1024 characters"),
    ],
)
def test_a_rule_whose_pattern_could_not_be_applied_is_refused(
    account: Account, regex: str, replace: str, said: str
) -> None:
    ids = account.create("balanced", BALANCED)
    balancing = account.client("elbv2")
    answer = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}
    listener = balancing.create_listener(
        LoadBalancerArn=ids["Balancer"], Protocol="HTTP", Port=8080, DefaultActions=[answer]
    )["Listeners"][0]["ListenerArn"]
    conditions = [{"Field": "path-pattern", "Values": ["/*"]}]
    rewrites = {"Rewrites": [{"Regex": regex, "Replace": replace}]}
    transforms = [{"Type": "url-rewrite", "UrlRewriteConfig": rewrites}]
    rule = {"ListenerArn": listener, "Conditions": conditions, "Actions": [answer]}
    with pytest.raises(ClientError, match=said) as error:
        balancing.create_rule(**rule, Priority=1, Transforms=transforms)
    assert code(error) == "ValidationError"
    made = balancing.create_rule(**rule, Priority=1)["Rules"][0]["RuleArn"]
    with pytest.raises(ClientError, match=said):
        balancing.modify_rule(RuleArn=made, Transforms=transforms)


# --- ECS ------------------------------------------------------------------------------------------


def task(**properties: Any) -> dict[str, Any]:
    container = {"Name": "server", "Image": "public/image:1", "PortMappings": [{"ContainerPort": 8080}]}
    own = {
        "Cpu": "256",
        "Memory": "512",
        "NetworkMode": "awsvpc",
        "RequiresCompatibilities": ["FARGATE"],
        "ContainerDefinitions": [{**container, **properties.pop("container", {})}],
        **properties,
    }
    kept = {name: value for name, value in own.items() if value is not None}
    return {"Type": "AWS::ECS::TaskDefinition", "Properties": kept}


AWSLOGS = {"LogDriver": "awslogs", "Options": {"awslogs-group": "g", "awslogs-region": "eu-west-1"}}


@pytest.mark.parametrize(
    ("faulty", "reason"),
    [
        (
            task(Cpu="512", Memory="512"),
            "No Fargate configuration exists for given values: 512 CPU, 512 memory.",
        ),
        (task(Cpu="300"), "No Fargate configuration exists for given values: 300 CPU, 512 memory."),
        (task(Cpu=None), "Fargate requires that 'cpu' be defined at the task level."),
        (task(Memory=None), "Fargate requires that 'memory' be defined at the task level."),
        (task(NetworkMode="bridge"), "Fargate only supports network mode"),
        (
            task(container={"LogConfiguration": AWSLOGS}),
            "Fargate requires task definition to have execution role ARN to support log driver awslogs.",
        ),
        (
            task(container={"Image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/images:1"}),
            "Fargate requires task definition to have execution role ARN to support ECR images.",
        ),
        (task(container={"StopTimeout": 121}), "Invalid 'stopTimeout' setting for container 'server'"),
        (
            task(container={"Memory": 1024}),
            "The 'memory' setting for container 'server' is greater than for the task.",
        ),
        (
            task(container={"HealthCheck": {"Command": ["CMD", "true"], "Interval": 4}}),
            "Invalid health check 'interval' of container 'server': 4 is not between 5 and 300 seconds.",
        ),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_a_fargate_task_is_refused(account: Account, faulty: dict[str, Any], reason: str) -> None:
    found = account.refuse("tasks", {"Task": faulty})["Task"]
    assert found.startswith(reason)
    assert "Error Code: ClientException" in found


def test_fargate_s_sizes_are_those_that_a_spec_may_ask_for() -> None:
    for cpu, offered in SIZES.items():
        for memory in range(512, 131_072, 512):
            assert is_fargate_size(str(cpu), str(memory)) == (memory in offered), (cpu, memory)


def service(**changes: Any) -> dict[str, Any]:
    network = {"Subnets": [{"Ref": "Subnet"}], "SecurityGroups": [{"Ref": "Group"}]}
    balanced = {"ContainerName": "server", "ContainerPort": 8080, "TargetGroupArn": {"Ref": "Targets"}}
    own = {
        "Cluster": {"Ref": "Cluster"},
        "TaskDefinition": {"Ref": "Task"},
        "LaunchType": "FARGATE",
        "NetworkConfiguration": {"AwsvpcConfiguration": network},
        "LoadBalancers": [{**balanced, **changes.pop("balanced", {})}],
        **changes,
    }
    kept = {name: value for name, value in own.items() if value is not None}
    return {"Type": "AWS::ECS::Service", "DependsOn": "Listener", "Properties": kept}


SERVICE = BALANCED | {"Cluster": {"Type": "AWS::ECS::Cluster"}, "Task": task(), "Service": service()}
#: On instances, in their network.
BRIDGED = {
    "Task": task(NetworkMode="bridge", RequiresCompatibilities=["EC2"], container={"Memory": 256}),
    "Service": service(LaunchType="EC2", NetworkConfiguration=None),
}


@pytest.mark.parametrize(
    ("faulty", "reason"),
    [
        (
            SERVICE | {"Targets": targets(TargetType="instance")},
            "has target type instance, which is incompatible with the awsvpc network mode specified",
        ),
        (
            SERVICE | BRIDGED,
            "has target type ip, which is incompatible with the bridge network mode specified",
        ),
        (
            SERVICE | {"Service": service(NetworkConfiguration=None)},
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
        ),
        (
            SERVICE | {"Service": service(balanced={"ContainerPort": 9090})},
            "The container server did not have a container port 9090 defined.",
        ),
        (
            SERVICE | {"Service": service(balanced={"ContainerName": "other"})},
            "The container other does not exist in the task definition.",
        ),
        (
            SERVICE | {"Task": task(RequiresCompatibilities=["EC2"], container={"Memory": 256})},
            "Task definition does not support launch_type FARGATE.",
        ),
        (
            {name: one for name, one in SERVICE.items() if name != "Listener"}
            | {"Service": {name: one for name, one in service().items() if name != "DependsOn"}},
            "does not have an associated load balancer.",
        ),
    ],
    ids=[
        "target type instance",
        "target type ip",
        "network",
        "port",
        "container",
        "launch type",
        "no listener",
    ],
)
def test_a_service_is_refused(account: Account, faulty: dict[str, Any], reason: str) -> None:
    found = account.refuse("services", faulty)["Service"]
    assert reason in found
    assert "Error Code: InvalidParameterException" in found


def test_a_service_is_not_updated_to_a_task_that_does_not_fit(account: Account) -> None:
    ids = account.create("fitting", SERVICE)
    ecs = account.client("ecs")
    other = ecs.register_task_definition(
        family="other",
        cpu="256",
        memory="512",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        containerDefinitions=[{"name": "other", "image": "public/image:1"}],
    )["taskDefinition"]["taskDefinitionArn"]
    with pytest.raises(ClientError, match="container server does not exist in the task definition"):
        ecs.update_service(cluster=ids["Cluster"], service=ids["Service"], taskDefinition=other)
    account.client("ecs").update_service(cluster=ids["Cluster"], service=ids["Service"], desiredCount=2)


# --- Lambda ---------------------------------------------------------------------------------------


def function(**properties: Any) -> dict[str, Any]:
    own = {
        "Runtime": "python3.13",
        "Handler": "index.handler",
        "Code": {"ZipFile": "def handler(event, context): pass"},
        "Role": {"Fn::GetAtt": ["FunctionRole", "Arn"]},
        **properties,
    }
    return {
        "FunctionRole": role("lambda.amazonaws.com"),
        "Function": {"Type": "AWS::Lambda::Function", "Properties": own},
    }


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        (
            {"Runtime": "python3.6"},
            "The runtime parameter of python3.6 is no longer supported for creating or updating AWS Lambda",
        ),
        (
            {"Timeout": 901},
            "1 validation error detected: Value '901' at 'timeout' failed to satisfy constraint",
        ),
        (
            {"MemorySize": 10_241},
            "1 validation error detected: Value '10241' at 'memorySize' failed to satisfy",
        ),
    ],
)
def test_a_function_is_refused(account: Account, properties: dict[str, Any], reason: str) -> None:
    assert account.refuse("functions", function(**properties))["Function"].startswith(reason)


def test_a_function_within_the_limits_is_made_and_not_changed_beyond_them(account: Account) -> None:
    ids = account.create("function", function(Timeout=900, MemorySize=10_240))
    client = account.client("lambda")
    for change, kind in (
        ({"Timeout": 901}, "ValidationException"),
        ({"Runtime": "python3.6"}, "InvalidParameterValueException"),
        ({"Runtime": "python9.9"}, "InvalidParameterValueException"),
    ):
        with pytest.raises(ClientError) as error:
            client.update_function_configuration(FunctionName=ids["Function"], **change)
        assert code(error) == kind
    assert json.dumps(client.get_function_configuration(FunctionName=ids["Function"])["Timeout"]) == "900"


def test_a_reservation_leaves_a_hundred_executions_to_the_others(account: Account) -> None:
    reason = account.refuse("greedy", function(ReservedConcurrentExecutions=901))["Function"]
    assert reason.startswith(
        "Specified ReservedConcurrentExecutions for function decreases account's "
        "UnreservedConcurrentExecution below its minimum value of [100]."
    )
    client = account.client("lambda")
    assert client.list_functions()["Functions"] == []
    ids = account.create("first", function(ReservedConcurrentExecutions=500))
    account.create("second", function(ReservedConcurrentExecutions=400))
    assert (
        "below its minimum value"
        in account.refuse("third", function(ReservedConcurrentExecutions=1))["Function"]
    )
    none = account.create("stopped", function(ReservedConcurrentExecutions=0))["Function"]
    assert client.get_function(FunctionName=none)["Concurrency"] == {"ReservedConcurrentExecutions": 0}
    with pytest.raises(ClientError, match="below its minimum value") as error:
        client.put_function_concurrency(FunctionName=ids["Function"], ReservedConcurrentExecutions=501)
    assert code(error) == "InvalidParameterValueException"
    client.put_function_concurrency(FunctionName=ids["Function"], ReservedConcurrentExecutions=499)


# --- SageMaker ------------------------------------------------------------------------------------

REPOSITORY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/images"
DOCKER, OCI = "docker.distribution.manifest.v2", "oci.image.manifest.v1"


@pytest.fixture
def images(account: Account) -> Iterator[Account]:
    """An account with a repository of two images, whose manifests differ in kind."""
    ecr = account.client("ecr")
    ecr.create_repository(repositoryName="images")
    for tag, kind in (("docker", DOCKER), ("oci", OCI)):
        media_type = f"application/vnd.{kind}+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": f"{media_type}.{tag}", "size": 2, "digest": "sha256:" + "0" * 64},
            "layers": [],
        }
        ecr.put_image(
            repositoryName="images",
            imageTag=tag,
            imageManifest=json.dumps(manifest),
            imageManifestMediaType=media_type,
        )
    yield account
    ecr.delete_repository(repositoryName="images", force=True)


def endpoint(tag: str = "docker", instance: str = "ml.m5.large", variant: str = "main") -> dict[str, Any]:
    """An endpoint of one variant, which scales."""
    model = {
        "ExecutionRoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
        "PrimaryContainer": {"Image": f"{REPOSITORY}:{tag}"},
    }
    production = {
        "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
        "VariantName": variant,
        "InstanceType": instance,
        "InitialInstanceCount": 1,
        "InitialVariantWeight": 1,
    }
    resource = {"Fn::Sub": f"endpoint/${{Endpoint.EndpointName}}/variant/{variant}"}
    capacity = {
        "MinCapacity": 1,
        "MaxCapacity": 2,
        "ServiceNamespace": "sagemaker",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        "ResourceId": resource,
    }
    return {
        "Role": role("sagemaker.amazonaws.com"),
        "Model": {"Type": "AWS::SageMaker::Model", "Properties": model},
        "Config": {
            "Type": "AWS::SageMaker::EndpointConfig",
            "Properties": {"ProductionVariants": [production]},
        },
        "Endpoint": {
            "Type": "AWS::SageMaker::Endpoint",
            "Properties": {"EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]}},
        },
        "Capacity": {"Type": "AWS::ApplicationAutoScaling::ScalableTarget", "Properties": capacity},
    }


def test_a_model_s_image_has_a_docker_manifest(images: Account) -> None:
    reason = images.refuse("oci", endpoint("oci"))["Model"]
    assert reason.startswith(
        f"Unsupported manifest media type application/vnd.{OCI}+json for image {REPOSITORY}:oci. "
        "Ensure that valid manifest media type is used for specified image."
    )
    arn = images.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    with pytest.raises(ClientError, match="Unsupported manifest media type"):
        images.client("sagemaker").create_model(
            ModelName="oci", ExecutionRoleArn=arn, Containers=[{"Image": f"{REPOSITORY}:oci"}]
        )
    images.client("iam").delete_role(RoleName="r")
    images.create("docker", endpoint("docker"))


@pytest.mark.parametrize(
    ("instance", "variant"), [("ml.m5.xlarge", "main"), ("ml.m5.large", "other")], ids=["type", "removed"]
)
def test_a_variant_that_scales_keeps_its_instance_type(images: Account, instance: str, variant: str) -> None:
    before = endpoint()
    images.create("scaled", before)
    after = endpoint(instance=instance, variant=variant)
    after["Capacity"] = before["Capacity"]
    reason = images.refuse_update("scaled", after)["Endpoint"]
    assert (
        "must be deregistered as scalable targets with AWS Auto Scaling before they can be removed" in reason
    )
    unscaled = {name: one for name, one in before.items() if name != "Capacity"}
    images.update("scaled", unscaled)
    images.update("scaled", {name: one for name, one in after.items() if name != "Capacity"})
