"""Faults that let in, or let out, more than is needed."""

from __future__ import annotations

from mutation.edits import Mutant, add, append, drop, put, remove

SELF, MANAGED = "self-hosted", "managed"
GROUP = "AWS::EC2::SecurityGroup"
ENDPOINT = "AWS::EC2::VPCEndpoint"
ROLE = "AWS::IAM::Role"
POLICY = "AWS::IAM::Policy"
STAGE = "AWS::ApiGateway::Stage"
METHOD = "AWS::ApiGateway::Method"
BUCKET = "AWS::S3::Bucket"
KEY = "AWS::KMS::Key"
LOGS = "AWS::Logs::LogGroup"
TASK = "AWS::ECS::TaskDefinition"
MODEL = "AWS::SageMaker::Model"
BALANCER = "AWS::ElasticLoadBalancingV2::LoadBalancer"
CONTAINER = "Properties/ContainerDefinitions/0"
FIRST_POLICY = "Properties/Policies/0/PolicyDocument/Statement/0"
TRUST = "Properties/AssumeRolePolicyDocument/Statement/0"
ANYWHERE = {"CidrIp": "0.0.0.0/0", "IpProtocol": "-1"}

PUBLIC = "nothing_is_public"
IN = "nobody_comes_in_from_an_address"
POLICIES = "policies_name_actions_and_resources"
TRUSTED = "roles_are_for_one_service_of_this_account"
THROUGH = "endpoints_let_through_what_is_called"
LOGGED = "logs_are_encrypted_and_end"
ROTATES = "the_key_rotates_and_serves_the_logs"
CLOSED = "buckets_are_closed"
CALLERS = "callers_show_who_they_are"
TRACED = "requests_leave_a_trace_and_no_content"
LEAST = "containers_have_no_more_than_they_need"
BALANCED = "the_balancer_refuses_what_is_ambiguous"

