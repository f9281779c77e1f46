"""Lambda as it is read back: functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.ec2.snapshot import Ec2Snapshot, NetworkInterface
from modelstacks.cloud.services.iam.snapshot import IamSnapshot, Policy, policy_of
from modelstacks.cloud.services.kms.snapshot import KmsSnapshot
from modelstacks.cloud.services.s3.snapshot import S3Snapshot
from modelstacks.cloud.snapshot import Snapshot, each, unless_absent

__all__ = ["Function", "LambdaSnapshot"]


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
    revision: str  # of its code and configuration: changes with each update
    policy: Policy | None


@dataclass(frozen=True)
class LambdaSnapshot(Snapshot):
    """The functions of the account, by name."""

    needs = (CloudFormationSnapshot, Ec2Snapshot, IamSnapshot, KmsSnapshot, S3Snapshot)
    functions: Mapping[str, Function] = field(default_factory=dict)

    @classmethod
    def read(cls, clients: Clients) -> LambdaSnapshot:
        """Read every function with its resource policy."""
        return cls(_functions(clients))


def _functions(clients: Clients) -> dict[str, Function]:
    client = clients.client("lambda")

    def function(listed: Mapping[str, Any]) -> Function:
        name = listed["FunctionName"]
        found = client.get_function(FunctionName=name)
        item = found["Configuration"]
        wires = item.get("VpcConfig") or {}
        policy = unless_absent(lambda: client.get_policy(FunctionName=name)["Policy"])
        return Function(
            name=name,
            arn=item["FunctionArn"],
            handler=item.get("Handler", ""),
            runtime=item.get("Runtime", ""),
            timeout=float(item.get("Timeout") or 3),
            memory=int(item.get("MemorySize") or 128),
            environment=(item.get("Environment") or {}).get("Variables") or {},
            role_arn=item["Role"],
            network=NetworkInterface(
                f"lambda {name}", tuple(wires["SubnetIds"]), tuple(wires.get("SecurityGroupIds", []))
            )
            if wires.get("SubnetIds")
            else None,
            reserved_concurrency=(found.get("Concurrency") or {}).get("ReservedConcurrentExecutions"),
            code_sha256=item.get("CodeSha256", ""),
            code_location=(found.get("Code") or {}).get("Location", ""),
            package_type=item.get("PackageType", "Zip"),
            log_group=(item.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{name}",
            revision=item.get("RevisionId", ""),
            policy=policy_of(f"the resource policy of lambda {name}", policy),
        )

    found = each(function, clients.pages("lambda", "list_functions", "Functions"))
    return {one.name: one for one in found}
