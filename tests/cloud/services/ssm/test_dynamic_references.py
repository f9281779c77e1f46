"""A template takes values from Systems Manager and Secrets Manager; a reference without a value fails it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.control_plane import Account


@pytest.fixture(autouse=True)
def values(account: Account) -> Iterator[None]:
    account.client("ssm").put_parameter(Name="/group", Value="/from-ssm", Type="String")
    secrets = account.client("secretsmanager")
    secrets.create_secret(Name="object", SecretString=json.dumps({"group": "/from-object"}))
    secrets.create_secret(Name="text", SecretString="/from-text")
    yield
    account.client("ssm").delete_parameter(Name="/group")
    for name in ("object", "text"):
        secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


def group(reference: str) -> dict[str, Any]:
    name = "{{resolve:" + reference + "}}"
    return {"Group": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": name}}}


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("ssm:/group", "/from-ssm"),
        ("ssm-secure:/group", "/from-ssm"),
        ("secretsmanager:text", "/from-text"),
        ("secretsmanager:object:SecretString:group", "/from-object"),
    ],
)
def test_a_reference_is_replaced_by_its_value(account: Account, reference: str, value: str) -> None:
    assert account.create("refers", group(reference))["Group"] == value


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("ssm:/none", "Unable to fetch parameters [/none] from parameter store for this account."),
        ("secretsmanager:text:SecretString:group", "Could not parse SecretString JSON"),
        ("secretsmanager:object:SecretString:other", "JSON"),
        (
            "vault:secret",
            "Dynamic references to vault are not supported; allowed: secretsmanager, ssm, ssm-se",
        ),
    ],
)
def test_a_reference_without_a_value_fails_the_resource(
    account: Account, reference: str, reason: str
) -> None:
    assert reason in account.refuse("refers", group(reference))["Group"]
