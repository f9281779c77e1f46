"""Rules that both templates keep, each for its own sake: a function whose name says the rule.

A rule yields what breaks it. Nothing here compares with an earlier template.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import botocore.session
from mutation.roles import roles_may_do_what_their_holders_need  # noqa: F401  one of RULES

Document = dict[str, Any]
Rule = Callable[["Stack"], Iterator[str]]

# Actions that IAM's service authorization reference lists without a resource type, or whose resource is not
# known before the call.
WITHOUT_RESOURCE = (
    "ecr:GetAuthorizationToken",
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "cloudwatch:PutMetricData",
    "ec2:Describe",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
)
MODEL_SERVER_KEEPS_SECONDS = 75  # an idle connection (serving/model_server/settings.py)


class Stack:
    """A template, asked for its resources."""

    def __init__(self, document: Document) -> None:
        self.resources: dict[str, Document] = document["Resources"]

    def of(self, kind: str) -> dict[str, Document]:
        """Logical id -> properties, of one type."""
        return {
            name: resource.get("Properties", {})
            for name, resource in self.resources.items()
            if resource["Type"] == kind
        }

    def one(self, kind: str) -> Document:
        """The properties of the only resource of a type; {} where there is none."""
        return next(iter(self.of(kind).values()), {})

    def waits(self, name: str, kind: str) -> bool:
        """Whether a resource waits for every resource of a type, by DependsOn or by a reference."""
        resource = self.resources[name]
        text = json.dumps(resource.get("Properties", {}))
        return all(other in resource.get("DependsOn", []) or f'"{other}"' in text for other in self.of(kind))

    def statements(self) -> Iterator[tuple[str, Document]]:
        """Each statement of each role's policies, with the role or the policy that has it."""
        for name, policy in self.of("AWS::IAM::Policy").items():
            for statement in policy["PolicyDocument"]["Statement"]:
                yield name, statement
        for name, role in self.of("AWS::IAM::Role").items():
            for policy in role.get("Policies", []):
                for statement in policy["PolicyDocument"]["Statement"]:
                    yield name, statement

    @property
    def self_hosted(self) -> bool:
        return bool(self.of("AWS::ECS::TaskDefinition") or self.of("AWS::ECS::Service"))


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def attributes(properties: Document, key: str) -> dict[str, Any]:
    """A list of Key and Value as a mapping."""
    return {one["Key"]: one["Value"] for one in properties.get(key, [])}


# functional ---------------------------------------------------------------------------------


def every_hop_is_open_at_both_ends(stack: Stack) -> Iterator[str]:
    def name(value: Any) -> str:
        return str(value["Fn::GetAtt"][0]) if isinstance(value, dict) else str(value)

    entries = {
        (name(one["SourceSecurityGroupId"]), name(one["GroupId"]), one["FromPort"], one["ToPort"])
        for one in stack.of("AWS::EC2::SecurityGroupIngress").values()
    }
    exits = {
        (group, name(one["DestinationSecurityGroupId"]), one["FromPort"], one["ToPort"])
        for group, properties in stack.of("AWS::EC2::SecurityGroup").items()
        for one in properties.get("SecurityGroupEgress", [])
        if "DestinationSecurityGroupId" in one
    }
    for one in entries ^ exits:
        yield f"{one[0]} -> {one[1]} on port {one[2]} is open at one end only"


def ports_agree_from_the_balancer_to_the_container(stack: Stack) -> Iterator[str]:
    if not stack.self_hosted:
        return
    target = stack.one("AWS::ElasticLoadBalancingV2::TargetGroup").get("Port")
    service = stack.one("AWS::ECS::Service")["LoadBalancers"][0]["ContainerPort"]
    [container] = stack.one("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    opened = {
        one["FromPort"]
        for one in stack.of("AWS::EC2::SecurityGroupIngress").values()
        if one["Description"] == "load balancer to model servers"
    }
    ports = {target, service, container["PortMappings"][0]["ContainerPort"], *opened}
    if len(ports) != 1:
        yield f"different ports on the way to the container: {sorted(map(str, ports))}"


