"""Who holds which role in a template, and what each holder does with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mutation.invariants import Stack

__all__ = ["roles_may_do_what_their_holders_need"]

WRITES_LOGS = {"logs:CreateLogStream", "logs:PutLogEvents"}
PULLS_IMAGES = {"ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}
READS_THE_MODEL = {"s3:GetObject"}
IN_A_NETWORK = {"ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces"}
#: SageMaker's developer guide, "SageMaker AI Roles", CreateModel with a VpcConfig.
SAGEMAKER_IN_A_NETWORK = IN_A_NETWORK | {
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterfacePermission",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
}


def roles_may_do_what_their_holders_need(stack: Stack) -> Iterator[str]:
    for holder, role, needed in held(stack):
        for action in sorted(needed - granted(stack, role)):
            yield f"the role of {holder} may not {action}"


def held(stack: Stack) -> Iterator[tuple[str, str, set[str]]]:
    """Each holder of a role, the role, and the actions that the holder needs."""
    for name, task in stack.of("AWS::ECS::TaskDefinition").items():
        yield f"{name} (task)", named(task["TaskRoleArn"]), READS_THE_MODEL
        yield f"{name} (execution)", named(task["ExecutionRoleArn"]), PULLS_IMAGES | WRITES_LOGS
    for name, model in stack.of("AWS::SageMaker::Model").items():
        network = SAGEMAKER_IN_A_NETWORK if "VpcConfig" in model else set()
        needed = READS_THE_MODEL | {"s3:ListBucket"} | PULLS_IMAGES | WRITES_LOGS | network
        yield name, named(model["ExecutionRoleArn"]), needed
    for name, function in stack.of("AWS::Lambda::Function").items():
        network = IN_A_NETWORK if "VpcConfig" in function else set()
        yield name, named(function["Role"]), WRITES_LOGS | network | calls_of(function)
    for name, account in stack.of("AWS::ApiGateway::Account").items():
        yield name, named(account["CloudWatchRoleArn"]), WRITES_LOGS | {"logs:CreateLogGroup"}
    for name, log in stack.of("AWS::EC2::FlowLog").items():
        yield name, named(log["DeliverLogsPermissionArn"]), WRITES_LOGS


def calls_of(function: dict[str, Any]) -> set[str]:
    """What a function's own code calls: one invokes the endpoint, the other reads the image's manifest."""
    invokes = "ENDPOINT_NAME" in function.get("Environment", {}).get("Variables", {})
    return {"sagemaker:InvokeEndpoint"} if invokes else {"ecr:BatchGetImage"}


def named(arn: Any) -> str:
    """The logical id of the role whose ARN this is."""
    return str(arn["Fn::GetAtt"][0])


def granted(stack: Stack, role: str) -> set[str]:
    """The actions that a role's own policies and those attached to it allow on something."""
    documents = [
        one["PolicyDocument"] for one in stack.resources[role].get("Properties", {}).get("Policies", [])
    ]
    documents += [
        policy["PolicyDocument"]
        for policy in stack.of("AWS::IAM::Policy").values()
        if f'"{role}"' in json.dumps(policy["Roles"])
    ]
    statements = [one for document in documents for one in document["Statement"] if one["Effect"] == "Allow"]
    actions = (one["Action"] for one in statements)
    return {action for one in actions for action in (one if isinstance(one, list) else [one])}
