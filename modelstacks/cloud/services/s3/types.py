"""AWS::S3: buckets and their policies."""

from __future__ import annotations

import json
from collections.abc import Mapping
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

_LONGEST_NAME = 63


def _lifecycle(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """CloudFormation's rules as the API's, which groups differently."""
    rules = []
    for given in configuration.get("Rules", []):
        rule: dict[str, Any] = {"Status": given["Status"], "Filter": {"Prefix": given.get("Prefix", "")}}
        if "Id" in given:
            rule["ID"] = given["Id"]
        expiration = {
            name: given[key]
            for key, name in (
                ("ExpirationInDays", "Days"),
                ("ExpirationDate", "Date"),
                ("ExpiredObjectDeleteMarker", "ExpiredObjectDeleteMarker"),
            )
            if key in given
        }
        if expiration:
            rule["Expiration"] = expiration
        if "NoncurrentVersionExpirationInDays" in given:
            rule["NoncurrentVersionExpiration"] = {
                "NoncurrentDays": given["NoncurrentVersionExpirationInDays"]
            }
        if "NoncurrentVersionExpiration" in given:
            rule["NoncurrentVersionExpiration"] = given["NoncurrentVersionExpiration"]
        if "AbortIncompleteMultipartUpload" in given:
            rule["AbortIncompleteMultipartUpload"] = given["AbortIncompleteMultipartUpload"]
        if "Transitions" in given:
            rule["Transitions"] = [
                {"StorageClass": one["StorageClass"], "Days": one["TransitionInDays"]}
                for one in given["Transitions"]
            ]
        rules.append(rule)
    return {"Rules": rules}


def _encryption(configuration: Mapping[str, Any]) -> dict[str, Any]:
    rules = []
    for given in configuration["ServerSideEncryptionConfiguration"]:
        rule = {"BucketKeyEnabled": given["BucketKeyEnabled"]} if "BucketKeyEnabled" in given else {}
        default = given.get("ServerSideEncryptionByDefault")
        rules.append({**rule, **({"ApplyServerSideEncryptionByDefault": default} if default else {})})
    return {"Rules": rules}


#: property -> (operation, the operation's member, how the property becomes it)
_SETTINGS: Mapping[str, tuple[str, str, Any]] = {
    "BucketEncryption": ("PutBucketEncryption", "ServerSideEncryptionConfiguration", _encryption),
    "CorsConfiguration": (
        "PutBucketCors",
        "CORSConfiguration",
        lambda value: {"CORSRules": value["CorsRules"]},
    ),
    "LifecycleConfiguration": ("PutBucketLifecycleConfiguration", "LifecycleConfiguration", _lifecycle),
    "OwnershipControls": ("PutBucketOwnershipControls", "OwnershipControls", dict),
    "PublicAccessBlockConfiguration": ("PutPublicAccessBlock", "PublicAccessBlockConfiguration", dict),
    "VersioningConfiguration": ("PutBucketVersioning", "VersioningConfiguration", dict),
}
_MADE_WITH = ("BucketName", "ObjectLockEnabled", "AccessControl", "Tags")
#: Accepted without effect: nothing here writes these.
_WITHOUT_EFFECT = (
    "LoggingConfiguration",
    "NotificationConfiguration",
    "ObjectLockConfiguration",
    "MetricsConfigurations",
)


@provides("AWS::S3::Bucket")
class Bucket(ResourceType):
    """A bucket; as in AWS, one that holds objects cannot be deleted. Ref is its name."""

    immutable: ClassVar = frozenset({"BucketName", "ObjectLockEnabled"})

    def create(self, request: Request) -> Provisioned:
        s3 = request.client("s3")
        name = str(request.properties.get("BucketName") or request.generated_name(_LONGEST_NAME, lower=True))
        elsewhere = request.region != "us-east-1"
        place = {"CreateBucketConfiguration": {"LocationConstraint": request.region}} if elsewhere else {}
        s3.create_bucket(Bucket=name, **place)
        self._settle(request, name)
        domain = f"{name}.s3.amazonaws.com"
        return Provisioned(
            name,
            {
                "Arn": f"arn:aws:s3:::{name}",
                "DomainName": domain,
                "WebsiteURL": f"http://{name}.s3-website.amazonaws.com",
                "RegionalDomainName": f"{name}.s3.{request.region}.amazonaws.com",
                "DualStackDomainName": domain,
            },
        )

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        s3, name = request.client("s3"), current.physical_id
        for key, forget in (
            ("BucketEncryption", s3.delete_bucket_encryption),
            ("CorsConfiguration", s3.delete_bucket_cors),
            ("LifecycleConfiguration", s3.delete_bucket_lifecycle),
            ("PublicAccessBlockConfiguration", s3.delete_public_access_block),
            ("Tags", s3.delete_bucket_tagging),
        ):
            if key in before and key not in request.properties:
                forget(Bucket=name)
        self._settle(request, name)
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("NoSuchBucket"):
            request.client("s3").delete_bucket(Bucket=current.physical_id)

    @staticmethod
    def _settle(request: Request, name: str) -> None:
        for key, value in request.properties.items():
            if key in _SETTINGS:
                operation, member, convert = _SETTINGS[key]
                request.call("s3", operation, {member: convert(value)}, Bucket=name)
            elif key not in (*_MADE_WITH, *_WITHOUT_EFFECT):
                raise ResourceError(f"the bucket property {key} is not emulated")
        if tags := tag_list(request.properties):
            request.client("s3").put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})


@provides("AWS::S3::BucketPolicy")
class BucketPolicy(ResourceType):
    """A bucket's policy."""

    immutable: ClassVar = frozenset({"Bucket"})

    def create(self, request: Request) -> Provisioned:
        bucket, policy = str(request.properties["Bucket"]), request.properties["PolicyDocument"]
        text = policy if isinstance(policy, str) else json.dumps(policy)
        request.client("s3").put_bucket_policy(Bucket=bucket, Policy=text)
        return Provisioned(bucket)

    def update(self, request: Request, current: Provisioned, before: Properties) -> Provisioned | None:
        return self.create(request)

    def delete(self, request: Request, current: Provisioned) -> None:
        with ignoring("NoSuchBucket", "NoSuchBucketPolicy"):
            request.client("s3").delete_bucket_policy(Bucket=current.physical_id)
