"""S3 and Secrets Manager through real boto3, against moto in process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from modelstacks.adapters.s3 import S3ObjectStore
from modelstacks.adapters.secrets import SecretsManager
from modelstacks.core.errors import EnvironmentFault
from modelstacks.core.ports import ObjectVersion


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        yield


@pytest.fixture
def bucket(aws: None) -> Any:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    return s3


def test_the_current_version_of_each_object_is_listed_by_key(bucket: Any) -> None:
    old = bucket.put_object(Bucket="models", Key="churn/model.json", Body=b"old")["VersionId"]
    new = bucket.put_object(Bucket="models", Key="churn/model.json", Body=b"newer")["VersionId"]
    label = bucket.put_object(Bucket="models", Key="churn/a.txt", Body=b"x")["VersionId"]
    bucket.put_object(Bucket="models", Key="churn/gone", Body=b"x")
    bucket.delete_object(Bucket="models", Key="churn/gone")
    bucket.put_object(Bucket="models", Key="other/model.json", Body=b"x")
    found = S3ObjectStore().list("models", "churn/")
    assert old != new
    assert found == [ObjectVersion("churn/a.txt", label, 1), ObjectVersion("churn/model.json", new, 5)]


def test_a_bucket_without_versions_says_so(bucket: Any) -> None:
    bucket.create_bucket(Bucket="plain", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    bucket.put_object(Bucket="plain", Key="model.json", Body=b"x")
    assert S3ObjectStore().list("plain", "") == [ObjectVersion("model.json", None, 1)]


def test_the_version_asked_for_is_fetched(bucket: Any, tmp_path: Path) -> None:
    old = bucket.put_object(Bucket="models", Key="model.json", Body=b"old")["VersionId"]
    bucket.put_object(Bucket="models", Key="model.json", Body=b"new")
    S3ObjectStore().download("models", ObjectVersion("model.json", old, 3), tmp_path / "model.json")
    assert (tmp_path / "model.json").read_bytes() == b"old"


def test_a_bucket_that_is_not_there_is_one_clear_message(aws: None) -> None:
    with pytest.raises(EnvironmentFault, match=r"^s3://absent/churn/ cannot be listed: NoSuchBucket: "):
        S3ObjectStore().list("absent", "churn/")


def test_an_object_that_is_gone_is_one_clear_message(bucket: Any, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"^s3://models/model.json cannot be fetched: 404: "):
        S3ObjectStore().download("models", ObjectVersion("model.json", None, 3), tmp_path / "model.json")


def test_without_credentials_the_fix_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_ENDPOINT_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    boto3.DEFAULT_SESSION = None
    with pytest.raises(
        EnvironmentFault, match="no AWS credentials were found; fix: aws configure, or aws sso login"
    ):
        S3ObjectStore().list("models", "")


def test_a_secret_is_read_by_its_name(aws: None) -> None:
    boto3.client("secretsmanager").create_secret(Name="hub-token", SecretString="hf_secret")
    assert SecretsManager().get("hub-token") == "hf_secret"


def test_a_secret_of_bytes_is_refused(aws: None) -> None:
    boto3.client("secretsmanager").create_secret(Name="hub-token", SecretBinary=b"hf_secret")
    with pytest.raises(EnvironmentFault, match="the secret hub-token contains bytes, not text"):
        SecretsManager().get("hub-token")


def test_a_secret_that_is_not_there_is_one_clear_message(aws: None) -> None:
    with pytest.raises(
        EnvironmentFault, match="the secret hub-token cannot be read: ResourceNotFoundException"
    ):
        SecretsManager().get("hub-token")
