"""AWS::KMS: keys and their aliases."""

from __future__ import annotations

import json
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

_DAYS_TO_LIVE_ON = 30  # CloudFormation's default for a deleted key
_GONE = ("NotFoundException", "KMSInvalidStateException")


@provides("AWS::KMS::Key")
class Key(ResourceType):
    """A key. Deleted means disabled and scheduled for deletion, as AWS has it. Ref is its id."""

    immutable: ClassVar = frozenset({"KeySpec", "KeyUsage", "MultiRegion", "Origin"})
    _apart: ClassVar = (
        "EnableKeyRotation",
        "Enabled",
        "KeyPolicy",
        "PendingWindowInDays",
        "RotationPeriodInDays",
        "Tags",
    )

    def create(self, request: Request) -> Provisioned:
        policy = self._policy(request.properties)
        tags = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in tag_list(request.properties)]
        given = {**({"Policy": policy} if policy else {}), **({"Tags": tags} if tags else {})}
        key = request.call("kms", "CreateKey", request.without(*self._apart), **given)["KeyMetadata"]
        self._switch(request, key["KeyId"])
        return Provisioned(key["KeyId"], {"Arn": key["Arn"], "KeyId": key["KeyId"]})

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        kms, key_id, after = request.client("kms"), current.physical_id, request.properties
        if policy := self._policy(after):
            kms.put_key_policy(KeyId=key_id, PolicyName="default", Policy=policy)
        if after.get("Description") != before.get("Description"):
            kms.update_key_description(KeyId=key_id, Description=after.get("Description", ""))
        self._switch(request, key_id)
        if tag_list(after) != tag_list(before):
            kms.untag_resource(KeyId=key_id, TagKeys=[tag["Key"] for tag in tag_list(before)])
            tags = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in tag_list(after)]
            kms.tag_resource(KeyId=key_id, Tags=tags)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        days = int(request.properties.get("PendingWindowInDays", _DAYS_TO_LIVE_ON))
        with ignoring(*_GONE):
            request.client("kms").schedule_key_deletion(KeyId=current.physical_id, PendingWindowInDays=days)

    @staticmethod
    def _policy(properties: Properties) -> str | None:
        policy = properties.get("KeyPolicy")
        return policy if policy is None or isinstance(policy, str) else json.dumps(policy)

    @staticmethod
    def _switch(request: Request, key_id: str) -> None:
        kms, properties = request.client("kms"), request.properties
        rotates = properties.get("EnableKeyRotation") in (True, "true")
        if "EnableKeyRotation" in properties:
            days: dict[str, Any] = {}
            if rotates and "RotationPeriodInDays" in properties:
                days = {"RotationPeriodInDays": int(properties["RotationPeriodInDays"])}
            (kms.enable_key_rotation if rotates else kms.disable_key_rotation)(KeyId=key_id, **days)
        if "Enabled" in properties:
            enabled = properties["Enabled"] in (True, "true")
            (kms.enable_key if enabled else kms.disable_key)(KeyId=key_id)


@provides("AWS::KMS::Alias")
class Alias(ResourceType):
    """A name of a key."""

    immutable: ClassVar = frozenset({"AliasName"})

    def create(self, request: Request) -> Provisioned:
        request.call("kms", "CreateAlias", request.only("AliasName", "TargetKeyId"))
        return Provisioned(str(request.properties["AliasName"]))

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        request.call("kms", "UpdateAlias", request.only("AliasName", "TargetKeyId"))
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring(*_GONE):
            request.client("kms").delete_alias(AliasName=current.physical_id)
