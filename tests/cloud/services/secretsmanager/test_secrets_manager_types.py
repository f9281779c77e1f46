"""Secrets Manager: made by CloudFormation, read back by boto3, changed, deleted."""

from __future__ import annotations

import copy
import json

from support.control_plane import Account


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
