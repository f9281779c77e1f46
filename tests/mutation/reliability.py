"""Faults that show on a bad day: a lost zone, a deploy that fails, load, a task that leaves."""

from __future__ import annotations

from mutation.edits import Mutant, drop, put, remove

SELF, MANAGED = "self-hosted", "managed"
SERVICE = "AWS::ECS::Service"
DEPLOYMENT = "Properties/DeploymentConfiguration"
TARGETS = "AWS::ElasticLoadBalancingV2::TargetGroup"
BALANCER = "AWS::ElasticLoadBalancingV2::LoadBalancer"
CAPACITY = "AWS::ApplicationAutoScaling::ScalableTarget"
POLICY = "AWS::ApplicationAutoScaling::ScalingPolicy"
TRACKING = "Properties/TargetTrackingScalingPolicyConfiguration"
CONFIGURATION = "AWS::SageMaker::EndpointConfig"
TASK = "AWS::ECS::TaskDefinition"
METHOD = "AWS::ApiGateway::Method"
FUNCTION = "AWS::Lambda::Function"
RESPONSE = "AWS::ApiGateway::GatewayResponse"

ZONES = "a_zone_may_be_lost"
LOAD = "load_adds_replicas"
DEPLOYS = "a_deploy_never_serves_with_less"
HEALTH = "health_is_readiness"
LEAVES = "a_leaving_task_finishes_its_requests"
ORDER = "each_gives_up_before_the_one_in_front"
FORM = "errors_have_one_form"
FIRST = "what_is_needed_exists_first"

