"""AWS::EC2: security groups and their rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from modelstacks.cloud.cloudformation.resource import (
    Properties,
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
    ignoring,
    provides,
    tag_list,
)
from modelstacks.cloud.services.ec2.types._tags import tags_of

_GONE = ("InvalidGroup.NotFound", "InvalidPermission.NotFound", "InvalidSecurityGroupRuleId.NotFound")


def _permission(rule: Mapping[str, Any]) -> dict[str, Any]:
    """A rule of a template as the API's IpPermission."""
    permission: dict[str, Any] = {"IpProtocol": str(rule["IpProtocol"])}
    for port in ("FromPort", "ToPort"):
        if port in rule:
            permission[port] = int(rule[port])
    described = {"Description": rule["Description"]} if rule.get("Description") else {}
    group = rule.get("SourceSecurityGroupId") or rule.get("DestinationSecurityGroupId")
    prefix_list = rule.get("SourcePrefixListId") or rule.get("DestinationPrefixListId")
    if rule.get("CidrIp"):
        permission["IpRanges"] = [{"CidrIp": rule["CidrIp"], **described}]
    elif rule.get("CidrIpv6"):
        permission["Ipv6Ranges"] = [{"CidrIpv6": rule["CidrIpv6"], **described}]
    elif group:
        permission["UserIdGroupPairs"] = [{"GroupId": group, **described}]
    elif prefix_list:
        permission["PrefixListIds"] = [{"PrefixListId": prefix_list, **described}]
    else:
        raise ResourceError(
            "a security group rule needs one of CidrIp, CidrIpv6, a security group or a prefix list"
        )
    return permission


@provides("AWS::EC2::SecurityGroup")
class SecurityGroup(ResourceType):
    """A security group, with the rules that its properties state.

    A stated egress rule replaces the default one, which allows everything.
    """

    immutable: ClassVar = frozenset({"GroupName", "GroupDescription", "VpcId"})

    def create(self, request: Request) -> Provisioned:
        ec2 = request.client("ec2")
        properties = request.properties
        group_id = ec2.create_security_group(
            GroupName=properties.get("GroupName") or request.generated_name(),
            Description=properties["GroupDescription"],
            TagSpecifications=tags_of(request, "security-group"),
            **request.only("VpcId"),
        )["GroupId"]
        if properties.get("SecurityGroupEgress"):
            default = ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"][0][
                "IpPermissionsEgress"
            ]
            if default:
                ec2.revoke_security_group_egress(GroupId=group_id, IpPermissions=default)
        self._allow(
            ec2,
            group_id,
            properties.get("SecurityGroupIngress", []),
            properties.get("SecurityGroupEgress", []),
        )
        return Provisioned(
            group_id, {"GroupId": group_id, "Id": group_id, "VpcId": properties.get("VpcId", "")}
        )

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        ec2, group_id, after = request.client("ec2"), current.physical_id, request.properties
        if bool(before.get("SecurityGroupEgress")) != bool(after.get("SecurityGroupEgress")):
            return None  # whether the default egress rule is there is settled when the group is made
        for key, revoke in (
            ("Ingress", ec2.revoke_security_group_ingress),
            ("Egress", ec2.revoke_security_group_egress),
        ):
            for rule in _less(before.get(f"SecurityGroup{key}", []), after.get(f"SecurityGroup{key}", [])):
                with ignoring(*_GONE):
                    revoke(GroupId=group_id, IpPermissions=[_permission(rule)])
        self._allow(
            ec2,
            group_id,
            _less(after.get("SecurityGroupIngress", []), before.get("SecurityGroupIngress", [])),
            _less(after.get("SecurityGroupEgress", []), before.get("SecurityGroupEgress", [])),
        )
        if tag_list(after) != tag_list(before):
            ec2.delete_tags(Resources=[group_id], Tags=tag_list(before))
            ec2.create_tags(Resources=[group_id], Tags=tag_list(after))
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client("ec2").delete_security_group(GroupId=current.physical_id)

    @staticmethod
    def _allow(
        ec2: Any, group_id: str, ingress: Iterable[Mapping[str, Any]], egress: Iterable[Mapping[str, Any]]
    ) -> None:
        for rule in ingress:
            ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=[_permission(rule)])
        for rule in egress:
            ec2.authorize_security_group_egress(GroupId=group_id, IpPermissions=[_permission(rule)])


def _less(rules: list[Any], others: list[Any]) -> list[Any]:
    return [rule for rule in rules if rule not in others]


class _Rule(ResourceType):
    """One rule of a group, as a resource of its own. Any change but of its description makes a new one."""

    direction: ClassVar[str]

    def create(self, request: Request) -> Provisioned:
        authorize = getattr(request.client("ec2"), f"authorize_security_group_{self.direction}")
        answer = authorize(GroupId=self._group(request), IpPermissions=[_permission(request.properties)])
        made = answer.get("SecurityGroupRules") or [{"SecurityGroupRuleId": request.generated_name()}]
        return Provisioned(made[0]["SecurityGroupRuleId"], {"Id": made[0]["SecurityGroupRuleId"]})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        if {**before, "Description": None} != {**request.properties, "Description": None}:
            return None
        # The rule is replaced: moto's call that changes a description does not find rules between groups.
        group, ec2 = self._group(request), request.client("ec2")
        getattr(ec2, f"revoke_security_group_{self.direction}")(
            GroupId=group, IpPermissions=[_permission(before)]
        )
        self.create(request)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        revoke = getattr(request.client("ec2"), f"revoke_security_group_{self.direction}")
        with ignoring(*_GONE):
            revoke(GroupId=self._group(request), IpPermissions=[_permission(request.properties)])

    @staticmethod
    def _group(request: Request) -> str:
        if "GroupId" not in request.properties:
            raise ResourceError(
                "a security group rule needs GroupId; GroupName belongs to EC2-Classic, which is gone"
            )
        return str(request.properties["GroupId"])


@provides("AWS::EC2::SecurityGroupIngress")
class SecurityGroupIngress(_Rule):
    """What may come in."""

    direction = "ingress"


@provides("AWS::EC2::SecurityGroupEgress")
class SecurityGroupEgress(_Rule):
    """What may go out."""

    direction = "egress"
