"""KMS: made by CloudFormation, read back by boto3, changed, deleted."""

from __future__ import annotations

import copy
import json
from typing import Any

from support.control_plane import Account


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


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
