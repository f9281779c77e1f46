"""The bucket for a load balancer's access logs."""

from __future__ import annotations

from aws_cdk import Aws, CfnDeletionPolicy, CfnResource
from aws_cdk import aws_s3 as s3
from constructs import Construct

from .iam import allow, policy_document
from .nag import acknowledge

__all__ = ["balancer_log_bucket"]


def balancer_log_bucket(scope: Construct, *, retention_days: int) -> tuple[s3.CfnBucket, s3.CfnBucketPolicy]:
    """A bucket that only the load balancing service writes into, and its policy.

    The service can only write under S3's own key. A bucket that holds logs cannot be deleted, so it outlives
    the stack, and its lifecycle rule empties it.
    """
    bucket = s3.CfnBucket(
        scope,
        "AccessLogs",
        bucket_encryption=s3.CfnBucket.BucketEncryptionProperty(
            server_side_encryption_configuration=[
                s3.CfnBucket.ServerSideEncryptionRuleProperty(
                    server_side_encryption_by_default=s3.CfnBucket.ServerSideEncryptionByDefaultProperty(
                        sse_algorithm="AES256"
                    )
                )
            ]
        ),
        public_access_block_configuration=s3.CfnBucket.PublicAccessBlockConfigurationProperty(
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
        ),
        ownership_controls=s3.CfnBucket.OwnershipControlsProperty(
            rules=[s3.CfnBucket.OwnershipControlsRuleProperty(object_ownership="BucketOwnerEnforced")]
        ),
        lifecycle_configuration=_expiry(retention_days),
    )
    acknowledge(bucket, "S1", "it is itself the destination of access logs")
    policy = _policy(scope, bucket)
    for resource in (bucket, policy):
        _retain(resource)
    return bucket, policy


def _expiry(days: int) -> s3.CfnBucket.LifecycleConfigurationProperty:
    return s3.CfnBucket.LifecycleConfigurationProperty(
        rules=[
            s3.CfnBucket.RuleProperty(
                id="retention",
                status="Enabled",
                expiration_in_days=days,
                abort_incomplete_multipart_upload=s3.CfnBucket.AbortIncompleteMultipartUploadProperty(
                    days_after_initiation=1
                ),
            )
        ]
    )


def _policy(scope: Construct, bucket: s3.CfnBucket) -> s3.CfnBucketPolicy:
    return s3.CfnBucketPolicy(
        scope,
        "AccessLogsPolicy",
        bucket=bucket.ref,
        policy_document=policy_document(
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [bucket.attr_arn, f"{bucket.attr_arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            },
            # The service writes below the account that owns the load balancer: nobody else's logs fit this
            # path.
            allow(
                "s3:PutObject",
                f"{bucket.attr_arn}/AWSLogs/{Aws.ACCOUNT_ID}/*",
                principal={"Service": "logdelivery.elasticloadbalancing.amazonaws.com"},
            ),
        ),
    )


def _retain(resource: CfnResource) -> None:
    resource.cfn_options.deletion_policy = CfnDeletionPolicy.RETAIN
    resource.cfn_options.update_replace_policy = CfnDeletionPolicy.RETAIN
