"""AWS::EC2: networks, security groups with their rules, and VPC endpoints."""

from modelstacks.cloud.services.ec2.types import networks, security_groups, vpc_endpoints

__all__ = ["networks", "security_groups", "vpc_endpoints"]