def the_balancer_answers_with_and_without_the_stage(stack: Stack) -> Iterator[str]:
    for rule in stack.of("AWS::ElasticLoadBalancingV2::ListenerRule").values():
        patterns = rule["Conditions"][0]["PathPatternConfig"]["Values"]
        rewrites = [
            rewrite
            for transform in rule.get("Transforms", [])
            for rewrite in transform["UrlRewriteConfig"]["Rewrites"]
        ]
        if patterns != ["/*"] or rewrites != [{"Regex": "^/live(/.*)$", "Replace": "$1"}]:
            yield "the listener rule loses requests with, or without, the stage in their path"


def methods_go_to_the_balancer_through_the_link(stack: Stack) -> Iterator[str]:
    balancers = list(stack.of("AWS::ElasticLoadBalancingV2::LoadBalancer"))
    for name, method in stack.of("AWS::ApiGateway::Method").items():
        integration = method.get("Integration", {})
        if not integration:
            yield f"{name} has no integration"
        elif balancers and (
            integration.get("IntegrationTarget") != {"Ref": balancers[0]}
            or integration.get("ConnectionType") != "VPC_LINK"
            or integration.get("Type") != "HTTP_PROXY"
        ):
            yield f"{name} does not reach the load balancer through the VPC link"
        elif not balancers and (
            integration.get("Type") != "AWS_PROXY" or integration.get("IntegrationHttpMethod") != "POST"
        ):
            yield f"{name} does not invoke the function as Lambda is invoked"


def methods_send_the_method_and_path_that_they_were_asked(stack: Stack) -> Iterator[str]:
    if not stack.self_hosted:
        return
    for name, method in stack.of("AWS::ApiGateway::Method").items():
        integration = method["Integration"]
        if integration["IntegrationHttpMethod"] != method["HttpMethod"]:
            yield f"{name} is sent on with another method"
        uri = json.dumps(integration["Uri"])
        for parameter in [
            key.split(".")[-1] for key in method.get("RequestParameters", {}) if ".path." in key
        ]:
            if f"integration.request.path.{parameter}" not in integration.get("RequestParameters", {}):
                yield f"{name} loses its path parameter {parameter} on the way to {uri}"


def methods_are_made_after_the_listener(stack: Stack) -> Iterator[str]:
    for name in stack.of("AWS::ApiGateway::Method"):
        if not stack.waits(name, "AWS::ElasticLoadBalancingV2::Listener"):
            yield f"{name} may be made before the listener that it needs"


def a_deployment_holds_every_method(stack: Stack) -> Iterator[str]:
    for name in stack.of("AWS::ApiGateway::Deployment"):
        if not stack.waits(name, "AWS::ApiGateway::Method"):
            yield f"{name} may be made before a method, which it then lacks"
        if not stack.waits(name, "AWS::ApiGateway::GatewayResponse"):
            yield f"{name} may be made before a gateway response, which it then lacks"


def bodies_pass_as_bytes(stack: Stack) -> Iterator[str]:
    if stack.one("AWS::ApiGateway::RestApi").get("BinaryMediaTypes") != ["*/*"]:
        yield "bodies that are not text are changed on their way"


def the_api_may_invoke_the_function(stack: Stack) -> Iterator[str]:
    for function in stack.of("AWS::Lambda::Function"):
        permitted = [
            one
            for one in stack.of("AWS::Lambda::Permission").values()
            if one["Principal"] == "apigateway.amazonaws.com" and f'"{function}"' in json.dumps(one)
        ]
        called = any(
            f'"{function}"' in json.dumps(one) for one in stack.of("AWS::ApiGateway::Method").values()
        )
        if called and not permitted:
            yield f"{function} has no permission for the API"
        for one in permitted:
            if "SourceArn" not in one:
                yield f"any API of anybody may invoke {function}"


