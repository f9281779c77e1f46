"""Acknowledging a cdk-nag finding, next to the resource that it is about."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Validations
from constructs import Construct

__all__ = ["acknowledge"]


def acknowledge(construct: Construct, rule: str, reason: str) -> None:
    """Accept one finding of the AwsSolutions pack ("IAM5") on this construct, and say why."""
    # The pack's name must stand in front: without it the CDK accepts the id and acknowledges nothing.
    Validations.of(construct).acknowledge(
        Acknowledgment(id=f"AwsSolutions::AwsSolutions-{rule}", reason=reason)
    )
