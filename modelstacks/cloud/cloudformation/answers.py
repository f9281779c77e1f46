"""What moto's CloudFormation responses lack: three actions, and what a failed operation has to do."""

from __future__ import annotations

import threading
from functools import wraps
from typing import Any

from moto.cloudformation import responses
from moto.core.responses import ActionResult, EmptyResult

from modelstacks.cloud.cloudformation.scope import Resource
from modelstacks.cloud.cloudformation.stack import Stack

__all__ = ["install", "on_failure"]


def install() -> None:
    """Change moto's responses."""
    responses.StackResourceDTO = _ResourceAnswer
    responses.CloudFormationResponse.describe_change_set = _describe_change_set
    responses.CloudFormationResponse.delete_change_set = _delete_change_set
    responses.CloudFormationResponse.cancel_update_stack = _cancel_update_stack
    for action in ("create_stack", "update_stack", "execute_change_set"):
        _remember_what_a_failure_does(action)


def _describe_change_set(self: Any) -> ActionResult:
    backend = self.cloudformation_backend
    return ActionResult(
        backend.describe_change_set(self._get_param("ChangeSetName"), self._get_param("StackName"))
    )


def _delete_change_set(self: Any) -> EmptyResult:
    self.cloudformation_backend.delete_change_set(
        self._get_param("ChangeSetName"), self._get_param("StackName")
    )
    return EmptyResult()


def _cancel_update_stack(self: Any) -> EmptyResult:
    self.cloudformation_backend.cancel_update_stack(self._get_param("StackName"))
    return EmptyResult()


_request = threading.local()


def _remember_what_a_failure_does(action: str) -> None:
    """moto drops DisableRollback and OnFailure before it calls its backend."""
    original = getattr(responses.CloudFormationResponse, action)

    @wraps(original)
    def extended(self: Any) -> Any:
        kept = self._get_bool_param("DisableRollback", if_none=False)
        _request.on_failure = "DO_NOTHING" if kept else self._get_param("OnFailure") or "ROLLBACK"
        return original(self)

    setattr(responses.CloudFormationResponse, action, extended)


def on_failure() -> str:
    """Whether a failed operation is rolled back, as asked by the request that this thread answers.

    ROLLBACK, DELETE or DO_NOTHING.
    """
    chosen, _request.on_failure = getattr(_request, "on_failure", "ROLLBACK"), "ROLLBACK"
    return chosen


class _ResourceAnswer:
    """One resource, with the attributes that DescribeStackResources answers with."""

    def __init__(self, stack: Stack, resource: Resource) -> None:
        self.stack_id, self.stack_name = stack.stack_id, stack.name
        self.logical_resource_id, self.physical_resource_id = (
            resource.logical_resource_id,
            resource.physical_resource_id,
        )
        self.resource_type, self.resource_status = resource.cf_resource_type, resource.status
        self.timestamp = self.last_updated_timestamp = stack.last_updated_time or stack.creation_time
