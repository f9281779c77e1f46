"""ecs-fargate: the self-hosted architecture on ECS Fargate, behind an internal ALB."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from modelstacks.core.errors import Invalid
from modelstacks.core.plan import Plan
from modelstacks.core.plan.capacity import Quota, Unit, interface_endpoints, network, quota, resource
from modelstacks.core.registry import Refusal, Target
from modelstacks.core.spec import TargetSpec

# Fargate's task sizes: vCPU units -> the memory values, in MiB, that it supports with them.
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html
SIZES: dict[int, tuple[int, ...]] = {
    256: (512, 1024, 2048),
    512: tuple(range(1024, 4096 + 1, 1024)),
    1024: tuple(range(2048, 8192 + 1, 1024)),
    2048: tuple(range(4096, 16384 + 1, 1024)),
    4096: tuple(range(8192, 30720 + 1, 1024)),
    8192: tuple(range(16384, 61440 + 1, 4096)),
    16384: tuple(range(32768, 122880 + 1, 8192)),
}


class EcsFargate(TargetSpec):
    """The size of one task, and its scaling on CPU."""

    target: Literal["ecs-fargate"] = "ecs-fargate"
    cpu: Literal[256, 512, 1024, 2048, 4096, 8192, 16384] = Field(
        1024, description="vCPU units; 1024 is one vCPU"
    )
    memory_mib: int = Field(
        2048, description="memory of a task in MiB; Fargate supports certain values with each cpu"
    )
    processor: Literal["x86_64", "arm64"] = Field(
        "x86_64", description="processor architecture of the task and its image"
    )
    ephemeral_storage_gib: int = Field(
        21, ge=21, le=200, description="disk of a task in GiB; must have room for the archive and the model"
    )
    cpu_percent: int = Field(60, ge=10, le=90, description="CPU target of a second scaling policy")

    @model_validator(mode="after")
    def _size_exists(self) -> Self:
        offered = SIZES[self.cpu]
        if self.memory_mib not in offered:
            few = len(offered) < 4
            raise Invalid(
                f"Fargate does not support this memory with cpu {self.cpu}",
                field="memory_mib",
                got=f"{self.memory_mib}",
                allowed=", ".join(map(str, offered))
                if few
                else f"{offered[0]} to {offered[-1]} in steps of {offered[1] - offered[0]}",
            )
        return self


def capacity(plan: Plan) -> tuple[Unit, ...]:
    """Return the units of the tasks, the load balancer and the VPC endpoints.

    An update starts all new tasks before it stops the old ones.
    """
    target, task = plan.target, "AWS::ECS::TaskDefinition"
    if not isinstance(target, EcsFargate):
        raise TypeError(f"{target!r} is not a block of ecs-fargate")

    def in_tasks(measure: str, each: float, limit: Quota | None = None) -> Unit:
        least, most = plan.scaling.min_replicas * each, plan.scaling.max_replicas * each
        return Unit(task, measure, least, most, 2 * most, billed=True, size=target.processor, quota=limit)

    return (
        in_tasks("vCPU", target.cpu / 1024, quota("fargate-vcpus")),
        in_tasks("GiB of memory", target.memory_mib / 1024),
        in_tasks("GiB of disk beyond 20", target.ephemeral_storage_gib - 20),
        resource("AWS::ElasticLoadBalancingV2::LoadBalancer", billed=True, quota=quota("load-balancers")),
        resource("AWS::ElasticLoadBalancingV2::TargetGroup", quota=quota("target-groups")),
        resource("AWS::ApiGatewayV2::VpcLink", quota=quota("vpc-links")),
        *network(),
        *interface_endpoints(3, plan),
        # The VPC link's, the load balancer's, the tasks' and one for each endpoint.
        resource("AWS::EC2::SecurityGroup", 6, quota=quota("security-groups")),
        # The load balancer's access logs.
        resource("AWS::S3::Bucket", quota=quota("buckets")),
        resource("AWS::IAM::Role", 2, quota=quota("roles")),
        resource("AWS::Logs::LogGroup"),
    )


TARGET = Target(
    name="ecs-fargate",
    architecture="self-hosted",
    summary="API Gateway -> VPC link -> internal ALB -> ECS Fargate tasks, each with a copy of the model",
    spec=EcsFargate,
    example="self-hosted: {target: ecs-fargate, cpu: 1024, memory_mib: 2048}",
    default=True,
    outputs={
        "ClusterName": "ECS cluster",
        "ServiceName": "ECS service",
        "LogGroupName": "what the model servers write",
    },
    capacity=capacity,
    reasons={
        "cpu": "Enough for tabular models and small networks; raise it for larger ones.",
        "memory_mib": "The minimum that Fargate supports with one vCPU.",
        "processor": "Most machines that build images are x86_64, and build arm64 images slowly.",
        "ephemeral_storage_gib": "The minimum: a task includes 20 GiB.",
        "cpu_percent": "Leaves capacity for the load of a failed task while its replacement starts.",
    },
    refuses=(
        Refusal(
            source_kind="remote",
            reason="its tasks serve model files, and a model that its provider hosts has none; "
            "use a source with files, or a target that calls the provider",
        ),
        Refusal(
            feature="vendor-image",
            reason="its task definition and health checks are made for the model server; "
            "choose a model that an engine of the model server loads",
        ),
        Refusal(
            feature="scale-to-zero",
            reason="nothing starts a task when a request arrives at a service without tasks; "
            "set scaling.min_replicas to 1 or more",
        ),
        Refusal(
            feature="zone-without-vpc-links",
            reason="the API reaches the load balancer through a VPC link v2, which AWS does not offer in "
            "every zone; use other zones of the region, or architecture: managed",
        ),
    ),
)