def isolated_callers_reach_the_services_they_call(stack: Stack) -> Iterator[str]:
    services = json.dumps([one["ServiceName"] for one in stack.of("AWS::EC2::VPCEndpoint").values()])
    wanted = [".s3", *((".ecr.api", ".ecr.dkr", ".logs") if stack.self_hosted else (".sagemaker.runtime",))]
    for service in wanted:
        if f'{service}"' not in services:
            yield f"there is no endpoint for {service}"
    for name, endpoint in stack.of("AWS::EC2::VPCEndpoint").items():
        if endpoint["VpcEndpointType"] == "Interface" and endpoint.get("PrivateDnsEnabled") is not True:
            yield f"{name} is not found by the service's usual name"
        if endpoint["VpcEndpointType"] == "Gateway" and not endpoint.get("RouteTableIds"):
            yield f"{name} is in no route table"
    vpc = stack.one("AWS::EC2::VPC")
    if not (vpc.get("EnableDnsSupport") and vpc.get("EnableDnsHostnames")):
        yield "private DNS needs DNS support and DNS hostnames of the VPC"


def subnets_have_the_route_table(stack: Stack) -> Iterator[str]:
    associated = json.dumps(list(stack.of("AWS::EC2::SubnetRouteTableAssociation").values()))
    for name in stack.of("AWS::EC2::Subnet"):
        if f'"{name}"' not in associated:
            yield f"{name} has no route to S3"


def only_sagemaker_names_routes_by_a_header(stack: Stack) -> Iterator[str]:
    for model in stack.of("AWS::SageMaker::Model").values():
        if model["PrimaryContainer"]["Environment"].get("MODEL_SERVER_TUNNEL") != "true":
            yield "behind SageMaker every route needs MODEL_SERVER_TUNNEL"
    for task in stack.of("AWS::ECS::TaskDefinition").values():
        names = {one["Name"] for one in task["ContainerDefinitions"][0]["Environment"]}
        if "MODEL_SERVER_TUNNEL" in names:
            yield "a caller could choose a route by a header (MODEL_SERVER_TUNNEL)"


def the_archive_is_checked_before_it_is_opened(stack: Stack) -> Iterator[str]:
    for task in stack.of("AWS::ECS::TaskDefinition").values():
        names = {one["Name"] for one in task["ContainerDefinitions"][0]["Environment"]}
        for name in {"MODEL_SERVER_MODEL_URI", "MODEL_SERVER_MODEL_SHA256"} - names:
            yield f"the task lacks {name}"


# hardening ----------------------------------------------------------------------------------


def nothing_is_public(stack: Stack) -> Iterator[str]:
    for kind in ("AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::EIP"):
        for name in stack.of(kind):
            yield f"{name} ({kind}) leads to the internet"
    for name, route in stack.of("AWS::EC2::Route").items():
        if route.get("DestinationCidrBlock") == "0.0.0.0/0":
            yield f"{name} leads to the internet"
    for name, balancer in stack.of("AWS::ElasticLoadBalancingV2::LoadBalancer").items():
        if balancer.get("Scheme") != "internal":
            yield f"{name} is not internal"
    for name, subnet in stack.of("AWS::EC2::Subnet").items():
        if subnet.get("MapPublicIpOnLaunch") is not False:
            yield f"{name} gives out public addresses"
    for name, service in stack.of("AWS::ECS::Service").items():
        if service["NetworkConfiguration"]["AwsvpcConfiguration"].get("AssignPublicIp") != "DISABLED":
            yield f"{name}'s tasks have public addresses"


def nobody_comes_in_from_an_address(stack: Stack) -> Iterator[str]:
    for name, group in stack.of("AWS::EC2::SecurityGroup").items():
        if group.get("SecurityGroupIngress"):
            yield f"{name} lets in more than its hops"
        if not group.get("SecurityGroupEgress"):
            yield f"{name} may connect to anywhere, which is AWS's default"
        for rule in group.get("SecurityGroupEgress", []):
            if rule.get("CidrIp") == "0.0.0.0/0" and (rule["IpProtocol"], rule.get("FromPort")) != (
                "tcp",
                443,
            ):
                yield f"{name} may connect to anywhere"
    for name, rule in stack.of("AWS::EC2::SecurityGroupIngress").items():
        if "SourceSecurityGroupId" not in rule:
            yield f"{name} lets in addresses, not a security group"


