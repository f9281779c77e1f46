"""One customer-managed key for everything of a deployment that lies on a disk."""

from __future__ import annotations

from aws_cdk import Aws
from aws_cdk import aws_kms as kms
from constructs import Construct

from .iam import allow, policy_document

__all__ = ["customer_key"]


def customer_key(scope: Construct, deployment: str) -> kms.CfnKey:
    """A key that rotates every year. The account's own IAM policies govern it; CloudWatch Logs may use it."""
    return kms.CfnKey(
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
            allow(
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
            ),
        ),
    )
