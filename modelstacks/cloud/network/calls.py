"""An AWS API call on its way: which action on which resource it is, and whether it may pass.

`describe` reads the call off the HTTP request as the service would; `may_call` walks the way that it has to
go: network isolation, route, security groups, endpoint policy, identity and resource policies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from modelstacks.cloud.network import Refused, policies, routes
from modelstacks.cloud.services.ec2.snapshot import Ec2Snapshot, NetworkInterface
from modelstacks.cloud.services.iam.snapshot import IamSnapshot, Policy
from modelstacks.cloud.services.kms.snapshot import KmsSnapshot
from modelstacks.cloud.services.s3.snapshot import S3Snapshot
from modelstacks.cloud.snapshot import Account

__all__ = ["ApiCall", "Caller", "decrypt_call", "describe", "image_pull", "may_call"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls AWS from inside: where it is plugged in, and the role that it has.

    `network` is None outside a VPC. `isolated` is SageMaker's network isolation: nothing passes.
    """

    what: str  # "service churn"
    role_arn: str
    network: NetworkInterface | None = None
    public_address: bool = False
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One call. `network_service` is the name in endpoint services, `service` the one in signatures."""

    service: str
    network_service: str
    action: str  # "s3:GetObject"; "" for calls that need no permission
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


# Signing name -> the name in com.amazonaws.REGION.NAME, and the prefix of its IAM actions, where they differ.
NETWORK_NAMES = {"ecr": "ecr.api", "sagemaker": "sagemaker.api", "cognito-idp": "cognito-idp"}
ACTION_PREFIXES = {"monitoring": "cloudwatch", "tagging": "tag"}
UNCHECKED = frozenset({"sts:GetCallerIdentity", "sts:GetSessionToken"})


def describe(
    service: str,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    account: Account,
) -> ApiCall | None:
    """What a request asks for; None where the embedded cloud cannot tell. Header names in lower case."""
    if service == "s3":
        return _s3(method, path, query)
    arn = f"arn:aws:sagemaker:{account.region}:{account.id}"
    endpoint = re.fullmatch(
        r"/endpoints/([^/]+)/(async-invocations|invocations|invocations-response-stream)", path
    )
    if service == "sagemaker" and endpoint:
        operation = "InvokeEndpointAsync" if endpoint[2].startswith("async") else "InvokeEndpoint"
        name = unquote(endpoint[1]).lower()
        return ApiCall(
            service,
            "sagemaker.runtime",
            f"sagemaker:{operation}",
            f"{arn}:endpoint/{name}",
        )
    operation, fields = _operation(path, headers, body)
    if not operation:
        return None
    action = f"{ACTION_PREFIXES.get(service, service)}:{operation}"
    return ApiCall(
        service,
        NETWORK_NAMES.get(service, service),
        "" if action in UNCHECKED else action,
        _resource(service, fields, account),
    )


def _operation(path: str, headers: Mapping[str, str], body: bytes) -> tuple[str, Mapping[str, Any]]:
    """The operation's name and its input, in the JSON, query and RPC protocols."""
    target = headers.get("x-amz-target", "")
    if target:
        try:
            fields = json.loads(body or b"{}")
        except ValueError:
            fields = {}
        return target.rpartition(".")[2], fields if isinstance(fields, dict) else {}
    if "x-www-form-urlencoded" in headers.get("content-type", ""):
        form = {key: values[0] for key, values in parse_qs(body.decode("utf-8", "replace")).items()}
        return form.get("Action", ""), form
    rpc = re.fullmatch(r"/service/[^/]+/operation/([^/]+)", path)
    return (rpc[1], {}) if rpc else ("", {})


def _resource(service: str, fields: Mapping[str, Any], account: Account) -> str:
    prefix = f"arn:aws:{service}:{account.region}:{account.id}"
    match service:
        case "secretsmanager":
            name = str(fields.get("SecretId", ""))
            # Secrets Manager adds six characters to a secret's name, which a policy writes as ??????.
            return name if name.startswith("arn:") else f"{prefix}:secret:{name}-??????"
        case "ssm":
            name = str(fields.get("Name", "") or (fields.get("Names") or [""])[0])
            return name if name.startswith("arn:") else f"{prefix}:parameter/{name.lstrip('/')}"
        case "kms":
            key = str(fields.get("KeyId", ""))
            known = (one.arn for one in account[KmsSnapshot].keys.values() if key in (one.id, one.arn))
            return next(known, f"{prefix}:key/{key}")
        case "logs":
            group, stream = fields.get("logGroupName"), fields.get("logStreamName")
            return f"{prefix}:log-group:{group}:log-stream:{stream or ''}" if group else "*"
        case "ecr":
            repository = fields.get("repositoryName")
            return f"{prefix}:repository/{repository}" if repository else "*"
        case "sts":
            return str(fields.get("RoleArn") or "*")
        case _:
            return "*"


SUBRESOURCES = {"tagging": "Tagging", "acl": "Acl", "attributes": "Attributes"}