def policies_name_actions_and_resources(stack: Stack) -> Iterator[str]:
    for name, statement in stack.statements():
        for action in listed(statement["Action"]):
            if "*" in action:
                yield f"{name} may {action}"
            if statement["Resource"] == "*" and not action.startswith(WITHOUT_RESOURCE):
                yield f"{name} may {action} on every resource"
    for name, role in stack.of("AWS::IAM::Role").items():
        if role.get("ManagedPolicyArns"):
            yield f"{name} has a managed policy, which AWS may widen"


def roles_are_for_one_service_of_this_account(stack: Stack) -> Iterator[str]:
    for name, role in stack.of("AWS::IAM::Role").items():
        for statement in role["AssumeRolePolicyDocument"]["Statement"]:
            principal = statement["Principal"]
            if principal == "*" or "Service" not in principal:
                yield f"{name} may be assumed by {json.dumps(principal)}"
            elif principal["Service"] in (
                "ecs-tasks.amazonaws.com",
                "sagemaker.amazonaws.com",
                "vpc-flow-logs.amazonaws.com",
            ) and "aws:SourceAccount" not in json.dumps(statement.get("Condition", {})):
                yield f"{name} may be assumed on behalf of another account"


def endpoints_let_through_what_is_called(stack: Stack) -> Iterator[str]:
    for name, endpoint in stack.of("AWS::EC2::VPCEndpoint").items():
        if "PolicyDocument" not in endpoint:
            yield f"{name} lets everything through"
            continue
        for statement in endpoint["PolicyDocument"]["Statement"]:
            if any("*" in action for action in listed(statement["Action"])):
                yield f"{name} lets {statement['Action']} through"
            if endpoint["VpcEndpointType"] == "Interface" and "aws:PrincipalAccount" not in json.dumps(
                statement.get("Condition", {})
            ):
                yield f"{name} serves principals of other accounts"


def logs_are_encrypted_and_end(stack: Stack) -> Iterator[str]:
    for name, group in stack.of("AWS::Logs::LogGroup").items():
        if "KmsKeyId" not in group:
            yield f"{name} is not encrypted with the stack's key"
        if "RetentionInDays" not in group:
            yield f"{name} is kept for ever"


def the_key_rotates_and_serves_the_logs(stack: Stack) -> Iterator[str]:
    for name, key in stack.of("AWS::KMS::Key").items():
        if key.get("EnableKeyRotation") is not True:
            yield f"{name} does not rotate"
        statements = key["KeyPolicy"]["Statement"]
        logs = [one for one in statements if '"logs."' in json.dumps(one["Principal"])]
        if not logs:
            yield f"{name} cannot be used by CloudWatch Logs"
        for one in logs:
            if "kms:EncryptionContext:aws:logs:arn" not in json.dumps(one.get("Condition", {})):
                yield f"{name} serves log groups of other accounts"
        if any(one["Principal"] == "*" for one in statements):
            yield f"{name} serves everybody"


def buckets_are_closed(stack: Stack) -> Iterator[str]:
    policies = stack.of("AWS::S3::BucketPolicy")
    for name, bucket in stack.of("AWS::S3::Bucket").items():
        block = bucket.get("PublicAccessBlockConfiguration", {})
        for key in ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"):
            if block.get(key) is not True:
                yield f"{name}: {key} is off"
        if "BucketEncryption" not in bucket:
            yield f"{name} does not say how it is encrypted"
        if not bucket.get("LifecycleConfiguration", {}).get("Rules"):
            yield f"{name} grows for ever"
        mine = [one for one in policies.values() if one["Bucket"] == {"Ref": name}]
        if "aws:SecureTransport" not in json.dumps(mine):
            yield f"{name} can be read without TLS"


def callers_show_who_they_are(stack: Stack) -> Iterator[str]:
    for name, method in stack.of("AWS::ApiGateway::Method").items():
        if method.get("ApiKeyRequired") is not True and method.get("AuthorizationType") != "AWS_IAM":
            yield f"{name} answers anybody"
    if not stack.of("AWS::ApiGateway::UsagePlanKey"):
        yield "no key belongs to the usage plan"
    if stack.one("AWS::ApiGateway::RestApi").get("ApiKeySourceType") != "HEADER":
        yield "keys are not read from the header"


