"""The caller's AWS account, read through boto3 from moto."""

from __future__ import annotations

import json
from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from modelstacks.adapters.aws_account import AwsAccount
from modelstacks.core.errors import EnvironmentFault

REGION = "eu-west-1"
TEMPLATE = {
    "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
    "Outputs": {"ApiUrl": {"Value": "https://example.com/live"}},
}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsAccount]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        boto3.client("cloudformation", REGION).create_stack(
            StackName="churn-managed", TemplateBody=json.dumps(TEMPLATE)
        )
        yield AwsAccount(REGION)


def test_the_stacks_that_exist_are_found(account: AwsAccount) -> None:
    assert account.stacks(["churn-managed", "churn-self-hosted"]) == ["churn-managed"]


def test_the_outputs_of_a_stack(account: AwsAccount) -> None:
    assert account.outputs("churn-managed") == {"ApiUrl": "https://example.com/live"}
    assert account.outputs("churn-self-hosted") is None


def test_what_a_stack_will_leave_has_its_physical_names(account: AwsAccount) -> None:
    resources = {"Logs": {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain"}}
    cloudformation = boto3.client("cloudformation", REGION)
    cloudformation.create_stack(
        StackName="churn-self-hosted", TemplateBody=json.dumps({"Resources": resources})
    )
    cloudformation.get_waiter("stack_create_complete").wait(
        StackName="churn-self-hosted", WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    (bucket,) = boto3.client("s3", REGION).list_buckets()["Buckets"]
    (left,) = account.leftovers("churn-self-hosted")
    assert left.what == f"bucket {bucket['Name']}"
    assert account.leftovers("nobody") == []


def test_the_value_of_an_api_key(account: AwsAccount) -> None:
    made = boto3.client("apigateway", REGION).create_api_key(
        name="k", value="a-key-of-twenty-characters", enabled=True
    )
    assert account.api_key(made["id"]) == "a-key-of-twenty-characters"


def test_a_key_that_is_not_there_is_an_error_of_the_environment(account: AwsAccount) -> None:
    with pytest.raises(EnvironmentFault, match="AWS refused apigateway get_api_key: NotFoundException"):
        account.api_key("missing")


def test_an_account_without_a_region_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(EnvironmentFault, match=r"AWS cannot be asked .*region"):
        AwsAccount().stacks(["churn-managed"])


def test_whether_the_account_is_bootstrapped(account: AwsAccount) -> None:
    assert account.bootstrap_version() is None
    boto3.client("ssm", REGION).put_parameter(
        Name="/cdk-bootstrap/hnb659fds/version", Value="28", Type="String"
    )
    assert account.bootstrap_version() == 28


def test_whether_a_role_exists(account: AwsAccount) -> None:
    assert account.has_role("AWSServiceRoleForECS") is False
    boto3.client("iam").create_role(RoleName="AWSServiceRoleForECS", AssumeRolePolicyDocument="{}")
    assert account.has_role("AWSServiceRoleForECS") is True