MUTANTS = (
    Mutant("internet-gateway", SELF, add("AWS::EC2::InternetGateway", {}), PUBLIC, "leads to the internet"),
    Mutant(
        "nat-gateway", MANAGED, add("AWS::EC2::NatGateway", {}), PUBLIC, "NatGateway) leads to the internet"
    ),
    Mutant(
        "public-balancer", SELF, put(BALANCER, "Properties/Scheme", "internet-facing"), PUBLIC, "not internal"
    ),
    Mutant(
        "public-subnet",
        MANAGED,
        put("AWS::EC2::Subnet", "Properties/MapPublicIpOnLaunch", True),
        PUBLIC,
        "gives out public addresses",
    ),
    Mutant(
        "public-tasks",
        SELF,
        put(
            "AWS::ECS::Service",
            "Properties/NetworkConfiguration/AwsvpcConfiguration/AssignPublicIp",
            "ENABLED",
        ),
        PUBLIC,
        "public addresses",
    ),
    Mutant(
        "open-egress",
        SELF,
        append(GROUP, "Properties/SecurityGroupEgress", ANYWHERE, "model server"),
        IN,
        "may connect to anywhere",
    ),
    Mutant(
        "default-egress",
        MANAGED,
        drop(GROUP, "Properties/SecurityGroupEgress", "sagemaker.runtime"),
        IN,
        "AWS's default",
    ),
    Mutant(
        "ingress-in-the-group",
        SELF,
        put(GROUP, "Properties/SecurityGroupIngress", [ANYWHERE]),
        IN,
        "lets in more than its hops",
    ),
    Mutant(
        "ingress-from-addresses",
        SELF,
        add(
            "AWS::EC2::SecurityGroupIngress",
            {
                "CidrIp": "10.0.0.0/8",
                "FromPort": 80,
                "ToPort": 80,
                "IpProtocol": "tcp",
                "GroupId": "x",
                "Description": "a peer",
                "SourceSecurityGroupId": "y",
            },
        ),
        "every_hop_is_open_at_both_ends",
        "open at one end",
    ),
    Mutant(
        "wildcard-action",
        SELF,
        put(POLICY, "Properties/PolicyDocument/Statement/0/Action", "s3:*", "s3:GetObject"),
        POLICIES,
        "s3:*",
    ),
    Mutant(
        "wildcard-resource",
        SELF,
        put(POLICY, "Properties/PolicyDocument/Statement/0/Resource", "*", "s3:GetObject"),
        POLICIES,
        "on every resource",
    ),
    Mutant(
        "any-endpoint",
        MANAGED,
        put(ROLE, f"{FIRST_POLICY}/Resource", "*", "invokes one SageMaker"),
        POLICIES,
        "sagemaker:InvokeEndpoint on every resource",
    ),
    Mutant(
        "admin", MANAGED, put(ROLE, f"{FIRST_POLICY}/Action", "*", "invokes one SageMaker"), POLICIES, "may *"
    ),
    Mutant(
        "managed-policy",
        MANAGED,
        put(
            ROLE,
            "Properties/ManagedPolicyArns",
            ["arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"],
            "SageMaker pulls",
        ),
        POLICIES,
        "managed policy",
    ),
    Mutant(
        "trust-of-anybody",
        SELF,
        put(ROLE, f"{TRUST}/Principal", "*", "ecs-tasks"),
        TRUSTED,
        "may be assumed by",
    ),
    Mutant(
        "trust-of-an-account",
        MANAGED,
        put(ROLE, f"{TRUST}/Principal", {"AWS": "arn:aws:iam::999999999999:root"}, "sagemaker.amazonaws.com"),
        TRUSTED,
        "may be assumed by",
    ),
    Mutant(
        "confused-deputy-ecs", SELF, drop(ROLE, f"{TRUST}/Condition", "ecs-tasks"), TRUSTED, "another account"
    ),
    Mutant(
        "confused-deputy-sagemaker",
        MANAGED,
        drop(ROLE, f"{TRUST}/Condition", "SageMaker pulls"),
        TRUSTED,
        "another account",
    ),
    Mutant(
        "confused-deputy-flow-logs",
        SELF,
        drop(ROLE, f"{TRUST}/Condition", "vpc-flow-logs"),
        TRUSTED,
        "another account",
    ),
    Mutant(
        "endpoint-without-policy",
        SELF,
        drop(ENDPOINT, "Properties/PolicyDocument", ".logs"),
        THROUGH,
        "lets everything through",
    ),
    Mutant(
        "endpoint-for-every-action",
        MANAGED,
        put(ENDPOINT, "Properties/PolicyDocument/Statement/0/Action", "sagemaker:*", ".sagemaker.runtime"),
        THROUGH,
        "sagemaker:*",
    ),
    Mutant(
        "endpoint-for-other-accounts",
        MANAGED,
        drop(ENDPOINT, "Properties/PolicyDocument/Statement/0/Condition", ".sagemaker.runtime"),
        THROUGH,
        "other accounts",
    ),
    Mutant("log-without-key", SELF, drop(LOGS, "Properties/KmsKeyId"), LOGGED, "not encrypted"),
    Mutant("log-for-ever", MANAGED, drop(LOGS, "Properties/RetentionInDays"), LOGGED, "kept for ever"),
    Mutant(
        "key-without-rotation",
        SELF,
        put(KEY, "Properties/EnableKeyRotation", False),
        ROTATES,
        "does not rotate",
    ),
    Mutant(
        "key-without-logs", SELF, drop(KEY, "Properties/KeyPolicy/Statement/1"), ROTATES, "CloudWatch Logs"
    ),
    Mutant(
        "key-for-other-log-groups",
        MANAGED,
        drop(KEY, "Properties/KeyPolicy/Statement/1/Condition"),
        ROTATES,
        "other accounts",
    ),
    Mutant(
        "key-for-everybody",
        SELF,
        put(KEY, "Properties/KeyPolicy/Statement/0/Principal", "*"),
        ROTATES,
        "serves everybody",
    ),
    Mutant(
        "public-acls",
        SELF,
        put(BUCKET, "Properties/PublicAccessBlockConfiguration/BlockPublicAcls", False),
        CLOSED,
        "BlockPublicAcls is off",
    ),
    Mutant(
        "public-policy", SELF, drop(BUCKET, "Properties/PublicAccessBlockConfiguration"), CLOSED, "is off"
    ),
    Mutant(
        "bucket-without-encryption", SELF, drop(BUCKET, "Properties/BucketEncryption"), CLOSED, "encrypted"
    ),
    Mutant("bucket-that-grows", SELF, drop(BUCKET, "Properties/LifecycleConfiguration"), CLOSED, "for ever"),
    Mutant(
        "bucket-without-tls",
        SELF,
        drop("AWS::S3::BucketPolicy", "Properties/PolicyDocument/Statement/0"),
        CLOSED,
        "without TLS",
    ),
    Mutant(
        "method-without-key",
        SELF,
        put(METHOD, "Properties/ApiKeyRequired", False),
        CALLERS,
        "answers anybody",
    ),
    Mutant("plan-without-key", MANAGED, remove("AWS::ApiGateway::UsagePlanKey"), CALLERS, "no key belongs"),
    Mutant(
        "key-from-an-authorizer",
        SELF,
        put("AWS::ApiGateway::RestApi", "Properties/ApiKeySourceType", "AUTHORIZER"),
        CALLERS,
        "not read from the header",
    ),
    Mutant(
        "plan-without-rate",
        SELF,
        drop("AWS::ApiGateway::UsagePlan", "Properties/Throttle"),
        "callers_are_throttled",
        "no rate",
    ),
    Mutant(
        "stage-without-throttle",
        MANAGED,
        drop(STAGE, "Properties/MethodSettings/0/ThrottlingRateLimit"),
        "callers_are_throttled",
        "no throttle",
    ),
    Mutant("no-access-log", SELF, drop(STAGE, "Properties/AccessLogSetting"), TRACED, "no access log"),
    Mutant(
        "bodies-in-the-log",
        MANAGED,
        put(STAGE, "Properties/MethodSettings/0/DataTraceEnabled", True),
        TRACED,
        "bodies are written",
    ),
    Mutant("no-tracing", SELF, put(STAGE, "Properties/TracingEnabled", False), TRACED, "not traced"),
    Mutant(
        "no-execution-log",
        SELF,
        put(STAGE, "Properties/MethodSettings/0/LoggingLevel", "OFF"),
        TRACED,
        "errors are not logged",
    ),
    Mutant(
        "no-metrics",
        SELF,
        put(STAGE, "Properties/MethodSettings/0/MetricsEnabled", False),
        TRACED,
        "no metrics",
    ),
    Mutant("no-flow-log", MANAGED, remove("AWS::EC2::FlowLog"), TRACED, "no flow log"),
    Mutant(
        "function-untraced",
        MANAGED,
        drop("AWS::Lambda::Function", "Properties/TracingConfig", "carries"),
        TRACED,
        "is not traced",
    ),
    Mutant(
        "function-own-log",
        MANAGED,
        drop("AWS::Lambda::Function", "Properties/LoggingConfig", "carries"),
        TRACED,
        "a log group of its own making",
    ),
    Mutant(
        "balancer-without-log",
        SELF,
        put(BALANCER, "Properties/LoadBalancerAttributes/Key=access_logs.s3.enabled/Value", "false"),
        TRACED,
        "load balancer writes no access log",
    ),
    Mutant(
        "writable-root",
        SELF,
        put(TASK, f"{CONTAINER}/ReadonlyRootFilesystem", False),
        LEAST,
        "write to its root",
    ),
    Mutant("root-user", SELF, drop(TASK, f"{CONTAINER}/User"), LEAST, "runs as root"),
    Mutant("privileged", SELF, put(TASK, f"{CONTAINER}/Privileged", True), LEAST, "privileged"),
    Mutant(
        "capabilities", SELF, drop(TASK, f"{CONTAINER}/LinuxParameters/Capabilities"), LEAST, "capabilities"
    ),
    Mutant("no-container-log", SELF, drop(TASK, f"{CONTAINER}/LogConfiguration"), LEAST, "output is lost"),
    Mutant(
        "secret-in-the-environment",
        SELF,
        append(TASK, f"{CONTAINER}/Environment", {"Name": "HF_TOKEN", "Value": "hf_x"}),
        LEAST,
        "a secret in the environment",
    ),
    Mutant(
        "execute-command",
        SELF,
        put("AWS::ECS::Service", "Properties/EnableExecuteCommand", True),
        LEAST,
        "a shell",
    ),
    Mutant(
        "no-network-isolation",
        MANAGED,
        put(MODEL, "Properties/EnableNetworkIsolation", False),
        LEAST,
        "a network",
    ),
    Mutant("model-outside-the-vpc", MANAGED, drop(MODEL, "Properties/VpcConfig"), LEAST, "through the VPC"),
    Mutant(
        "volume-without-key",
        MANAGED,
        drop("AWS::SageMaker::EndpointConfig", "Properties/KmsKeyId"),
        LEAST,
        "volumes are not encrypted",
    ),
    Mutant(
        "function-outside-the-vpc",
        MANAGED,
        drop("AWS::Lambda::Function", "Properties/VpcConfig", "carries"),
        LEAST,
        "outside the VPC",
    ),
    Mutant(
        "permission-for-any-api",
        MANAGED,
        drop("AWS::Lambda::Permission", "Properties/SourceArn", "execute-api"),
        "the_api_may_invoke_the_function",
        "any API of anybody",
    ),
    Mutant(
        "desync-monitor",
        SELF,
        put(
            BALANCER,
            "Properties/LoadBalancerAttributes/Key=routing.http.desync_mitigation_mode/Value",
            "monitor",
        ),
        BALANCED,
        "desync",
    ),
    Mutant(
        "desync-strictest",
        SELF,
        put(
            BALANCER,
            "Properties/LoadBalancerAttributes/Key=routing.http.desync_mitigation_mode/Value",
            "strictest",
        ),
        BALANCED,
        "desync mitigation",
    ),
    Mutant(
        "invalid-headers-pass",
        SELF,
        put(
            BALANCER,
            "Properties/LoadBalancerAttributes/Key=routing.http.drop_invalid_header_fields.enabled/Value",
            "false",
        ),
        BALANCED,
        "invalid header",
    ),
    Mutant(
        "tunnel-for-callers",
        SELF,
        append(TASK, f"{CONTAINER}/Environment", {"Name": "MODEL_SERVER_TUNNEL", "Value": "true"}),
        "only_sagemaker_names_routes_by_a_header",
        "choose a route by a header",
    ),
    Mutant(
        "archive-unchecked",
        SELF,
        drop(TASK, f"{CONTAINER}/Environment/Name=MODEL_SERVER_MODEL_SHA256"),
        "the_archive_is_checked_before_it_is_opened",
        "MODEL_SERVER_MODEL_SHA256",
    ),
)
