"""Which action on which resource a request is, and the whole way that it has to go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelstacks.cloud.host.wire import Request
from modelstacks.cloud.network.calls import ApiCall, Caller, describe, may_call
from modelstacks.cloud.services.ecr.calls import image_pull
from modelstacks.cloud.services.iam.snapshot import IamSnapshot, Policy, Role
from modelstacks.cloud.services.kms.snapshot import Key, KmsSnapshot
from modelstacks.cloud.services.s3.snapshot import Bucket, S3Snapshot
from modelstacks.cloud.snapshot import Account

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/Task"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/k-1"
TARGET = {"x-amz-target": "secretsmanager.GetSecretValue"}
FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}


@pytest.mark.parametrize(
    ("service", "request_line", "headers", "body", "action", "resource"),
    [
        ("s3", "GET /b/a%20key", {}, b"", "s3:GetObject", "arn:aws:s3:::b/a key"),
        ("s3", "GET /b/k?versionId=v1", {}, b"", "s3:GetObjectVersion", "arn:aws:s3:::b/k"),
        ("s3", "HEAD /b/k", {}, b"", "s3:GetObject", "arn:aws:s3:::b/k"),
        ("s3", "PUT /b/k?partNumber=1&uploadId=u", {}, b"", "s3:PutObject", "arn:aws:s3:::b/k"),
        ("s3", "DELETE /b/k?uploadId=u", {}, b"", "s3:AbortMultipartUpload", "arn:aws:s3:::b/k"),
        ("s3", "GET /b?list-type=2&prefix=p", {}, b"", "s3:ListBucket", "arn:aws:s3:::b"),
        ("s3", "GET /b?location", {}, b"", "s3:GetBucketLocation", "arn:aws:s3:::b"),
        ("s3", "GET /", {}, b"", "s3:ListAllMyBuckets", "*"),
        (
            "sagemaker",
            "POST /endpoints/Churn/invocations",
            {},
            b"",
            "sagemaker:InvokeEndpoint",
            f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/churn",
        ),
        (
            "secretsmanager",
            "POST /",
            TARGET,
            b'{"SecretId": "token"}',
            "secretsmanager:GetSecretValue",
            f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:token-??????",
        ),
        ("kms", "POST /", {"x-amz-target": "TrentService.Decrypt"}, b'{"KeyId": "k-1"}', "kms:Decrypt", KEY),
        ("sts", "POST /", FORM, b"Action=GetCallerIdentity", "", "*"),
        ("monitoring", "POST /", FORM, b"Action=PutMetricData", "cloudwatch:PutMetricData", "*"),
    ],
)
def test_a_request_is_read_as_the_service_would(
    service: str, request_line: str, headers: dict[str, str], body: bytes, action: str, resource: str
) -> None:
    method, _, target = request_line.partition(" ")
    path, _, query = target.partition("?")
    account = Account(KmsSnapshot({KEY: Key("k-1", KEY, None)}))
    request = Request(method, path, query, list(headers.items()), body)
    call = describe(service, request, account)
    assert call is not None
    assert (call.action, call.resource) == (action, resource)


@pytest.mark.parametrize(
    ("service", "method", "path"), [("s3", "PATCH", "/b/k"), ("appsync", "POST", "/graphql")]
)
def test_what_it_cannot_read_it_says_it_cannot(service: str, method: str, path: str) -> None:
    assert describe(service, Request(method, path), Account()) is None


def world(*actions: str, bucket: Policy | None = None) -> Account:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    policy = Policy("policy model of role Task", {"Statement": [statement]})
    return Account(
        IamSnapshot({ROLE: Role("Task", ROLE, Policy("trust", {}), (policy,))}),
        S3Snapshot({"b": Bucket(bucket)}),
    )


READ = ApiCall("s3", "s3", "s3:GetObject", "arn:aws:s3:::b/k")
OUTSIDE = Caller("task", ROLE)


def test_a_permitted_call_passes() -> None:
    assert may_call(world("s3:GetObject"), OUTSIDE, READ) is None


def test_a_bucket_policy_that_wants_the_vpc_endpoint_denies_those_outside() -> None:
    condition = {"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*", "Condition": condition}
    refused = may_call(
        world("s3:*", bucket=Policy("the policy of bucket b", {"Statement": [deny]})), OUTSIDE, READ
    )
    assert refused is not None
    assert "with an explicit deny in the policy of bucket b" in refused.reason


def test_network_isolation_stops_everything() -> None:
    refused = may_call(world("*"), replace(OUTSIDE, isolated=True), READ)
    assert refused is not None
    assert refused.reason == "task has network isolation enabled, so nothing leaves its container"


def test_no_role_is_no_credentials() -> None:
    refused = may_call(world("*"), Caller("task", ""), READ)
    assert refused is not None
    assert refused.reason == "task has no role, so it has no credentials for s3:GetObject"


def test_an_image_from_a_private_repository_takes_three_permissions_and_a_public_one_none() -> None:
    private = image_pull(f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/models:1", "ecr.api")
    assert [call.action for call in private] == [
        "ecr:GetAuthorizationToken",
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
    ]
    assert private[1].resource == f"arn:aws:ecr:eu-west-1:{ACCOUNT}:repository/models"
    assert image_pull("public.ecr.aws/docker/library/python:3.13", "ecr.api") == []
