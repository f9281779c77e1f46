"""AWS::IAM: roles and policies, inline and managed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceType,
    ignoring,
    provides,
    tag_list,
)

_LONGEST_NAME = 64
_GONE = ("NoSuchEntity", "NoSuchEntityException")


def _text(document: Any) -> str:
    return document if isinstance(document, str) else json.dumps(document)


@provides("AWS::IAM::Role")
class Role(ResourceType):
    """A role with its inline and attached policies. Ref is its name."""

    immutable: ClassVar = frozenset({"RoleName", "Path"})

    def create(self, request: Request) -> Provisioned:
        properties = request.properties
        name = str(properties.get("RoleName") or request.generated_name(_LONGEST_NAME))
        given = request.without("RoleName", "Policies", "ManagedPolicyArns")
        role = request.call("iam", "CreateRole", given, RoleName=name)["Role"]
        self._allow(request, name, {})
        return Provisioned(name, {"Arn": role["Arn"], "RoleId": role["RoleId"]})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        iam, name, after = request.client("iam"), current.physical_id, request.properties
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=_text(after["AssumeRolePolicyDocument"]))
        seconds = int(after.get("MaxSessionDuration", 3600))
        iam.update_role(RoleName=name, Description=after.get("Description", ""), MaxSessionDuration=seconds)
        if after.get("PermissionsBoundary"):
            iam.put_role_permissions_boundary(RoleName=name, PermissionsBoundary=after["PermissionsBoundary"])
        elif before.get("PermissionsBoundary"):
            iam.delete_role_permissions_boundary(RoleName=name)
        self._allow(request, name, before)
        if tag_list(after) != tag_list(before):
            iam.untag_role(RoleName=name, TagKeys=[tag["Key"] for tag in tag_list(before)])
            iam.tag_role(RoleName=name, Tags=tag_list(after))
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        iam, name = request.client("iam"), current.physical_id
        with ignoring(*_GONE):
            for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
                iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
            for policy_name in iam.list_role_policies(RoleName=name)["PolicyNames"]:
                iam.delete_role_policy(RoleName=name, PolicyName=policy_name)
            iam.delete_role(RoleName=name)

    @staticmethod
    def _allow(request: Request, name: str, before: Properties) -> None:
        """Make inline and attached policies what the request says; what other resources put there stays."""
        iam, after = request.client("iam"), request.properties
        old, new = before.get("ManagedPolicyArns", []), after.get("ManagedPolicyArns", [])
        for arn in old:
            if arn not in new:
                iam.detach_role_policy(RoleName=name, PolicyArn=arn)
        for arn in new:
            iam.attach_role_policy(RoleName=name, PolicyArn=arn)
        inline = {policy["PolicyName"]: policy["PolicyDocument"] for policy in after.get("Policies", [])}
        for policy in before.get("Policies", []):
            if policy["PolicyName"] not in inline:
                iam.delete_role_policy(RoleName=name, PolicyName=policy["PolicyName"])
        for policy_name, document in inline.items():
            iam.put_role_policy(RoleName=name, PolicyName=policy_name, PolicyDocument=_text(document))


#: property -> what the API calls one of them
_PRINCIPALS = (("Roles", "role"), ("Users", "user"), ("Groups", "group"))


def _principals(properties: Properties) -> Iterator[tuple[str, str]]:
    """("role", its name) and so on, for everyone whom a policy names."""
    for key, kind in _PRINCIPALS:
        for name in properties.get(key, []):
            yield kind, name


@provides("AWS::IAM::Policy")
class Policy(ResourceType):
    """An inline policy put into roles, users and groups. Ref is its name."""

    immutable: ClassVar = frozenset({"PolicyName"})

    def create(self, request: Request) -> Provisioned:
        name = str(request.properties["PolicyName"])
        document = _text(request.properties["PolicyDocument"])
        for kind, principal in _principals(request.properties):
            put = getattr(request.client("iam"), f"put_{kind}_policy")
            put(**{f"{kind.title()}Name": principal}, PolicyName=name, PolicyDocument=document)
        return Provisioned(name, {"Id": name})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        for kind, principal in set(_principals(before)) - set(_principals(request.properties)):
            self._remove(request, kind, principal, current.physical_id)
        return self.create(request)

    def delete(self, request: Request, current: Provisioned) -> None:
        for kind, principal in _principals(request.properties):
            self._remove(request, kind, principal, current.physical_id)

    @staticmethod
    def _remove(request: Request, kind: str, principal: str, name: str) -> None:
        with ignoring(*_GONE):
            delete = getattr(request.client("iam"), f"delete_{kind}_policy")
            delete(**{f"{kind.title()}Name": principal}, PolicyName=name)


@provides("AWS::IAM::ManagedPolicy")
class ManagedPolicy(ResourceType):
    """A customer-managed policy. Ref is its ARN."""

    immutable: ClassVar = frozenset({"ManagedPolicyName", "Path", "Description"})

    def create(self, request: Request) -> Provisioned:
        iam, properties = request.client("iam"), request.properties
        name = str(properties.get("ManagedPolicyName") or request.generated_name(128))
        document = _text(properties["PolicyDocument"])
        made = iam.create_policy(
            PolicyName=name, PolicyDocument=document, **request.only("Description", "Path")
        )
        arn = made["Policy"]["Arn"]
        for kind, principal in _principals(properties):
            getattr(iam, f"attach_{kind}_policy")(**{f"{kind.title()}Name": principal}, PolicyArn=arn)
        return Provisioned(arn, {"PolicyArn": arn, "PolicyId": made["Policy"]["PolicyId"]})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        iam, arn = request.client("iam"), current.physical_id
        for version in iam.list_policy_versions(PolicyArn=arn)["Versions"]:
            if not version["IsDefaultVersion"]:  # there may be five at most
                iam.delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])
        document = _text(request.properties["PolicyDocument"])
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=document, SetAsDefault=True)
        old, new = set(_principals(before)), set(_principals(request.properties))
        for verb, changed in (("detach", old - new), ("attach", new - old)):
            for kind, principal in changed:
                getattr(iam, f"{verb}_{kind}_policy")(**{f"{kind.title()}Name": principal}, PolicyArn=arn)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        iam, arn = request.client("iam"), current.physical_id
        with ignoring(*_GONE):
            for kind, principal in _principals(request.properties):
                getattr(iam, f"detach_{kind}_policy")(**{f"{kind.title()}Name": principal}, PolicyArn=arn)
            for version in iam.list_policy_versions(PolicyArn=arn)["Versions"]:
                if not version["IsDefaultVersion"]:
                    iam.delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])
            iam.delete_policy(PolicyArn=arn)
