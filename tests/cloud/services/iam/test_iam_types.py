"""IAM: made by CloudFormation, read back by boto3, changed, deleted."""

from __future__ import annotations

import copy
from typing import Any

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
