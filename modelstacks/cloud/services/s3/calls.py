"""S3's calls: REST, by method, path and query."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs, unquote

from modelstacks.cloud.host.wire import Request, Response
from modelstacks.cloud.network.calls import ApiCall, ServiceCalls
from modelstacks.cloud.services.iam.snapshot import Policy
from modelstacks.cloud.services.kms.calls import decrypt_call
from modelstacks.cloud.services.s3.snapshot import S3Snapshot
from modelstacks.cloud.snapshot import Account

__all__ = ["CALLS"]

SUBRESOURCES = {"tagging": "Tagging", "acl": "Acl", "attributes": "Attributes"}


def _read(request: Request, account: Account) -> ApiCall | None:
    del account
    method = request.method
    bucket, _, key = unquote(request.path).lstrip("/").partition("/")
    options = parse_qs(request.query, keep_blank_values=True)
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


def _policy(account: Account, resource: str) -> Policy | None:
    bucket = account[S3Snapshot].buckets.get(resource.removeprefix("arn:aws:s3:::").partition("/")[0])
    return bucket.policy if bucket else None


def _decrypting(call: ApiCall, answer: Response, account: Account) -> ApiCall | None:
    """S3 has KMS decrypt an object in the reader's name."""
    key = answer.header("x-amz-server-side-encryption-aws-kms-key-id")
    if call.action in ("s3:GetObject", "s3:GetObjectVersion") and key and answer.status < 300:
        return decrypt_call(account, key)
    return None


CALLS = ServiceCalls(
    "s3", account_key="s3:ResourceAccount", read=_read, policy=_policy, on_behalf=_decrypting
)
