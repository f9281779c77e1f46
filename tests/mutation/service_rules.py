"""Faults that every schema accepts and the service refuses when the resource is created.

`caught_by` is the type of the resource whose creation is refused, and the text by which it is found.
"""

from __future__ import annotations

from mutation.edits import Document, Mutant, drop, put, remove

SELF, MANAGED = "self-hosted", "managed"
TASK = "AWS::ECS::TaskDefinition"
SERVICE = "AWS::ECS::Service"
METHOD = "AWS::ApiGateway::Method"
VPC = "AWS::EC2::VPC"
INTERFACE = "AWS::EC2::VPCEndpoint Interface"
BALANCER = "AWS::ElasticLoadBalancingV2::LoadBalancer"
TARGETS = "AWS::ElasticLoadBalancingV2::TargetGroup"
CONTAINER = "Properties/ContainerDefinitions/0"
IDLE = "Properties/LoadBalancerAttributes/Key=idle_timeout.timeout_seconds/Value"
ARN = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/a/0123456789abcdef"


def one_zone(template: Document) -> None:
    """Put every subnet into the zone of the first."""
    subnets = [one for one in template["Resources"].values() if one["Type"] == "AWS::EC2::Subnet"]
    for subnet in subnets:
        for name in ("AvailabilityZone", "AvailabilityZoneId"):
            if name in subnet["Properties"]:
                subnet["Properties"][name] = subnets[0]["Properties"][name]


MUTANTS = (
    Mutant(
        "no-name-resolution",
        MANAGED,
        put(VPC, "Properties/EnableDnsSupport", False),
        INTERFACE,
        "requires both",
    ),
    Mutant(
        "no-host-names", SELF, put(VPC, "Properties/EnableDnsHostnames", False), INTERFACE, "requires both"
    ),
    Mutant(
        "one-subnet-for-the-balancer",
        SELF,
        drop(BALANCER, "Properties/Subnets/1"),
        BALANCER,
        "At least two subnets",
    ),
    Mutant(
        "one-zone-for-the-balancer",
        SELF,
        one_zone,
        BALANCER,
        "multiple subnets in the same Availability Zone",
    ),
    Mutant("idle-for-too-long", SELF, put(BALANCER, IDLE, "5000"), BALANCER, "must be between '1-4000'"),
    Mutant(
        "checks-that-overlap",
        SELF,
        put(TARGETS, "Properties/HealthCheckTimeoutSeconds", 10),
        TARGETS,
        "interval must be greater",
    ),
    Mutant(
        "size-that-fargate-lacks",
        SELF,
        put(TASK, "Properties/Memory", "512"),
        TASK,
        "No Fargate configuration exists",
    ),
    Mutant(
        "bridge-network",
        SELF,
        put(TASK, "Properties/NetworkMode", "bridge"),
        TASK,
        "only supports network mode",
    ),
    Mutant(
        "task-without-execution-role",
        SELF,
        drop(TASK, "Properties/ExecutionRoleArn"),
        TASK,
        "execution role ARN",
    ),
    Mutant(
        "stops-too-slowly",
        SELF,
        put(TASK, f"{CONTAINER}/StopTimeout", 121),
        TASK,
        "maximum on Fargate is 120",
    ),
    Mutant(
        "disk-too-small",
        SELF,
        put(TASK, "Properties/EphemeralStorage/SizeInGiB", 20),
        TASK,
        "not between 21 and 200",
    ),
    Mutant(
        "port-the-container-lacks",
        SELF,
        put(TASK, f"{CONTAINER}/PortMappings/0/ContainerPort", 8081),
        SERVICE,
        "did not have a container port 8080",
    ),
    Mutant(
        "container-the-task-lacks",
        SELF,
        put(SERVICE, "Properties/LoadBalancers/0/ContainerName", "x"),
        SERVICE,
        "container x does not exist",
    ),
    Mutant(
        "targets-are-instances",
        SELF,
        put(TARGETS, "Properties/TargetType", "instance"),
        SERVICE,
        "incompatible with the awsvpc",
    ),
    Mutant(
        "integration-without-target",
        SELF,
        drop(METHOD, "Properties/Integration/IntegrationTarget"),
        METHOD,
        "IntegrationTarget is required",
    ),
    Mutant(
        "integration-of-a-target-group",
        SELF,
        put(METHOD, "Properties/Integration/IntegrationTarget", ARN),
        METHOD,
        "is not a valid ALB or NLB arn",
    ),
    Mutant(
        "logging-without-a-role",
        SELF,
        remove("AWS::ApiGateway::Account"),
        "AWS::ApiGateway::Stage",
        "role ARN must be set",
    ),
    Mutant(
        "key-without-log-service",
        SELF,
        drop("AWS::KMS::Key", "Properties/KeyPolicy/Statement/1"),
        "AWS::Logs::LogGroup",
        "not allowed to be used",
    ),
)
