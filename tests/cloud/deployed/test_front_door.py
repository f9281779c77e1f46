"""The account's endpoint tells a wrong caller so in the words of the service, and does nothing for them."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

ROLE = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": "*", "Service": "ecs-tasks.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)
CURL = shutil.which("curl")


def client(cloud: Any, service: str, **options: Any) -> Any:
    keys = cloud.credentials
    chosen = {
        "endpoint_url": cloud.endpoint_url,
        "region_name": "us-east-1",
        "aws_access_key_id": keys.access_key_id,
        "aws_secret_access_key": keys.secret_access_key,
        "config": Config(retries={"total_max_attempts": 1}),
        **options,
    }
    return boto3.client(service, **chosen)


def error(caught: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


CALLS = {
    "cloudformation": lambda c: c.list_stacks(),
    "s3": lambda c: c.put_object(Bucket="artifacts", Key="k", Body=b"x"),
    "ec2": lambda c: c.describe_vpcs(),
    "ecs": lambda c: c.list_clusters(),
    "lambda": lambda c: c.list_functions(),
    "cloudwatch": lambda c: c.list_dashboards(),
    "sagemaker-runtime": lambda c: c.invoke_endpoint(EndpointName="managed", Body=b"{}"),
}


class TestBoto3:
    @pytest.mark.parametrize(
        ("service", "code", "status"),
        [
            ("cloudformation", "SignatureDoesNotMatch", 403),
            ("s3", "SignatureDoesNotMatch", 403),
            ("ec2", "SignatureDoesNotMatch", 403),
            ("ecs", "InvalidSignatureException", 400),
            ("lambda", "InvalidSignatureException", 403),
            ("cloudwatch", "InvalidSignatureException", 400),
            ("sagemaker-runtime", "InvalidSignatureException", 403),
        ],
    )
    def test_with_a_wrong_secret(self, cloud: Any, service: str, code: str, status: int) -> None:
        with pytest.raises(ClientError, match="signature we calculated does not match") as caught:
            CALLS[service](client(cloud, service, aws_secret_access_key="wrong"))
        assert error(caught) == (code, status)

    @pytest.mark.parametrize(
        ("service", "code", "status"),
        [
            ("cloudformation", "InvalidClientTokenId", 403),
            ("s3", "InvalidAccessKeyId", 403),
            ("ec2", "AuthFailure", 401),
            ("ecs", "UnrecognizedClientException", 400),
            ("lambda", "UnrecognizedClientException", 403),
        ],
    )
    def test_with_a_key_that_nobody_knows(self, cloud: Any, service: str, code: str, status: int) -> None:
        with pytest.raises(ClientError) as caught:
            CALLS[service](client(cloud, service, aws_access_key_id="AKIAUNKNOWN"))
        assert error(caught) == (code, status)

    @pytest.mark.parametrize(
        ("service", "code"),
        [("cloudformation", "SignatureDoesNotMatch"), ("ecs", "InvalidSignatureException")],
    )
    def test_signing_for_another_region(self, cloud: Any, service: str, code: str) -> None:
        with pytest.raises(ClientError, match="got 'eu-west-1', expecting 'us-east-1'") as caught:
            CALLS[service](client(cloud, service, region_name="eu-west-1"))
        assert error(caught)[0] == code

    def test_uploads_and_downloads_whatever_its_checksums_and_signatures_are(self, cloud: Any) -> None:
        for checksum in ("when_required", "when_supported"):
            config = Config(request_checksum_calculation=checksum, s3={"addressing_style": "path"})
            s3 = client(cloud, "s3", config=config)
            s3.put_object(Bucket="artifacts", Key="a b/ü+", Body=b"x" * 3_000_000)
            assert s3.get_object(Bucket="artifacts", Key="a b/ü+")["Body"].read() == b"x" * 3_000_000

    def test_hands_out_addresses_that_anyone_can_use_until_they_end(self, cloud: Any) -> None:
        s3 = client(cloud, "s3", config=Config(signature_version="s3v4", s3={"addressing_style": "path"}))
        s3.put_object(Bucket="artifacts", Key="given", Body=b"here you are")
        address = s3.generate_presigned_url("get_object", {"Bucket": "artifacts", "Key": "given"}, 60)
        with httpx.Client(trust_env=False) as web:
            assert web.get(address).content == b"here you are"
            refused = web.get(address.replace("given", "other"))
        assert (refused.status_code, "SignatureDoesNotMatch" in refused.text) == (403, True)


class TestCredentialsOfTheAccount:
    def test_a_role_is_assumed_and_its_session_signs(self, cloud: Any) -> None:
        made = cloud.client("iam").create_role(RoleName="assumed", AssumeRolePolicyDocument=ROLE)["Role"]
        given = cloud.client("sts").assume_role(RoleArn=made["Arn"], RoleSessionName="session")["Credentials"]
        keys = {"aws_access_key_id": given["AccessKeyId"], "aws_secret_access_key": given["SecretAccessKey"]}
        sts = client(cloud, "sts", **keys, aws_session_token=given["SessionToken"])
        assert sts.get_caller_identity()["Arn"].endswith("assumed-role/assumed/session")
        for token in (None, "another"):
            with pytest.raises(ClientError) as caught:
                client(cloud, "sts", **keys, aws_session_token=token).get_caller_identity()
            assert error(caught) == ("InvalidClientTokenId", 403)

    def test_a_users_key_signs_until_it_is_withdrawn(self, cloud: Any) -> None:
        iam = cloud.client("iam")
        iam.create_user(UserName="somebody")
        made = iam.create_access_key(UserName="somebody")["AccessKey"]
        keys = {"aws_access_key_id": made["AccessKeyId"], "aws_secret_access_key": made["SecretAccessKey"]}
        client(cloud, "cloudformation", **keys).list_stacks()
        iam.update_access_key(UserName="somebody", AccessKeyId=made["AccessKeyId"], Status="Inactive")
        with pytest.raises(ClientError, match="InvalidClientTokenId"):
            client(cloud, "cloudformation", **keys).list_stacks()

    def test_the_example_keys_of_get_session_token_open_nothing(self, cloud: Any) -> None:
        given = cloud.client("sts").get_session_token()["Credentials"]
        with pytest.raises(ClientError, match="InvalidClientTokenId"):
            client(
                cloud,
                "cloudformation",
                aws_access_key_id=given["AccessKeyId"],
                aws_secret_access_key=given["SecretAccessKey"],
                aws_session_token=given["SessionToken"],
            ).list_stacks()

    def test_a_workloads_keys_can_do_what_its_role_may(self, cloud: Any) -> None:
        iam = cloud.client("iam")
        made = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=ROLE)["Role"]
        allowed = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::artifacts/models/*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_role_policy(RoleName="reader", PolicyName="read", PolicyDocument=policy)
        cloud.settle()
        issued = cloud.run(cloud.plane.context.identities.issue(made["Arn"], "task"))
        keys = {
            "aws_access_key_id": issued.access_key_id,
            "aws_secret_access_key": issued.secret_access_key,
            "aws_session_token": issued.session_token,
        }
        s3 = client(cloud, "s3", **keys)
        assert s3.get_object(Bucket="artifacts", Key="models/model")["Body"].read() == b"weights"
        with pytest.raises(ClientError, match="s3:PutObject"):
            s3.put_object(Bucket="artifacts", Key="models/model", Body=b"mine")
        with pytest.raises(ClientError, match="AccessDenied"):
            client(cloud, "cloudformation", **keys).create_stack(StackName="mine", TemplateBody="{}")


@pytest.mark.skipif(CURL is None, reason="no curl on the PATH")
class TestCurl:
    def curl(self, cloud: Any, *words: str) -> str:
        assert CURL is not None
        command = [CURL, "--silent", "--show-error", "--noproxy", "*", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    def signed(self, cloud: Any, secret: str, *words: str) -> str:
        keys = f"{cloud.credentials.access_key_id}:{secret}"
        return self.curl(cloud, "--aws-sigv4", "aws:amz:us-east-1:cloudformation", "--user", keys, *words)

    def test_signs(self, cloud: Any) -> None:
        call = ["--data", "Action=ListStacks&Version=2010-05-15", f"{cloud.endpoint_url}/"]
        secret = cloud.credentials.secret_access_key
        assert "<ListStacksResponse" in self.signed(cloud, secret, *call)

    def test_with_a_wrong_secret_or_without_one_is_told_so(self, cloud: Any) -> None:
        call = ["--data", "Action=ListStacks&Version=2010-05-15", f"{cloud.endpoint_url}/"]
        assert "<Code>SignatureDoesNotMatch</Code>" in self.signed(cloud, "wrong", *call)
        assert "<Code>MissingAuthenticationToken</Code>" in self.curl(cloud, *call)
        assert "<Code>AccessDenied</Code>" in self.curl(cloud, f"{cloud.endpoint_url}/artifacts/models/model")


def test_a_buckets_cors_rules_are_for_browsers_and_reach_none(cloud: Any) -> None:
    s3 = cloud.client("s3")
    rule = {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"], "AllowedHeaders": ["*"]}
    s3.put_bucket_cors(Bucket="artifacts", CORSConfiguration={"CORSRules": [rule]})
    found = s3.get_object(Bucket="artifacts", Key="models/model")
    s3.delete_bucket_cors(Bucket="artifacts")
    sent = found["ResponseMetadata"]["HTTPHeaders"]
    assert not [name for name in sent if name.startswith("access-control-")]
