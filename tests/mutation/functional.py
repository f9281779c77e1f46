"""Faults that lose requests: hops, ports, paths, permissions, routes out of isolated subnets."""

from __future__ import annotations

from mutation.edits import Mutant, add, append, drop, move_policy, put, remove

METHOD = "AWS::ApiGateway::Method"
RULE = "AWS::ElasticLoadBalancingV2::ListenerRule"
INGRESS = "AWS::EC2::SecurityGroupIngress"
GROUP = "AWS::EC2::SecurityGroup"
ENDPOINT = "AWS::EC2::VPCEndpoint"
TASK = "AWS::ECS::TaskDefinition"
SERVICE = "AWS::ECS::Service"
TARGETS = "AWS::ElasticLoadBalancingV2::TargetGroup"
ROLE = "AWS::IAM::Role"
BALANCER = "AWS::ElasticLoadBalancingV2::LoadBalancer"
FUNCTION = "AWS::Lambda::Function"
REWRITE = "Properties/Transforms/0/UrlRewriteConfig/Rewrites/0"

SELF, MANAGED = "self-hosted", "managed"
HOPS = "every_hop_is_open_at_both_ends"
REACH = "isolated_callers_reach_the_services_they_call"
METHODS = "methods_go_to_the_balancer_through_the_link"
NEEDS = "roles_may_do_what_their_holders_need"

