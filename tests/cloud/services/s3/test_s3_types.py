"""S3: made by CloudFormation, read back by boto3, changed, deleted."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.control_plane import Account


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def bucket() -> dict[str, Any]:
    default = {"SSEAlgorithm": "aws:kms"}
    everything = dict.fromkeys(
        ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
    )
    insecure = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": {"Fn::Sub": "${Bucket.Arn}/*"},
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return {
        "Bucket": {
            "Type": "AWS::S3::Bucket",
            "Properties": {
                "BucketEncryption": {
                    "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": default}]
                },
                "LifecycleConfiguration": {
                    "Rules": [{"Id": "old", "Status": "Enabled", "ExpirationInDays": 90}]
                },
                "PublicAccessBlockConfiguration": everything,
                "VersioningConfiguration": {"Status": "Enabled"},
            },
        },
        "Policy": {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {"Bucket": {"Ref": "Bucket"}, "PolicyDocument": document(insecure)},
        },
    }


def test_a_bucket_with_its_settings(account: Account) -> None:
    resources = bucket()
    ids = account.create("bucket", resources)
    s3, name = account.client("s3"), ids["Bucket"]
    (rule,) = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert (rule["ID"], rule["Expiration"]["Days"]) == ("old", 90)
    assert (
        s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]["BlockPublicPolicy"] is True
    )
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"

    del resources["Bucket"]["Properties"]["LifecycleConfiguration"]
    assert account.update("bucket", resources) == ids
    with pytest.raises(ClientError, match="NoSuchLifecycleConfiguration"):
        s3.get_bucket_lifecycle_configuration(Bucket=name)
    account.delete("bucket")
    assert name not in {one["Name"] for one in s3.list_buckets()["Buckets"]}


def test_a_policy_against_plain_http_does_not_close_the_bucket(account: Account) -> None:
    name = account.create("policed", bucket())["Bucket"]
    s3 = account.client("s3")
    s3.put_object(Bucket=name, Key="k", Body=b"v")
    assert s3.get_object(Bucket=name, Key="k")["Body"].read() == b"v"
    assert "aws:SecureTransport" in s3.get_bucket_policy(Bucket=name)["Policy"]
    for version in s3.list_object_versions(Bucket=name)["Versions"]:
        s3.delete_object(Bucket=name, Key="k", VersionId=version["VersionId"])


def test_a_bucket_that_holds_something_stays_and_the_stack_says_why(account: Account) -> None:
    name = account.create("full", {"Bucket": {"Type": "AWS::S3::Bucket"}})["Bucket"]
    s3, cloudformation = account.client("s3"), account.client("cloudformation")
    s3.put_object(Bucket=name, Key="k", Body=b"v")
    cloudformation.delete_stack(StackName="full")
    assert account.status("full") == "DELETE_FAILED"
    assert "not empty" in account.reasons("full")["Bucket"]
    s3.delete_object(Bucket=name, Key="k")
    cloudformation.delete_stack(StackName="full")
    with pytest.raises(ClientError, match="does not exist"):
        account.status("full")