def callers_are_throttled(stack: Stack) -> Iterator[str]:
    plan = stack.one("AWS::ApiGateway::UsagePlan")
    if not plan.get("Throttle", {}).get("RateLimit"):
        yield "the usage plan has no rate"
    for settings in stack.one("AWS::ApiGateway::Stage").get("MethodSettings", [{}]):
        if "ThrottlingRateLimit" not in settings or "ThrottlingBurstLimit" not in settings:
            yield "the stage has no throttle"


def requests_leave_a_trace_and_no_content(stack: Stack) -> Iterator[str]:
    stage = stack.one("AWS::ApiGateway::Stage")
    if "AccessLogSetting" not in stage:
        yield "the stage writes no access log"
    elif '$context.identity.apiKey"' in json.dumps(stage["AccessLogSetting"]):
        yield "the access log holds callers' keys"
    if stage.get("TracingEnabled") is not True:
        yield "the stage is not traced"
    for settings in stage.get("MethodSettings", [{}]):
        if settings.get("DataTraceEnabled") is not False:
            yield "bodies are written into the log"
        if settings.get("LoggingLevel") not in ("ERROR", "INFO"):
            yield "API Gateway's own errors are not logged"
        if settings.get("MetricsEnabled") is not True:
            yield "the stage has no metrics by method"
    if not stack.of("AWS::EC2::FlowLog"):
        yield "the network has no flow log"
    for name, function in stack.of("AWS::Lambda::Function").items():
        called = any(f'"{name}"' in json.dumps(one) for one in stack.of("AWS::ApiGateway::Method").values())
        if called and function.get("TracingConfig", {}).get("Mode") != "Active":
            yield f"{name} is not traced"
        if "LoggingConfig" not in function:
            yield f"{name} writes to a log group of its own making"
    for balancer in stack.of("AWS::ElasticLoadBalancingV2::LoadBalancer").values():
        if attributes(balancer, "LoadBalancerAttributes").get("access_logs.s3.enabled") != "true":
            yield "the load balancer writes no access log"


def containers_have_no_more_than_they_need(stack: Stack) -> Iterator[str]:
    for task in stack.of("AWS::ECS::TaskDefinition").values():
        for container in task["ContainerDefinitions"]:
            if container.get("ReadonlyRootFilesystem") is not True:
                yield "the container can write to its root"
            if container.get("User") in (None, "root", "0", "0:0"):
                yield "the container runs as root"
            if container.get("Privileged"):
                yield "the container is privileged"
            if container.get("LinuxParameters", {}).get("Capabilities", {}).get("Drop") != ["ALL"]:
                yield "the container keeps capabilities"
            if "LogConfiguration" not in container:
                yield "the container's output is lost"
            for one in container["Environment"]:
                if any(word in one["Name"] for word in ("PASSWORD", "TOKEN", "SECRET_KEY")):
                    yield f"a secret in the environment: {one['Name']}"
    for service in stack.of("AWS::ECS::Service").values():
        if service.get("EnableExecuteCommand") is not False:
            yield "a shell can be opened in the container"
    for model in stack.of("AWS::SageMaker::Model").values():
        if model.get("EnableNetworkIsolation") is not True:
            yield "the model's container has a network"
        if "VpcConfig" not in model:
            yield "the model's data does not come through the VPC"
    for configuration in stack.of("AWS::SageMaker::EndpointConfig").values():
        if "KmsKeyId" not in configuration:
            yield "the instances' volumes are not encrypted with the stack's key"
    for name, function in stack.of("AWS::Lambda::Function").items():
        if "ENDPOINT_NAME" in json.dumps(function.get("Environment", {})) and "VpcConfig" not in function:
            yield f"{name} runs outside the VPC"


def the_balancer_refuses_what_is_ambiguous(stack: Stack) -> Iterator[str]:
    for balancer in stack.of("AWS::ElasticLoadBalancingV2::LoadBalancer").values():
        found = attributes(balancer, "LoadBalancerAttributes")
        if found.get("routing.http.desync_mitigation_mode") != "defensive":
            yield "desync mitigation is not defensive"
        if found.get("routing.http.drop_invalid_header_fields.enabled") != "true":
            yield "invalid header fields pass"


