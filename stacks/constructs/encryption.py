"""One customer-managed key for everything of a deployment that is stored on a disk."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Aws
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from .iam import Statement, allow, policy_document

__all__ = ["EncryptionKey", "customer_key", "given_key"]


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """A KMS key that CloudWatch Logs and the account's own roles may use, whoever made it."""

    arn: str


def customer_key(scope: Construct, deployment: str) -> EncryptionKey:
    """A key that rotates every year. The account's own IAM policies govern it; CloudWatch Logs may use it."""
    key = kms.CfnKey(
        scope,
        "Key",
        description=f"logs and model volumes of {deployment}",
        enable_key_rotation=True,
        pending_window_in_days=30,
        key_policy=policy_document(
            allow(
                "kms:*",
                "*",  # in a key's policy: this key
                principal={"AWS": f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:root"},
                sid="AccountAdministers",
            ),
            _log_groups(),
        ),
    )
    return EncryptionKey(key.attr_arn)


def given_key(key: kms.IKey) -> EncryptionKey:
    """A key of the user's app. Its policy gets the statement for log groups.

    An imported key's policy cannot be changed from here, so it has to have that statement already.
    """
    key.add_to_resource_policy(iam.PolicyStatement.from_json(_log_groups()), True)
    return EncryptionKey(key.key_arn)


def _log_groups() -> Statement:
    """CloudWatch Logs may use the key for the log groups of this account."""
    return allow(
        ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"],
        "*",
        principal={"Service": f"logs.{Aws.REGION}.amazonaws.com"},
        condition={
            "ArnLike": {
                "kms:EncryptionContext:aws:logs:arn": (
                    f"arn:{Aws.PARTITION}:logs:{Aws.REGION}:{Aws.ACCOUNT_ID}:log-group:*"
                )
            }
        },
        sid="LogGroupsOfThisAccount",
    )
