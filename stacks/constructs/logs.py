"""Log groups: always encrypted, never kept for ever."""

from __future__ import annotations

from aws_cdk import CfnDeletionPolicy
from aws_cdk import aws_logs as logs
from constructs import Construct

from .encryption import EncryptionKey

__all__ = ["log_group"]


def log_group(
    scope: Construct,
    id: str,
    *,
    key: EncryptionKey,
    retention_days: int,
    name: str | None = None,
) -> logs.CfnLogGroup:
    """An encrypted log group. It goes with its stack: one that stayed would be in the next one's way."""
    group = logs.CfnLogGroup(
        scope, id, kms_key_id=key.arn, retention_in_days=retention_days, log_group_name=name
    )
    group.cfn_options.deletion_policy = CfnDeletionPolicy.DELETE
    group.cfn_options.update_replace_policy = CfnDeletionPolicy.DELETE
    return group
