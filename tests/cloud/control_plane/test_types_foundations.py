"""IAM, KMS, logs, S3, secrets, alarms, topics: made by CloudFormation, read back, changed, deleted."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.control_plane import Account, role


def allow(action: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": "*"}


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def test_roles_and_policies(account: Account) -> None:
    resources = {
        "Role": role("lambda.amazonaws.com", allow("s3:GetObject")),
        "Extra": {
            "Type": "AWS::IAM::Policy",
            "Properties": {
                "PolicyName": "extra",
                "Roles": [{"Ref": "Role"}],
                "PolicyDocument": document(allow("kms:Decrypt")),
            },
        },
        "Shared": {
            "Type": "AWS::IAM::ManagedPolicy",
            "Properties": {
                "Roles": [{"Ref": "Role"}],
                "PolicyDocument": document(allow("logs:PutLogEvents")),
            },
        },
    }
    ids = account.create("roles", resources)
    iam = account.client("iam")

    def inline() -> dict[str, Any]:
        names = iam.list_role_policies(RoleName=ids["Role"])["PolicyNames"]
        found = {
            one: iam.get_role_policy(RoleName=ids["Role"], PolicyName=one)["PolicyDocument"] for one in names
        }
        return {one: text["Statement"][0]["Action"] for one, text in found.items()}

    assert inline() == {"inline": "s3:GetObject", "extra": "kms:Decrypt"}
    attached = iam.list_attached_role_policies(RoleName=ids["Role"])["AttachedPolicies"]
    assert [policy["PolicyArn"] for policy in attached] == [ids["Shared"]]

    other = copy.deepcopy(resources)
    other["Role"]["Properties"]["Policies"][0]["PolicyDocument"] = document(allow("s3:ListBucket"))
    other["Role"]["Properties"]["Description"] = "described"
    other["Extra"]["Properties"]["PolicyDocument"] = document(allow("kms:Encrypt"))
    other["Shared"]["Properties"]["PolicyDocument"] = document(allow("logs:CreateLogStream"))
    assert account.update("roles", other) == ids
    assert inline() == {"inline": "s3:ListBucket", "extra": "kms:Encrypt"}
    version = iam.get_policy(PolicyArn=ids["Shared"])["Policy"]["DefaultVersionId"]
    text = iam.get_policy_version(PolicyArn=ids["Shared"], VersionId=version)["PolicyVersion"]["Document"]
    assert text["Statement"][0]["Action"] == "logs:CreateLogStream"
    assert iam.get_role(RoleName=ids["Role"])["Role"]["Description"] == "described"

    del other["Extra"]
    account.update("roles", other)
    assert inline() == {"inline": "s3:ListBucket"}
    account.delete("roles")
    assert ids["Role"] not in {one["RoleName"] for one in iam.list_roles()["Roles"]}


def test_a_key_rotates_and_is_scheduled_for_deletion(account: Account) -> None:
    policy = document({"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"})
    key = {
        "Type": "AWS::KMS::Key",
        "Properties": {
            "Description": "first",
            "EnableKeyRotation": True,
            "KeyPolicy": policy,
            "PendingWindowInDays": 7,
            "Tags": [{"Key": "team", "Value": "ml"}],
        },
    }
    alias = {"Type": "AWS::KMS::Alias", "Properties": {"AliasName": "alias/k", "TargetKeyId": {"Ref": "Key"}}}
    ids = account.create("key", {"Key": key, "Alias": alias})
    kms = account.client("kms")
    assert kms.get_key_rotation_status(KeyId=ids["Key"])["KeyRotationEnabled"] is True
    assert json.loads(kms.get_key_policy(KeyId=ids["Key"], PolicyName="default")["Policy"]) == policy
    assert kms.describe_key(KeyId="alias/k")["KeyMetadata"]["KeyId"] == ids["Key"]

    other = copy.deepcopy(key)
    other["Properties"] |= {
        "Description": "second",
        "EnableKeyRotation": False,
        "Tags": [{"Key": "team", "Value": "web"}],
    }
    assert account.update("key", {"Key": other, "Alias": alias}) == ids
    assert kms.describe_key(KeyId=ids["Key"])["KeyMetadata"]["Description"] == "second"
    assert kms.get_key_rotation_status(KeyId=ids["Key"])["KeyRotationEnabled"] is False
    assert kms.list_resource_tags(KeyId=ids["Key"])["Tags"] == [{"TagKey": "team", "TagValue": "web"}]
    account.delete("key")
    assert kms.describe_key(KeyId=ids["Key"])["KeyMetadata"]["KeyState"] == "PendingDeletion"


def test_a_log_group_keeps_its_lines_for_so_long(account: Account) -> None:
    group: dict[str, Any] = {
        "Type": "AWS::Logs::LogGroup",
        "Properties": {"LogGroupName": "/kept", "RetentionInDays": 30},
    }
    metric = {"MetricName": "errors", "MetricNamespace": "n", "MetricValue": "1"}
    counted = {
        "Type": "AWS::Logs::MetricFilter",
        "Properties": {
            "LogGroupName": {"Ref": "Group"},
            "FilterPattern": "error",
            "MetricTransformations": [metric],
        },
    }
    account.create("logs", {"Group": group, "Counted": counted})
    logs = account.client("logs")

    def found() -> Any:
        return logs.describe_log_groups(logGroupNamePrefix="/kept")["logGroups"][0]

    assert found()["retentionInDays"] == 30
    assert logs.describe_metric_filters(logGroupName="/kept")["metricFilters"][0]["filterPattern"] == "error"
    del group["Properties"]["RetentionInDays"]
    account.update("logs", {"Group": group, "Counted": counted})
    assert "retentionInDays" not in found()
    account.delete("logs")
    assert logs.describe_log_groups(logGroupNamePrefix="/kept")["logGroups"] == []


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


def test_a_secret_is_generated_once(account: Account) -> None:
    generated = {
        "SecretStringTemplate": '{"user": "me"}',
        "GenerateStringKey": "password",
        "PasswordLength": 24,
    }
    resources = {
        "Secret": {"Type": "AWS::SecretsManager::Secret", "Properties": {"GenerateSecretString": generated}},
        "Copy": {
            "Type": "AWS::SSM::Parameter",
            "Properties": {
                "Name": "/copy",
                "Type": "String",
                "Value": {"Fn::Sub": "{{resolve:secretsmanager:${Secret}:SecretString:user}}"},
            },
        },
    }
    ids = account.create("secret", resources)
    secrets = account.client("secretsmanager")
    value = secrets.get_secret_value(SecretId=ids["Secret"])["SecretString"]
    assert json.loads(value)["user"] == "me"
    assert len(json.loads(value)["password"]) == 24
    assert account.client("ssm").get_parameter(Name="/copy")["Parameter"]["Value"] == "me"

    other = copy.deepcopy(resources)
    other["Secret"]["Properties"]["Description"] = "described"
    account.update("secret", other)
    assert secrets.describe_secret(SecretId=ids["Secret"])["Description"] == "described"
    assert secrets.get_secret_value(SecretId=ids["Secret"])["SecretString"] == value
    account.delete("secret")
    assert secrets.list_secrets()["SecretList"] == []


def test_an_alarm_tells_a_topic(account: Account) -> None:
    resources = {
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "alarms"}},
        "MayPublish": {
            "Type": "AWS::SNS::TopicPolicy",
            "Properties": {"Topics": [{"Ref": "Topic"}], "PolicyDocument": document(allow("sns:Publish"))},
        },
        "Alarm": {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "Namespace": "AWS/ApplicationELB",
                "MetricName": "HTTPCode_ELB_5XX_Count",
                "Statistic": "Sum",
                "Period": 60,
                "EvaluationPeriods": 2,
                "Threshold": 1,
                "ComparisonOperator": "GreaterThanOrEqualToThreshold",
                "AlarmActions": [{"Ref": "Topic"}],
                "TreatMissingData": "notBreaching",
                "Dimensions": [{"Name": "LoadBalancer", "Value": "app/a/1"}],
            },
        },
    }
    ids = account.create("alarm", resources)
    cloudwatch = account.client("cloudwatch")

    def alarm() -> Any:
        return cloudwatch.describe_alarms(AlarmNames=[ids["Alarm"]])["MetricAlarms"][0]

    assert (alarm()["Threshold"], alarm()["AlarmActions"]) == (1, [ids["Topic"]])
    assert alarm()["Dimensions"] == [{"Name": "LoadBalancer", "Value": "app/a/1"}]
    attributes = account.client("sns").get_topic_attributes(TopicArn=ids["Topic"])["Attributes"]
    assert "sns:Publish" in attributes["Policy"].replace("SNS:", "sns:")
    other = copy.deepcopy(resources)
    other["Alarm"]["Properties"]["Threshold"] = 5
    assert account.update("alarm", other) == ids
    assert alarm()["Threshold"] == 5
    account.delete("alarm")
    assert cloudwatch.describe_alarms()["MetricAlarms"] == []
