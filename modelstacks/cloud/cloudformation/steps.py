"""One step of a stack operation: it fails with a reason in the events, or takes time until it is stable."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from botocore.exceptions import BotoCoreError, ClientError

from modelstacks.cloud.cloudformation.resource import ResourceError
from modelstacks.cloud.cloudformation.schedule import Pace
from modelstacks.cloud.cloudformation.scope import Resource
from modelstacks.cloud.cloudformation.template import TemplateError

__all__ = ["Pending", "Recorder", "ResourceFailedError", "Restoring", "failing"]

logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """Receives the progress of resources."""

    def __call__(
        self, logical_id: str, physical_id: str, type_name: str, status: str, reason: str | None = None
    ) -> None:
        """One resource has entered `status`: CREATE_IN_PROGRESS, CREATE_FAILED ..."""


class ResourceFailedError(Exception):
    """Ends a stack operation; the reason is already in the events."""

    def __init__(self, logical_id: str) -> None:
        self.logical_id = logical_id
        super().__init__(logical_id)


@contextmanager
def failing(
    record: Recorder, logical_id: str, type_name: str, verb: str, physical_id: str = ""
) -> Iterator[None]:
    """Record any error of one step as the reason of a failed resource. Raises ResourceFailedError then.

    A resource type may raise anything; it fails this resource and nothing else.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        if not isinstance(error, (ResourceError, TemplateError, ClientError, BotoCoreError)):
            logger.exception("%s of %s (%s)", verb.lower(), logical_id, type_name)
        record(logical_id, physical_id, type_name, f"{verb}_FAILED", reason)
        raise ResourceFailedError(logical_id) from error


@dataclass(slots=True)
class Pending:
    """A resource that was created or updated and is not stable yet."""

    record: Recorder
    pace: Pace
    resource: Resource
    verb: str
    deadline: float

    def stable(self) -> bool:
        """Whether the resource is stable now. Raises ResourceFailedError where it never will be."""
        resource = self.resource
        names = resource.logical_resource_id, resource.cf_resource_type
        try:
            with failing(self.record, *names, self.verb, resource.physical_resource_id):
                found = resource.type.stabilised(resource.request, resource.provisioned)
                if found is None and self.pace.now() > self.deadline:
                    where = resource.physical_resource_id
                    raise ResourceError(f"Resource timed out waiting for completion (Resource ARN: {where})")
        except ResourceFailedError:
            resource.status = f"{self.verb}_FAILED"
            raise
        if found is None:
            return False
        resource.provisioned, resource.status = found, f"{self.verb}_COMPLETE"
        self.record(names[0], found.physical_id, names[1], resource.status)
        return True

    def cancel(self) -> None:
        """Another resource has failed: CloudFormation does not wait any longer for this one."""
        resource, done = self.resource, {"CREATE": "creation", "UPDATE": "update"}[self.verb]
        resource.status = f"{self.verb}_FAILED"
        self.record(
            resource.logical_resource_id,
            resource.physical_resource_id,
            resource.cf_resource_type,
            resource.status,
            f"Resource {done} cancelled",
        )


@dataclass(slots=True)
class Restoring:
    """A resource that is being rolled back: a failure is noted, and the rollback of the others goes on."""

    pending: Pending
    left: list[str]

    def stable(self) -> bool:
        """Whether the resource is stable, or has failed."""
        try:
            return self.pending.stable()
        except ResourceFailedError as failed:
            self.left.append(failed.logical_id)
            return True

    def cancel(self) -> None:
        """The stack is being deleted."""
        self.pending.cancel()


def _reason(error: Exception) -> str:
    if isinstance(error, ClientError):
        said = error.response["Error"]
        message = said.get("Message") or "no reason given"
        return f"{message} (Service: {error.operation_name}, Error Code: {said['Code']})"
    if isinstance(error, (ResourceError, TemplateError)):
        return str(error)
    if isinstance(error, BotoCoreError):
        return f"Properties validation failed: {error}"
    return f"{type(error).__name__}: {getattr(error, 'message', None) or error}"