MUTANTS = (
    Mutant("one-task", SELF, put(CAPACITY, "Properties/MinCapacity", 1), ZONES, "one replica"),
    Mutant("no-task", SELF, put(CAPACITY, "Properties/MinCapacity", 0), ZONES, "one replica"),
    Mutant(
        "nothing-to-scale-to",
        MANAGED,
        put(CAPACITY, "Properties/MaxCapacity", 2),
        ZONES,
        "nothing to scale to",
    ),
    Mutant(
        "one-instance",
        MANAGED,
        put(CONFIGURATION, "Properties/ProductionVariants/0/InitialInstanceCount", 1),
        ZONES,
        "one instance",
    ),
    Mutant("one-subnet", SELF, remove("AWS::EC2::Subnet", "isolated-2"), ZONES, "one zone"),
    Mutant("balancer-in-one-subnet", SELF, drop(BALANCER, "Properties/Subnets/1"), ZONES, "in one subnet"),
    Mutant(
        "link-in-one-subnet",
        SELF,
        drop("AWS::ApiGatewayV2::VpcLink", "Properties/SubnetIds/1"),
        ZONES,
        "in one subnet",
    ),
    Mutant(
        "tasks-in-one-subnet",
        SELF,
        drop(SERVICE, "Properties/NetworkConfiguration/AwsvpcConfiguration/Subnets/1"),
        ZONES,
        "in one subnet",
    ),
    Mutant(
        "instances-in-one-subnet",
        MANAGED,
        drop("AWS::SageMaker::Model", "Properties/VpcConfig/Subnets/1"),
        ZONES,
        "in one subnet",
    ),
    Mutant("no-scaling-on-concurrency", SELF, remove(POLICY, "concurrency"), LOAD, "concurrency"),
    Mutant("no-scaling-on-cpu", SELF, remove(POLICY, "CPUUtilization"), LOAD, "CPU"),
    Mutant("no-scaling-of-instances", MANAGED, remove(POLICY), LOAD, "nothing scales on concurrency"),
    Mutant(
        "never-scales-in", MANAGED, put(POLICY, f"{TRACKING}/DisableScaleIn", True), LOAD, "never scales in"
    ),
    Mutant("slow-to-scale-out", MANAGED, put(POLICY, f"{TRACKING}/ScaleOutCooldown", 900), LOAD, "slower"),
    Mutant(
        "half-the-tasks",
        SELF,
        put(SERVICE, f"{DEPLOYMENT}/MinimumHealthyPercent", 50),
        DEPLOYS,
        "takes tasks away",
    ),
    Mutant(
        "no-room-for-successors",
        SELF,
        put(SERVICE, f"{DEPLOYMENT}/MaximumPercent", 100),
        DEPLOYS,
        "before their successors serve",
    ),
    Mutant(
        "no-circuit-breaker",
        SELF,
        drop(SERVICE, f"{DEPLOYMENT}/DeploymentCircuitBreaker"),
        DEPLOYS,
        "circuit breaker",
    ),
    Mutant(
        "no-rollback",
        SELF,
        put(SERVICE, f"{DEPLOYMENT}/DeploymentCircuitBreaker/Rollback", False),
        DEPLOYS,
        "without rollback",
    ),
    Mutant(
        "deploy-resets-count", SELF, put(SERVICE, "Properties/DesiredCount", 2), DEPLOYS, "resets the number"
    ),
    Mutant(
        "no-grace-period",
        SELF,
        drop(SERVICE, "Properties/HealthCheckGracePeriodSeconds"),
        DEPLOYS,
        "still loads",
    ),
    Mutant(
        "update-resets-instances",
        MANAGED,
        drop("AWS::SageMaker::Endpoint", "Properties/RetainAllVariantProperties"),
        DEPLOYS,
        "number of instances",
    ),
    Mutant(
        "health-of-the-process",
        SELF,
        put(TARGETS, "Properties/HealthCheckPath", "/v2/health/live"),
        HEALTH,
        "/ping",
    ),
    Mutant(
        "loading-is-healthy",
        SELF,
        put(TARGETS, "Properties/Matcher/HttpCode", "200-599"),
        HEALTH,
        "loading counts",
    ),
    Mutant(
        "check-longer-than-interval",
        SELF,
        put(TARGETS, "Properties/HealthCheckTimeoutSeconds", 10),
        HEALTH,
        "longer than the interval",
    ),
    Mutant(
        "targets-by-instance", SELF, put(TARGETS, "Properties/TargetType", "instance"), HEALTH, "by address"
    ),
    Mutant(
        "round-robin",
        SELF,
        put(
            TARGETS, "Properties/TargetGroupAttributes/Key=load_balancing.algorithm.type/Value", "round_robin"
        ),
        HEALTH,
        "idle one",
    ),
    Mutant(
        "sticky",
        SELF,
        put(TARGETS, "Properties/TargetGroupAttributes/Key=stickiness.enabled/Value", "true"),
        HEALTH,
        "stick",
    ),
    Mutant(
        "no-deregistration-delay",
        SELF,
        put(TARGETS, "Properties/TargetGroupAttributes/Key=deregistration_delay.timeout_seconds/Value", "0"),
        LEAVES,
        "taken away after 0 s",
    ),
    Mutant(
        "killed-at-once",
        SELF,
        put(TASK, "Properties/ContainerDefinitions/0/StopTimeout", 2),
        LEAVES,
        "killed 2 s",
    ),
    Mutant(
        "one-route-with-another-time-out",
        SELF,
        put(METHOD, "Properties/Integration/TimeoutInMillis", 1000, "ping"),
        ORDER,
        "different time-outs",
    ),
    Mutant(
        "balancer-gives-up-first",
        SELF,
        put(BALANCER, "Properties/LoadBalancerAttributes/Key=idle_timeout.timeout_seconds/Value", "20"),
        ORDER,
        "idle time-out of 20 s",
    ),
    Mutant(
        "balancer-outlasts-the-server",
        SELF,
        put(BALANCER, "Properties/LoadBalancerAttributes/Key=idle_timeout.timeout_seconds/Value", "120"),
        ORDER,
        "idle time-out of 120 s",
    ),
    Mutant(
        "function-outlasts-the-api",
        MANAGED,
        put(FUNCTION, "Properties/Timeout", 60, "carries"),
        ORDER,
        "in order",
    ),
    Mutant(
        "client-outlasts-the-function",
        MANAGED,
        put(FUNCTION, "Properties/Environment/Variables/READ_TIMEOUT_SECONDS", "30", "carries"),
        ORDER,
        "not in order",
    ),
    Mutant(
        "throttled-without-retry-after",
        SELF,
        drop(RESPONSE, "Properties/ResponseParameters/gatewayresponse.header.Retry-After", '"THROTTLED"'),
        FORM,
        "when to come back",
    ),
    Mutant("forbidden-without-form", MANAGED, remove(RESPONSE, '"INVALID_API_KEY"'), FORM, "INVALID_API_KEY"),
    Mutant(
        "too-large-without-status",
        SELF,
        put(RESPONSE, "Properties/ResponseTemplates", {"application/json": "{}"}, '"REQUEST_TOO_LARGE"'),
        FORM,
        "REQUEST_TOO_LARGE has no status",
    ),
    Mutant("service-before-the-rule", SELF, put(SERVICE, "DependsOn", []), FIRST, "before its target group"),
    Mutant(
        "stage-before-the-account",
        MANAGED,
        put("AWS::ApiGateway::Stage", "DependsOn", []),
        FIRST,
        "write logs",
    ),
    Mutant("balancer-before-its-log", SELF, put(BALANCER, "DependsOn", []), FIRST, "access log"),
    Mutant(
        "account-role-goes-with-the-stack",
        SELF,
        drop("AWS::ApiGateway::Account", "DeletionPolicy"),
        "what_others_use_outlives_the_stack",
        "goes with the stack",
    ),
)