# reliability --------------------------------------------------------------------------------


def a_zone_may_be_lost(stack: Stack) -> Iterator[str]:
    subnets = stack.of("AWS::EC2::Subnet")
    zones = {json.dumps([s.get("AvailabilityZone"), s.get("AvailabilityZoneId")]) for s in subnets.values()}
    if len(subnets) < 2 or len(zones) < 2:
        yield "all subnets are in one zone"
    for name, target in stack.of("AWS::ApplicationAutoScaling::ScalableTarget").items():
        if target["MinCapacity"] < 2:
            yield f"{name} lets one replica be all there is"
        if target["MaxCapacity"] <= target["MinCapacity"]:
            yield f"{name} leaves nothing to scale to"
    for configuration in stack.of("AWS::SageMaker::EndpointConfig").values():
        if configuration["ProductionVariants"][0]["InitialInstanceCount"] < 2:
            yield "the endpoint starts with one instance"
    for kind, path in (
        ("AWS::ECS::Service", ("NetworkConfiguration", "AwsvpcConfiguration", "Subnets")),
        ("AWS::ElasticLoadBalancingV2::LoadBalancer", ("Subnets",)),
        ("AWS::ApiGatewayV2::VpcLink", ("SubnetIds",)),
        ("AWS::SageMaker::Model", ("VpcConfig", "Subnets")),
    ):
        for name, properties in stack.of(kind).items():
            value: Any = properties
            for step in path:
                value = value.get(step, {})
            if len(value) < 2:
                yield f"{name} is in one subnet"


def load_adds_replicas(stack: Stack) -> Iterator[str]:
    policies = stack.of("AWS::ApplicationAutoScaling::ScalingPolicy")
    if not any("oncurren" in json.dumps(one) for one in policies.values()):
        yield "nothing scales on concurrency"
    if stack.self_hosted and not any("CPUUtilization" in json.dumps(one) for one in policies.values()):
        yield "nothing scales on CPU"
    for name, policy in policies.items():
        settings = policy.get("TargetTrackingScalingPolicyConfiguration", {})
        if settings.get("DisableScaleIn"):
            yield f"{name} never scales in"
        if settings.get("ScaleOutCooldown", 0) > settings.get("ScaleInCooldown", 0):
            yield f"{name} is slower to scale out than in"


def a_deploy_never_serves_with_less(stack: Stack) -> Iterator[str]:
    for service in stack.of("AWS::ECS::Service").values():
        deployment = service.get("DeploymentConfiguration", {})
        if deployment.get("MinimumHealthyPercent", 0) < 100 or deployment.get("MaximumPercent", 0) <= 100:
            yield "a rolling update takes tasks away before their successors serve"
        breaker = deployment.get("DeploymentCircuitBreaker", {})
        if breaker.get("Enable") is not True:
            yield "a deploy that cannot work goes on for hours (circuit breaker)"
        elif breaker.get("Rollback") is not True:
            yield "a failed deploy stays (circuit breaker without rollback)"
        if "DesiredCount" in service:
            yield "a deploy resets the number of tasks that scaling has chosen"
        if service.get("HealthCheckGracePeriodSeconds", 0) < 60:
            yield "a task that still loads its model is killed"
    for endpoint in stack.of("AWS::SageMaker::Endpoint").values():
        if endpoint.get("RetainAllVariantProperties") is not True:
            yield "an update resets the number of instances that scaling has chosen"


def health_is_readiness(stack: Stack) -> Iterator[str]:
    for group in stack.of("AWS::ElasticLoadBalancingV2::TargetGroup").values():
        if group.get("HealthCheckPath") != "/ping":
            yield f"the health check asks {group.get('HealthCheckPath')}, not /ping"
        if group.get("Matcher", {}).get("HttpCode") != "200":
            yield "a server that is loading counts as healthy"
        if group.get("HealthCheckTimeoutSeconds", 0) >= group.get("HealthCheckIntervalSeconds", 0):
            yield "a health check may last longer than the interval"
        if group.get("TargetType") != "ip":
            yield "tasks with addresses of their own are targets by address"
        found = attributes(group, "TargetGroupAttributes")
        if found.get("load_balancing.algorithm.type") != "least_outstanding_requests":
            yield "a busy task gets as much as an idle one"
        if found.get("stickiness.enabled") != "false":
            yield "callers stick to a task"


