"""Roles written as the IAM documents that they are: who may assume them, and what they may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import Aws
from aws_cdk import aws_iam as iam
from constructs import Construct

__all__ = ["Statement", "allow", "deny", "policy_document", "service_role"]

Statement = dict[str, Any]


def allow(
    actions: str | Sequence[str],
    resources: str | Sequence[str],
    *,
    principal: Any = None,
    condition: Mapping[str, Mapping[str, Any]] | None = None,
    sid: str | None = None,
) -> Statement:
    """One IAM statement that allows; `principal` only where the document is a resource's own policy."""
    statement: Statement = {"Effect": "Allow", "Action": actions, "Resource": resources}
    if principal is not None:
        statement["Principal"] = principal
    if condition is not None:
        statement["Condition"] = condition
    if sid is not None:
        statement["Sid"] = sid
    return statement


def deny(
    actions: str | Sequence[str],
    resources: str | Sequence[str],
    *,
    condition: Mapping[str, Mapping[str, Any]],
) -> Statement:
    """One IAM statement that denies, whatever another one allows, where its condition holds."""
    return {**allow(actions, resources, condition=condition), "Effect": "Deny"}


def policy_document(*statements: Statement) -> dict[str, Any]:
    """An IAM policy document."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def service_role(
    scope: Construct,
    id: str,
    *,
    service: str,
    description: str,
    policies: Mapping[str, Sequence[Statement]],
    only_for_this_account: bool = True,
) -> iam.CfnRole:
    """A role that one AWS service may assume. `policies` maps a policy's name to its statements.

    `only_for_this_account` names the account in the trust policy, so that the service cannot be talked into
    using the role for another customer. Some services (Lambda, API Gateway) do not say for whom they assume a
    role.
    """
    trust: Statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    if only_for_this_account:
        trust["Condition"] = {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}}
    return iam.CfnRole(
        scope,
        id,
        assume_role_policy_document=policy_document(trust),
        description=description,
        policies=[
            iam.CfnRole.PolicyProperty(policy_name=name, policy_document=policy_document(*statements))
            for name, statements in policies.items()
        ],
    )