def _s3(method: str, path: str, query: str) -> ApiCall | None:
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    options = parse_qs(query, keep_blank_values=True)
    if not bucket:
        return ApiCall("s3", "s3", "s3:ListAllMyBuckets", "*") if method == "GET" else None
    version = "Version" if "versionId" in options else ""
    sub = next((name for option, name in SUBRESOURCES.items() if option in options), "")
    if key:
        verb = {"GET": "Get", "HEAD": "Get", "PUT": "Put", "POST": "Put", "DELETE": "Delete"}.get(method)
        if verb is None:
            return None
        action = f"s3:{verb}Object{version if verb != 'Put' else ''}{sub}"
        if method == "DELETE" and "uploadId" in options:
            action = "s3:AbortMultipartUpload"
        return ApiCall("s3", "s3", action, f"arn:aws:s3:::{bucket}/{key}", _version_context(options))
    actions = {
        "location": "s3:GetBucketLocation",
        "versions": "s3:ListBucketVersions",
        "uploads": "s3:ListBucketMultipartUploads",
        "policy": "s3:GetBucketPolicy",
        "versioning": "s3:GetBucketVersioning",
        "encryption": "s3:GetEncryptionConfiguration",
    }
    if method in ("GET", "HEAD"):
        action = next((name for option, name in actions.items() if option in options), "s3:ListBucket")
        prefix = options.get("prefix")
        context = {"s3:prefix": prefix[0]} if prefix else {}
        return ApiCall("s3", "s3", action, f"arn:aws:s3:::{bucket}", context)
    if method == "POST" and "delete" in options:
        return ApiCall("s3", "s3", "s3:DeleteObject", f"arn:aws:s3:::{bucket}/*")
    return None


def _version_context(options: Mapping[str, list[str]]) -> dict[str, str]:
    return {"s3:VersionId": options["versionId"][0]} if "versionId" in options else {}


ECR_IMAGE = re.compile(r"(\d{12})\.dkr\.ecr\.([\w-]+)\.amazonaws\.com(?:\.cn)?/([^:@]+)")


def image_pull(image: str, network_service: str) -> list[ApiCall]:
    """The calls that pulling an image from a private ECR repository takes; none for another registry."""
    found = ECR_IMAGE.match(image)
    if not found:
        return []
    account, region, repository = found.groups()
    arn = f"arn:aws:ecr:{region}:{account}:repository/{repository}"
    return [
        ApiCall("ecr", network_service, "ecr:GetAuthorizationToken", "*"),
        ApiCall("ecr", network_service, "ecr:BatchGetImage", arn),
        ApiCall("ecr", network_service, "ecr:GetDownloadUrlForLayer", arn),
    ]


def decrypt_call(account: Account, key: str) -> ApiCall:
    """What S3 asks KMS on a reader's behalf for an object encrypted with `key` (an id or ARN)."""
    region = account.region
    arn = key if key.startswith("arn:") else f"arn:aws:kms:{region}:{account.id}:key/{key}"
    context = {"kms:ViaService": f"s3.{region}.amazonaws.com", "kms:CallerAccount": account.id}
    return ApiCall("kms", "s3", "kms:Decrypt", arn, context)


def may_call(account: Account, caller: Caller, call: ApiCall) -> Refused | None:
    """Whether a call passes every hop between the caller and the service."""
    hop = f"{caller.what} -> {call.network_service}"
    if caller.isolated:
        why = f"{caller.what} has network isolation enabled, so nothing leaves its container"
        return Refused(hop, why, "network")
    path = routes.reach(account, caller.network, call.network_service, public_address=caller.public_address)
    if isinstance(path, Refused):
        return path
    if not call.action:
        return None
    role = account[IamSnapshot].roles.get(caller.role_arn)
    if role is None:
        return Refused(hop, f"{caller.what} has no role, so it has no credentials for {call.action}")
    context: dict[str, str] = {
        **call.context,
        "aws:SecureTransport": "true",  # what stands here for the service's endpoint is TLS in AWS
        "aws:PrincipalArn": role.arn,
        "aws:PrincipalAccount": account.id,
        "aws:ResourceAccount": account.id,
        "aws:RequestedRegion": account.region,
        "aws:PrincipalType": "AssumedRole",
        "aws:PrincipalIsAWSService": "false",
        "aws:ViaAWSService": "false",
    }
    if call.service == "s3":
        context["s3:ResourceAccount"] = account.id
    endpoint: Policy | None = None
    if path.endpoint is not None:
        context |= {"aws:SourceVpce": path.endpoint.id, "aws:SourceVpc": path.endpoint.vpc_id}
        endpoint = path.endpoint.policy
        if caller.network is not None and (addresses := account[Ec2Snapshot].addresses_of(caller.network)):
            context["aws:VpcSourceIp"] = addresses[0]
    refused = policies.authorize(
        role,
        policies.Call(call.action, call.resource, context),
        account=account.id,
        endpoint=endpoint,
        resource=_resource_policy(account, call),
    )
    return Refused(hop, refused.reason) if refused else None


def _resource_policy(account: Account, call: ApiCall) -> Policy | None:
    if call.service == "s3":
        bucket = account[S3Snapshot].buckets.get(
            call.resource.removeprefix("arn:aws:s3:::").partition("/")[0]
        )
        return bucket.policy if bucket else None
    if call.service == "kms":
        key = account[KmsSnapshot].keys.get(call.resource)
        return key.policy if key else None
    return None