def a_leaving_task_finishes_its_requests(stack: Stack) -> Iterator[str]:
    if not stack.self_hosted:
        return
    longest = max(
        method["Integration"]["TimeoutInMillis"] for method in stack.of("AWS::ApiGateway::Method").values()
    )
    found = attributes(stack.one("AWS::ElasticLoadBalancingV2::TargetGroup"), "TargetGroupAttributes")
    delay = int(found.get("deregistration_delay.timeout_seconds", 0))
    [container] = stack.one("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    if delay * 1000 < longest:
        yield f"a task is taken away after {delay} s, and a request may last {longest} ms"
    if container.get("StopTimeout", 0) * 1000 < longest:
        yield f"a task is killed {container.get('StopTimeout', 0)} s after SIGTERM"


def each_gives_up_before_the_one_in_front(stack: Stack) -> Iterator[str]:
    timeouts = {m["Integration"]["TimeoutInMillis"] for m in stack.of("AWS::ApiGateway::Method").values()}
    api = min(timeouts) / 1000
    if len(timeouts) > 1:
        yield "routes have different time-outs"
    for balancer in stack.of("AWS::ElasticLoadBalancingV2::LoadBalancer").values():
        idle = int(attributes(balancer, "LoadBalancerAttributes").get("idle_timeout.timeout_seconds", 60))
        if not api < idle < MODEL_SERVER_KEEPS_SECONDS:
            yield f"the balancer's idle time-out of {idle} s is not between {api:g} and 75 s"
    for function in stack.of("AWS::Lambda::Function").values():
        variables = function.get("Environment", {}).get("Variables", {})
        if "READ_TIMEOUT_SECONDS" not in variables:
            continue
        if not int(variables["READ_TIMEOUT_SECONDS"]) < function.get("Timeout", 3) < api:
            yield "the function's time-outs are not in order"


@cache
def gateway_response_types() -> list[str]:
    """Every type of error that API Gateway answers by itself; the defaults are for types that AWS may add."""
    model = botocore.session.get_session().get_service_model("apigateway")
    return sorted(set(model.shape_for("GatewayResponseType").enum) - {"DEFAULT_4XX", "DEFAULT_5XX"})


def errors_have_one_form(stack: Stack) -> Iterator[str]:
    found = {one["ResponseType"]: one for one in stack.of("AWS::ApiGateway::GatewayResponse").values()}
    for kind in gateway_response_types():
        text = json.dumps(found.get(kind, {}).get("ResponseTemplates", {}))
        if '\\"status\\"' not in text:
            yield f"{kind} has no status in its body"
        if "problem+json" not in json.dumps(found.get(kind, {})):
            yield f"{kind} is not application/problem+json"
    if "Retry-After" not in json.dumps(found.get("THROTTLED", {})):
        yield "a throttled caller is not told when to come back"


def what_is_needed_exists_first(stack: Stack) -> Iterator[str]:
    for service in stack.of("AWS::ECS::Service"):
        if not stack.waits(service, "AWS::ElasticLoadBalancingV2::ListenerRule"):
            yield f"{service} may start before its target group has a listener"
    for stage in stack.of("AWS::ApiGateway::Stage"):
        if not stack.waits(stage, "AWS::ApiGateway::Account"):
            yield f"{stage} may be made before API Gateway may write logs"
    for balancer in stack.of("AWS::ElasticLoadBalancingV2::LoadBalancer"):
        if not stack.waits(balancer, "AWS::S3::BucketPolicy"):
            yield f"{balancer} may be made before it may write its access log"


def what_others_use_outlives_the_stack(stack: Stack) -> Iterator[str]:
    for kind in ("AWS::ApiGateway::Account", "AWS::S3::Bucket"):
        for name in stack.of(kind):
            if stack.resources[name].get("DeletionPolicy") != "Retain":
                yield f"{name} goes with the stack"


RULES: dict[str, Rule] = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__annotations__", {}).get("stack") == "Stack"
}
