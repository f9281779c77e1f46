"""IAM as it is read back: roles and their policies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.snapshot import Snapshot

__all__ = ["IamSnapshot", "Policy", "Role", "policy_of"]


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy document and the name under which a refusal mentions it."""

    name: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Role:
    name: str
    arn: str
    trust: Policy
    policies: tuple[Policy, ...]  # inline and attached
    boundary: Policy | None = None


@dataclass(frozen=True)
class IamSnapshot(Snapshot):
    """The roles of the account, by ARN."""

    roles: Mapping[str, Role] = field(default_factory=dict)

    @classmethod
    def read(cls, clients: Clients) -> IamSnapshot:
        """Read every role with its policies."""
        return cls(_roles(clients))


def policy_of(name: str, document: object) -> Policy | None:
    """A policy document as any service returns it; None where there is none."""
    if not document:
        return None
    if isinstance(document, str):
        text = document if document.lstrip().startswith("{") else unquote(document)
        document = json.loads(text)
    return Policy(name, document) if isinstance(document, Mapping) else None


def _roles(clients: Clients) -> dict[str, Role]:
    # The filter leaves out the thousand policies that AWS manages; those that are attached are added.
    details: dict[str, list[dict[str, Any]]] = {"RoleDetailList": [], "Policies": []}
    paginator = clients.client("iam").get_paginator("get_account_authorization_details")
    for page in paginator.paginate(Filter=["Role", "LocalManagedPolicy"]):
        for key, items in details.items():
            items.extend(page.get(key, []))
    managed = {
        policy["Arn"]: next(
            (version["Document"] for version in policy["PolicyVersionList"] if version["IsDefaultVersion"]),
            None,
        )
        for policy in details["Policies"]
    }
    for arn in {
        attached["PolicyArn"]
        for role in details["RoleDetailList"]
        for attached in role["AttachedManagedPolicies"]
    } - managed.keys():
        managed[arn] = _managed_document(clients, arn)
    return {role["Arn"]: _role(role, managed) for role in details["RoleDetailList"]}


def _managed_document(clients: Clients, arn: str) -> object:
    iam = clients.client("iam")
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    return iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]


def _role(role: Mapping[str, Any], managed: Mapping[str, object]) -> Role:
    inline = [
        policy_of(f"policy {item['PolicyName']} of role {role['RoleName']}", item["PolicyDocument"])
        for item in role.get("RolePolicyList", [])
    ]
    attached = [
        policy_of(f"policy {item['PolicyName']} of role {role['RoleName']}", managed.get(item["PolicyArn"]))
        for item in role.get("AttachedManagedPolicies", [])
    ]
    boundary_arn = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn", "")
    return Role(
        name=role["RoleName"],
        arn=role["Arn"],
        trust=policy_of(f"the trust policy of role {role['RoleName']}", role["AssumeRolePolicyDocument"])
        or Policy("no trust policy", {}),
        policies=tuple(policy for policy in (*inline, *attached) if policy),
        boundary=policy_of(f"the permissions boundary of role {role['RoleName']}", managed.get(boundary_arn)),
    )