MUTANTS = (
    Mutant(
        "no-ingress-from-link", SELF, remove(INGRESS, "VPC link to load balancer"), HOPS, "open at one end"
    ),
    Mutant(
        "no-ingress-to-tasks",
        SELF,
        remove(INGRESS, "load balancer to model servers"),
        HOPS,
        "on port 8080 is open at one end only",
    ),
    Mutant(
        "no-egress-of-link",
        SELF,
        put(GROUP, "Properties/SecurityGroupEgress", [], "VPC link of"),
        HOPS,
        "on port 80 is open at one end only",
    ),
    Mutant(
        "ingress-on-another-port",
        SELF,
        put(INGRESS, "Properties/FromPort", 81, "VPC link to"),
        HOPS,
        "on port 80 is open at one end only",
    ),
    Mutant("no-ingress-of-runtime", MANAGED, remove(INGRESS, "sagemaker.runtime"), HOPS, "port 443"),
    Mutant(
        "target-group-on-another-port",
        SELF,
        put(TARGETS, "Properties/Port", 8081),
        "ports_agree_from_the_balancer_to_the_container",
        "different ports",
    ),
    Mutant(
        "service-names-another-port",
        SELF,
        put(SERVICE, "Properties/LoadBalancers/0/ContainerPort", 9000),
        "ports_agree_from_the_balancer_to_the_container",
        "['8080', '9000']",
    ),
    Mutant(
        "container-opens-another-port",
        SELF,
        put(TASK, "Properties/ContainerDefinitions/0/PortMappings/0/ContainerPort", 80),
        "ports_agree_from_the_balancer_to_the_container",
        "['80', '8080']",
    ),
    Mutant(
        "no-rewrite",
        SELF,
        drop(RULE, "Properties/Transforms"),
        "the_balancer_answers_with_and_without_the_stage",
        "with, or without, the stage",
    ),
    Mutant(
        "rewrite-of-another-stage",
        SELF,
        put(RULE, f"{REWRITE}/Regex", "^/prod(/.*)$"),
        "the_balancer_answers_with_and_without_the_stage",
        "with, or without, the stage",
    ),
    Mutant(
        "rewrite-that-matches-livex",
        SELF,
        put(RULE, f"{REWRITE}/Regex", "^/live(.*)$"),
        "the_balancer_answers_with_and_without_the_stage",
        "with, or without, the stage",
    ),
    Mutant(
        "rule-for-the-stage-alone",
        SELF,
        put(RULE, "Properties/Conditions/0/PathPatternConfig/Values", ["/live/*"]),
        "the_balancer_answers_with_and_without_the_stage",
        "with, or without, the stage",
    ),
    Mutant(
        "method-without-integration", SELF, drop(METHOD, "Properties/Integration"), METHODS, "no integration"
    ),
    Mutant(
        "integration-target-is-the-listener",
        SELF,
        put(METHOD, "Properties/Integration/IntegrationTarget", {"Ref": "Listener"}),
        METHODS,
        "does not reach the load balancer",
    ),
    Mutant(
        "integration-over-the-internet",
        SELF,
        put(METHOD, "Properties/Integration/ConnectionType", "INTERNET"),
        METHODS,
        "through the VPC link",
    ),
    Mutant(
        "integration-not-proxied",
        SELF,
        put(METHOD, "Properties/Integration/Type", "HTTP"),
        METHODS,
        "through the VPC link",
    ),
    Mutant(
        "function-invoked-with-get",
        MANAGED,
        put(METHOD, "Properties/Integration/IntegrationHttpMethod", "GET", "ping"),
        METHODS,
        "does not invoke the function",
    ),
    Mutant(
        "get-sent-on-as-post",
        SELF,
        put(METHOD, "Properties/Integration/IntegrationHttpMethod", "POST", "Getping"),
        "methods_send_the_method_and_path_that_they_were_asked",
        "another method",
    ),
    Mutant(
        "path-parameter-lost",
        SELF,
        put(METHOD, "Properties/Integration/RequestParameters", {}, "infer"),
        "methods_send_the_method_and_path_that_they_were_asked",
        "loses its path parameter model",
    ),
    Mutant(
        "method-before-listener",
        SELF,
        put(METHOD, "DependsOn", []),
        "methods_are_made_after_the_listener",
        "before the listener",
    ),
    Mutant(
        "deployment-before-methods",
        MANAGED,
        put("AWS::ApiGateway::Deployment", "DependsOn", []),
        "a_deployment_holds_every_method",
        "before a method",
    ),
    Mutant(
        "deployment-before-gateway-responses",
        SELF,
        remove("AWS::ApiGateway::GatewayResponse", "THROTTLED"),
        "errors_have_one_form",
        "THROTTLED",
    ),
    Mutant(
        "text-only",
        SELF,
        put("AWS::ApiGateway::RestApi", "Properties/BinaryMediaTypes", ["application/json"]),
        "bodies_pass_as_bytes",
        "changed on their way",
    ),
    Mutant(
        "no-permission-of-the-api",
        MANAGED,
        remove("AWS::Lambda::Permission", "execute-api"),
        "the_api_may_invoke_the_function",
        "no permission for the API",
    ),
    Mutant(
        "role-without-model",
        SELF,
        remove("AWS::IAM::Policy", "s3:GetObject"),
        NEEDS,
        "the role of Task (task) may not s3:GetObject",
    ),
    Mutant(
        "model-read-by-the-wrong-role",
        SELF,
        put("AWS::IAM::Policy", "Properties/Roles", [{"Ref": "ExecutionRole"}], "s3:GetObject"),
        NEEDS,
        "the role of Task (task) may not s3:GetObject",
    ),
    Mutant(
        "logs-written-by-the-wrong-role",
        SELF,
        move_policy("ECS pulls the image", "TaskRole"),
        NEEDS,
        "the role of Task (execution) may not logs:PutLogEvents",
    ),
    Mutant(
        "endpoint-invoked-by-the-wrong-role",
        MANAGED,
        move_policy("invokes one SageMaker", "ImageCheckRole"),
        NEEDS,
        "may not sagemaker:InvokeEndpoint",
    ),
    Mutant(
        "role-without-image",
        SELF,
        put(ROLE, "Properties/Policies/0/PolicyDocument/Statement", [], "ECS pulls the image"),
        NEEDS,
        "ecr:BatchGetImage",
    ),
    Mutant(
        "role-without-invoke",
        MANAGED,
        drop(ROLE, "Properties/Policies/0", "invokes one SageMaker"),
        NEEDS,
        "sagemaker:InvokeEndpoint",
    ),
    Mutant("no-endpoint-ecr-api", SELF, remove(ENDPOINT, ".ecr.api"), REACH, ".ecr.api"),
    Mutant("no-endpoint-ecr-dkr", SELF, remove(ENDPOINT, ".ecr.dkr"), REACH, ".ecr.dkr"),
    Mutant("no-endpoint-logs", SELF, remove(ENDPOINT, ".logs"), REACH, ".logs"),
    Mutant("no-endpoint-s3", SELF, remove(ENDPOINT, '.s3"'), REACH, ".s3"),
    Mutant(
        "no-endpoint-runtime", MANAGED, remove(ENDPOINT, ".sagemaker.runtime"), REACH, ".sagemaker.runtime"
    ),
    Mutant(
        "endpoint-without-private-dns",
        MANAGED,
        put(ENDPOINT, "Properties/PrivateDnsEnabled", False, ".sagemaker.runtime"),
        REACH,
        "usual name",
    ),
    Mutant(
        "gateway-without-routes",
        SELF,
        put(ENDPOINT, "Properties/RouteTableIds", [], '.s3"'),
        REACH,
        "is in no route table",
    ),
    Mutant("vpc-without-dns", SELF, put("AWS::EC2::VPC", "Properties/EnableDnsSupport", False), REACH, "DNS"),
    Mutant(
        "vpc-without-names",
        MANAGED,
        put("AWS::EC2::VPC", "Properties/EnableDnsHostnames", False),
        REACH,
        "DNS hostnames of the VPC",
    ),
    Mutant(
        "subnet-without-routes",
        SELF,
        remove("AWS::EC2::SubnetRouteTableAssociation"),
        "subnets_have_the_route_table",
        "no route to S3",
    ),
    Mutant(
        "no-tunnel-behind-sagemaker",
        MANAGED,
        drop("AWS::SageMaker::Model", "Properties/PrimaryContainer/Environment/MODEL_SERVER_TUNNEL"),
        "only_sagemaker_names_routes_by_a_header",
        "MODEL_SERVER_TUNNEL",
    ),
    Mutant(
        "task-without-model",
        SELF,
        drop(TASK, "Properties/ContainerDefinitions/0/Environment/Name=MODEL_SERVER_MODEL_URI"),
        "the_archive_is_checked_before_it_is_opened",
        "MODEL_SERVER_MODEL_URI",
    ),
    Mutant(
        "property-misspelt", SELF, put(SERVICE, "Properties/DesiredCounts", 2), "creation", "DesiredCounts"
    ),
    Mutant("target-of-no-type", SELF, put(TARGETS, "Properties/TargetType", "pod"), "creation", "TargetType"),
    Mutant(
        "function-without-role", MANAGED, drop(FUNCTION, "Properties/Role", "SageMaker"), "creation", "Role"
    ),
    Mutant(
        "balancer-of-no-address-type",
        SELF,
        put(BALANCER, "Properties/IpAddressType", "ipv5"),
        "creation",
        "IpAddressType",
    ),
    Mutant(
        "unknown-log-driver",
        SELF,
        drop(TASK, "Properties/ContainerDefinitions/0/LogConfiguration/LogDriver"),
        "creation",
        "LogDriver",
    ),
    Mutant(
        "method-of-no-type",
        MANAGED,
        put(METHOD, "Properties/Integration/Type", "LAMBDA"),
        "creation",
        "Integration/Type",
    ),
    Mutant(
        "stage-without-api",
        SELF,
        drop("AWS::ApiGateway::Stage", "Properties/RestApiId"),
        "creation",
        "RestApiId",
    ),
    Mutant(
        "one-more-balancer-hop",
        SELF,
        append(
            GROUP,
            "Properties/SecurityGroupEgress",
            {
                "Description": "stray",
                "DestinationSecurityGroupId": {"Fn::GetAtt": ["Other", "GroupId"]},
                "FromPort": 22,
                "ToPort": 22,
                "IpProtocol": "tcp",
            },
            "internal load balancer",
        ),
        HOPS,
        "port 22",
    ),
    Mutant(
        "route-out",
        SELF,
        add("AWS::EC2::Route", {"DestinationCidrBlock": "0.0.0.0/0"}),
        "nothing_is_public",
        "leads to the internet",
    ),
)
