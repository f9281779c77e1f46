"""CloudWatch Logs: a log group's key, which must let the service use it and can be changed."""

from __future__ import annotations

from typing import Any

from moto.kms.models import kms_backends
from moto.logs.exceptions import LogsClientError, ResourceNotFoundException
from moto.logs.responses import LogsResponse

from modelstacks.cloud.account.additions import Additions
from modelstacks.cloud.account.patching import beforehand
from modelstacks.cloud.services.iam.permissions import denied_to_service

#: What the user guide ("Encrypt log data in CloudWatch Logs using KMS") has a key's policy allow.
_ACTIONS = ("kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:GenerateDataKey", "kms:DescribeKey")


def _install() -> None:
    """Change moto's Logs."""

    @beforehand(LogsResponse, "create_log_group")
    def check_key(self: Any) -> None:
        _check_key(self, self._get_param("logGroupName"))

    LogsResponse.associate_kms_key = _associate
    LogsResponse.disassociate_kms_key = _disassociate


def _associate(self: Any) -> str:
    """AssociateKmsKey, which moto does not have."""
    group = _group(self)
    _check_key(self, group.name)
    group.kms_key_id = self._get_param("kmsKeyId")
    return ""


def _disassociate(self: Any) -> str:
    """DisassociateKmsKey, which moto does not have."""
    _group(self).kms_key_id = None
    return ""


def _group(response: Any) -> Any:
    name = response._get_param("logGroupName")
    try:
        return response.logs_backend.groups[name]
    except KeyError:
        raise ResourceNotFoundException from None


def _check_key(response: Any, group: str) -> None:
    """Raise what CreateLogGroup and AssociateKmsKey raise for a key that the service may not use."""
    key_id = response._get_param("kmsKeyId")
    if not key_id:
        return
    account, region = response.current_account, response.region
    arn = f"arn:aws:logs:{region}:{account}:log-group:{group}"
    keys = kms_backends[account][region]
    found = keys.keys.get(keys.any_id_to_key_id(key_id))
    denied = "the key does not exist"
    if found is not None:
        context = {
            "kms:EncryptionContext:aws:logs:arn": arn,
            "aws:SourceArn": arn,
            "aws:SourceAccount": account,
            "aws:SecureTransport": "true",
        }
        service = f"logs.{region}.amazonaws.com"
        actions = denied_to_service(found.policy, service, _ACTIONS, found.arn, context)
        denied = f"its policy does not let {service} use {', '.join(actions)}" if actions else ""
    if denied:
        raise LogsClientError(
            "AccessDeniedException",
            f"The specified KMS key does not exist or is not allowed to be used with Arn '{arn}' ({denied})",
        )


ADDITIONS = Additions(install=_install)
