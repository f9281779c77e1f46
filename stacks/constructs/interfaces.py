"""The network interfaces that a service makes in a VPC under a role: as narrow as EC2's actions allow.

Which resources and conditions an action knows is in IAM's service authorization reference for EC2: creating
an interface names subnets and security groups; describing names no resource.
"""

from __future__ import annotations

from aws_cdk import Aws

from .iam import Statement, allow, deny
from .network import Network, ec2_arn
from .security_groups import SecurityGroup

__all__ = ["function_interfaces", "instance_interfaces"]

INTERFACES = ec2_arn("network-interface", "*")


def function_interfaces(network: Network, group: SecurityGroup) -> list[Statement]:
    """What Lambda does in order to attach a function to a VPC.

    Lambda checks the role when the function is made, and refuses one that cannot delete interfaces by the
    pattern `*/*` (its guide on VPC access; a role with `network-interface/*` was refused in a recorded run,
    docs/verified.md). The function's own code, which runs under the same role, is denied all of it.
    """
    own = ["ec2:AssignPrivateIpAddresses", "ec2:DeleteNetworkInterface", "ec2:UnassignPrivateIpAddresses"]
    seen = ["ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"]
    create = "ec2:CreateNetworkInterface"
    return [
        allow(create, [*_place(network, group), INTERFACES]),
        allow(own, ec2_arn("*", "*")),
        allow(seen, "*"),
        deny(
            [create, *own, *seen],
            "*",
            condition={
                "ArnLike": {
                    "lambda:SourceFunctionArn": (
                        f"arn:{Aws.PARTITION}:lambda:{Aws.REGION}:{Aws.ACCOUNT_ID}:function:*"
                    )
                }
            },
        ),
    ]


def instance_interfaces(network: Network, group: SecurityGroup) -> list[Statement]:
    """What SageMaker does in order to attach an endpoint's instances to a VPC."""
    return [
        allow("ec2:CreateNetworkInterface", [*_place(network, group), INTERFACES]),
        allow(
            [
                "ec2:CreateNetworkInterfacePermission",
                "ec2:DeleteNetworkInterface",
                "ec2:DeleteNetworkInterfacePermission",
            ],
            INTERFACES,
        ),
        allow(
            [
                "ec2:DescribeDhcpOptions",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
            ],
            "*",
        ),
    ]


def _place(network: Network, group: SecurityGroup) -> list[str]:
    return [*network.subnet_arns, ec2_arn("security-group", group.group_id)]
