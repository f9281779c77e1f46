"""Acknowledging a finding of a check, next to the resource that it is about."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Validations
from constructs import Construct

__all__ = ["CDK_NAG", "CLOUDFORMATION", "acknowledge"]

CDK_NAG = "AwsSolutions::AwsSolutions-"
CLOUDFORMATION = "CloudFormation-Validate::"


def acknowledge(construct: Construct, rule: str, reason: str, *, check: str = CDK_NAG) -> None:
    """Accept one finding ("IAM5") on this construct, and say why.

    `check` is who found it, as the CDK wants it in front of the rule: without it, it takes the id and
    acknowledges nothing.
    """
    Validations.of(construct).acknowledge(Acknowledgment(id=f"{check}{rule}", reason=reason))
