"""Checks what a first deploy into an AWS account needs. Every call only reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from modelstacks.cli.doctor.check import Check
from modelstacks.core.errors import EnvironmentFault

if TYPE_CHECKING:
    from modelstacks.adapters.aws_account import AwsAccount

__all__ = ["examine_account"]

#: What the services create on first use, possibly during a first deploy, which can then fail.
SERVICE_LINKED_ROLES = {
    "AWSServiceRoleForECS": "ecs.amazonaws.com",
    "AWSServiceRoleForElasticLoadBalancing": "elasticloadbalancing.amazonaws.com",
    "AWSServiceRoleForAPIGateway": "ops.apigateway.amazonaws.com",
    "AWSServiceRoleForApplicationAutoScaling_ECSService": "ecs.application-autoscaling.amazonaws.com",
    "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint": (
        "sagemaker.application-autoscaling.amazonaws.com"
    ),
}


def examine_account(account: AwsAccount) -> Iterator[Check]:
    """Check that the account answers, is bootstrapped, and has the services' own roles."""
    try:
        yield Check("AWS account", "ok", f"{account.account_id()} in {account.region()}")
        yield _bootstrap(account.bootstrap_version())
        for role, service in SERVICE_LINKED_ROLES.items():
            yield _role(role, service, present=account.has_role(role))
    except EnvironmentFault as error:
        yield Check("AWS account", "failed", error.what, error.fix)


def _bootstrap(version: int | str | None) -> Check:
    if version is None:
        return Check(
            "CDK bootstrap", "failed", "this account and region are not bootstrapped", "cdk bootstrap"
        )
    return Check("CDK bootstrap", "ok", f"version {version}")


def _role(role: str, service: str, *, present: bool) -> Check:
    if present:
        return Check(f"role {role}", "ok", "exists")
    return Check(
        f"role {role}",
        "warning",
        "does not exist: the service creates it on first use, and a first deploy can fail meanwhile",
        f"aws iam create-service-linked-role --aws-service-name {service}",
    )
