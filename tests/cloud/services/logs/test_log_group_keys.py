"""A log group takes only a key whose policy lets CloudWatch Logs use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.control_plane import Account
from support.templates import code


def key(*statements: Mapping[str, Any]) -> dict[str, Any]:
    root = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
    root["Principal"] = {"AWS": {"Fn::Sub": "arn:aws:iam::${AWS::AccountId}:root"}}
    policy = {"Version": "2012-10-17", "Statement": [root, *statements]}
    return {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": policy}}


def logs_may(*actions: str, group: str = "log-group:*") -> dict[str, Any]:
    arn = {"Fn::Sub": "arn:aws:logs:${AWS::Region}:${AWS::AccountId}:" + group}
    return {
        "Effect": "Allow",
        "Principal": {"Service": {"Fn::Sub": "logs.${AWS::Region}.amazonaws.com"}},
        "Action": list(actions),
        "Resource": "*",
        "Condition": {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": arn}},
    }


USES = ("kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*")


ENCRYPTED = {"Type": "AWS::Logs::LogGroup", "Properties": {"KmsKeyId": {"Fn::GetAtt": ["Key", "Arn"]}}}


def test_a_log_group_is_encrypted_with_a_key_whose_policy_lets_the_service_use_it(account: Account) -> None:
    account.create("encrypted", {"Key": key(logs_may(*USES)), "Group": ENCRYPTED})


@pytest.mark.parametrize(
    ("statements", "missing"),
    [
        ([], "kms:Encrypt, kms:Decrypt"),
        (
            [logs_may("kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:Describe*")],
            "kms:GenerateDataKey",
        ),
        ([logs_may(*USES, group="log-group:/another")], "kms:Encrypt"),
    ],
    ids=["no statement", "an action short", "another group's"],
)
def test_a_log_group_is_refused_a_key_whose_policy_lacks_the_service(
    account: Account, statements: list[dict[str, Any]], missing: str
) -> None:
    reason = account.refuse("unencrypted", {"Key": key(*statements), "Group": ENCRYPTED})["Group"]
    assert reason.startswith("The specified KMS key does not exist or is not allowed to be used with Arn ")
    assert "does not let logs.eu-west-1.amazonaws.com use " in reason
    assert missing in reason
    assert "AccessDeniedException" in reason


def test_a_log_group_is_not_given_such_a_key_later_either(account: Account) -> None:
    plain = {"Key": key(), "Group": {"Type": "AWS::Logs::LogGroup"}}
    ids = account.create("later", plain)
    assert (
        "is not allowed to be used" in account.refuse_update("later", plain | {"Group": ENCRYPTED})["Group"]
    )
    logs = account.client("logs")
    with pytest.raises(ClientError, match="is not allowed to be used with Arn") as error:
        logs.associate_kms_key(logGroupName=ids["Group"], kmsKeyId="no-such-key")
    assert code(error) == "AccessDeniedException"
    allowed = {"Key": key(logs_may(*USES)), "Group": ENCRYPTED}
    account.update("later", allowed)
    (found,) = logs.describe_log_groups(logGroupNamePrefix=ids["Group"])["logGroups"]
    assert found["kmsKeyId"].endswith(ids["Key"])
    account.update("later", plain)
    (found,) = logs.describe_log_groups(logGroupNamePrefix=ids["Group"])["logGroups"]
    assert "kmsKeyId" not in found
