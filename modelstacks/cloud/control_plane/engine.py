"""The provisioning engine: makes a stack's resources true, in order, and takes them back when one fails.

It knows templates and what a `ResourceType` can do, and no resource type by name. As in CloudFormation: a
resource is
made after everything that it refers to; a failed create deletes what was made; a failed update puts back
what was
there; what an update replaced or dropped is deleted only after everything else went well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from modelstacks.cloud.control_plane.resource import (
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
)
from modelstacks.cloud.control_plane.template import TemplateError, condition_holds, creation_order, resolve

__all__ = ["Engine", "Environment", "OperationFailedError", "Recorder", "Resource", "StackResources"]

logger = logging.getLogger(__name__)


class OperationFailedError(Exception):
    """A stack operation did not succeed; it has been rolled back. The message is the stack's status
    reason.
    """


@dataclass(slots=True)
class Resource:
    """One resource that exists, and what it was made from."""

    request: Request
    type: ResourceType
    provisioned: Provisioned
    status: str
    declaration: Mapping[str, Any]
    emulated: bool = True

    # The names under which moto's CloudFormation API looks a resource up.
    @property
    def logical_resource_id(self) -> str:
        return self.request.logical_id

    @property
    def physical_resource_id(self) -> str:
        return self.provisioned.physical_id

    @property
    def cf_resource_type(self) -> str:
        return self.request.type_name


@dataclass(slots=True)
class StackResources:
    """What a stack consists of now. `resources` is in the order of creation."""

    template: dict[str, Any] = field(default_factory=lambda: {"Resources": {}})
    parameters: dict[str, Any] = field(
        default_factory=dict
    )  # resolved: an SSM parameter's value, not its name
    resources: dict[str, Resource] = field(default_factory=dict)


class Recorder(Protocol):
    """Where a resource's progress is told."""

    def __call__(
        self, logical_id: str, physical_id: str, type_name: str, status: str, reason: str | None = None
    ) -> None:
        """One resource has entered `status`: CREATE_IN_PROGRESS, CREATE_FAILED ..."""


class Environment(Protocol):
    """What lies outside the stack."""

    account: str
    region: str

    def type(self, name: str) -> tuple[ResourceType, bool]:
        """The implementation of a type, and whether anything emulates it."""

    def exported(self, name: str) -> Any:
        """The value that a stack exports."""

    def zones(self, region: str) -> list[str]:
        """A region's Availability Zones."""

    def dynamic(self, service: str, reference: str) -> str:
        """The value of a dynamic reference."""


class _Scope:
    """What the names of one stack's template mean while its resources come into being."""

    def __init__(self, stack: StackResources, environment: Environment, pseudo: Mapping[str, Any]) -> None:
        self._stack, self._environment, self._pseudo = stack, environment, pseudo
        self._conditions: dict[str, bool] = {}

    def ref(self, name: str) -> Any:
        if name in self._pseudo:
            return self._pseudo[name]
        if name in self._stack.parameters:
            return self._stack.parameters[name]
        return self.resource(name, "Ref").provisioned.physical_id

    def attribute(self, logical_id: str, name: str) -> Any:
        resource = self.resource(logical_id, "Fn::GetAtt")
        if not resource.emulated:
            where = f"{self._environment.region}:{self._environment.account}"
            return f"arn:aws:not-emulated:{where}:{logical_id}/{name}"
        try:
            return resource.provisioned.attributes[name]
        except KeyError:
            raise TemplateError(
                f"Template error: resource {logical_id} does not support attribute type {name} in Fn::GetAtt"
            ) from None

    def resource(self, logical_id: str, function: str) -> Resource:
        if logical_id in self._stack.resources:
            return self._stack.resources[logical_id]
        raise TemplateError(
            f"Template error: instance of {function} references undefined resource {logical_id}"
        )

    def condition(self, name: str) -> bool:
        if name not in self._conditions:
            definition = self._stack.template.get("Conditions", {}).get(name)
            if definition is None:
                raise TemplateError(f"Template format error: Unresolved condition dependency {name}")
            self._conditions[name] = condition_holds(definition, self)
        return self._conditions[name]

    def mapping(self, name: str) -> Mapping[str, Any]:
        table: Mapping[str, Any] = self._stack.template.get("Mappings", {})[name]
        return table

    def exported(self, name: str) -> Any:
        return self._environment.exported(name)

    def zones(self, region: str) -> list[str]:
        return self._environment.zones(region or self._environment.region)

    def dynamic(self, service: str, reference: str) -> str:
        return self._environment.dynamic(service, reference)


@dataclass(slots=True)
class Engine:
    """Carries out one operation on one stack. `pseudo` holds AWS::StackName and its like."""

    environment: Environment
    stack_name: str
    stack_id: str
    record: Recorder
    stack_status: Callable[[str, str | None], None]

    def create(self, stack: StackResources) -> None:
        """Make every resource of `stack.template`. Raises OperationFailedError once all is deleted again."""
        scope = self.scope(stack)
        try:
            for logical_id, declaration in self._wanted(stack, scope):
                stack.resources[logical_id] = self._create(logical_id, declaration, scope)
        except _ResourceFailedError as failed:
            reason = (
                f"The following resource(s) failed to create: [{failed.logical_id}]. "
                "Rollback requested by user."
            )
            self.stack_status("ROLLBACK_IN_PROGRESS", reason)
            left = self._delete_all(stack, list(stack.resources))
            self.stack_status("ROLLBACK_FAILED" if left else "ROLLBACK_COMPLETE", None)
            raise OperationFailedError(reason) from None

    def update(self, stack: StackResources, template: dict[str, Any], parameters: dict[str, Any]) -> None:
        """Turn the stack into what `template` says. Raises OperationFailedError once all is as before."""
        before = dict(stack.resources)
        old_template, old_parameters = stack.template, stack.parameters
        stack.template, stack.parameters = template, parameters
        scope = self.scope(stack)
        changed: list[str] = []
        outdated: list[Resource] = []
        try:
            wanted = []
            for logical_id, declaration in self._wanted(stack, scope):
                wanted.append(logical_id)
                old = before.get(logical_id)
                if old is None:
                    stack.resources[logical_id] = self._create(logical_id, declaration, scope)
                    changed.append(logical_id)
                elif (new := self._update(old, declaration, scope)) is not None:
                    stack.resources[logical_id] = new
                    changed.append(logical_id)
                    if new.physical_resource_id != old.physical_resource_id:
                        outdated.append(old)
        except _ResourceFailedError as failed:
            verb = "update" if failed.logical_id in before else "create"
            reason = f"The following resource(s) failed to {verb}: [{failed.logical_id}]."
            self.stack_status("UPDATE_ROLLBACK_IN_PROGRESS", reason)
            stack.template, stack.parameters = old_template, old_parameters
            left = self._put_back(stack, before, changed)
            self.stack_status("UPDATE_ROLLBACK_FAILED" if left else "UPDATE_ROLLBACK_COMPLETE", None)
            raise OperationFailedError(reason) from None
        self.stack_status("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", None)
        for old in reversed(outdated):
            self._discard(old, old.declaration.get("UpdateReplacePolicy", "Delete"))
        self._delete_all(stack, [logical_id for logical_id in stack.resources if logical_id not in wanted])
        stack.resources = {logical_id: stack.resources[logical_id] for logical_id in wanted}

    def delete(self, stack: StackResources) -> None:
        """Delete every resource, the last made first. Raises OperationFailedError naming what stays."""
        if left := self._delete_all(stack, list(stack.resources)):
            raise OperationFailedError(f"The following resource(s) failed to delete: [{', '.join(left)}].")

    def scope(self, stack: StackResources) -> _Scope:
        """What the stack's template can refer to."""
        return _Scope(
            stack,
            self.environment,
            {
                "AWS::AccountId": self.environment.account,
                "AWS::Region": self.environment.region,
                "AWS::StackId": self.stack_id,
                "AWS::StackName": self.stack_name,
                "AWS::Partition": "aws",
                "AWS::URLSuffix": "amazonaws.com",
                "AWS::NotificationARNs": [],
            },
        )

    def _wanted(self, stack: StackResources, scope: _Scope) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The template's resources in order, less those whose condition does not hold."""
        declarations = stack.template["Resources"]
        for logical_id in creation_order(declarations):
            declaration = declarations[logical_id]
            if "Condition" not in declaration or scope.condition(declaration["Condition"]):
                yield logical_id, declaration

    def _request(self, logical_id: str, declaration: Mapping[str, Any], scope: _Scope) -> Request:
        properties = resolve(declaration.get("Properties", {}), scope)
        return Request(
            type_name=declaration["Type"],
            logical_id=logical_id,
            properties=properties,
            stack_name=self.stack_name,
            stack_id=self.stack_id,
            account=self.environment.account,
            region=self.environment.region,
        )

    def _create(self, logical_id: str, declaration: Mapping[str, Any], scope: _Scope) -> Resource:
        type_name = declaration["Type"]
        with self._recorded(logical_id, type_name, "CREATE") as done:
            request = self._request(logical_id, declaration, scope)
            implementation, emulated = self.environment.type(type_name)
            provisioned = implementation.create(request)
            done(provisioned.physical_id)
        return Resource(request, implementation, provisioned, "CREATE_COMPLETE", declaration, emulated)

    def _update(self, old: Resource, declaration: Mapping[str, Any], scope: _Scope) -> Resource | None:
        """The resource as it is after the update; None where nothing about it has changed."""
        logical_id = old.logical_resource_id
        try:
            request = self._request(logical_id, declaration, scope)
        except TemplateError as error:
            self.record(
                logical_id, old.physical_resource_id, declaration["Type"], "UPDATE_FAILED", str(error)
            )
            raise _ResourceFailedError(logical_id) from None
        if request.properties == old.request.properties and request.type_name == old.cf_resource_type:
            old.declaration = declaration
            return None
        with self._recorded(logical_id, request.type_name, "UPDATE", old.physical_resource_id) as done:
            if request.type_name != old.cf_resource_type:
                raise ResourceError(
                    "Update of resource type is not permitted. The new template modifies resource type of "
                    f"the following resources: [{logical_id}]"
                )
            moved = {
                name
                for name in old.type.immutable
                if request.properties.get(name) != old.request.properties.get(name)
            }
            provisioned = None if moved else old.type.update(request, old.provisioned, old.request.properties)
            if provisioned is None:
                self.record(
                    logical_id,
                    old.physical_resource_id,
                    request.type_name,
                    "UPDATE_IN_PROGRESS",
                    "Requested update requires the creation of a new physical resource; hence creating one.",
                )
                provisioned = old.type.create(request)
            done(provisioned.physical_id)
        return replace(
            old, request=request, provisioned=provisioned, status="UPDATE_COMPLETE", declaration=declaration
        )

    def _put_back(
        self, stack: StackResources, before: Mapping[str, Resource], changed: list[str]
    ) -> list[str]:
        """Undo a half-done update: old properties first, then away with what was new. Returns what would
        not go back.
        """
        left: list[str] = []
        fresh: list[Resource] = []
        for logical_id in reversed(changed):
            new, old = stack.resources[logical_id], before.get(logical_id)
            if old is None or new.physical_resource_id != old.physical_resource_id:
                fresh.append(new)
            else:
                try:
                    with self._recorded(
                        logical_id, old.cf_resource_type, "UPDATE", old.physical_resource_id
                    ) as done:
                        provisioned = old.type.update(old.request, new.provisioned, new.request.properties)
                        before = {
                            **before,
                            logical_id: replace(old, provisioned=provisioned or old.provisioned),
                        }
                        done(old.physical_resource_id)
                except _ResourceFailedError:
                    left.append(logical_id)
        left += [resource.logical_resource_id for resource in fresh if not self._discard(resource, "Delete")]
        stack.resources = dict(before)
        return left

    def _delete_all(self, stack: StackResources, logical_ids: list[str]) -> list[str]:
        """Delete these, last made first; what fails for a dependency's sake is tried again. Returns what is
        left.
        """
        waiting = list(reversed(logical_ids))
        while waiting:
            failed = []
            for logical_id in waiting:
                resource = stack.resources[logical_id]
                if self._discard(resource, resource.declaration.get("DeletionPolicy", "Delete")):
                    del stack.resources[logical_id]
                else:
                    failed.append(logical_id)
            if len(failed) == len(waiting):
                break
            waiting = failed
        return waiting

    def _discard(self, resource: Resource, policy: str) -> bool:
        """Delete one resource, unless its policy is to keep it; whether it is off the stack's hands."""
        logical_id, physical_id, type_name = (
            resource.logical_resource_id,
            resource.physical_resource_id,
            resource.cf_resource_type,
        )
        if policy in ("Retain", "RetainExceptOnCreate"):
            self.record(logical_id, physical_id, type_name, "DELETE_SKIPPED")
            return True
        try:
            with self._recorded(logical_id, type_name, "DELETE", physical_id) as done:
                resource.type.delete(resource.request, resource.provisioned)
                done(physical_id)
        except _ResourceFailedError:
            resource.status = "DELETE_FAILED"
            return False
        return True

    @contextmanager
    def _recorded(
        self, logical_id: str, type_name: str, verb: str, physical_id: str = ""
    ) -> Iterator[Callable[[str], None]]:
        """Tell of one step's beginning and its end, and turn whatever goes wrong in it into a reason."""
        self.record(logical_id, physical_id, type_name, f"{verb}_IN_PROGRESS")
        try:
            yield lambda made: self.record(logical_id, made, type_name, f"{verb}_COMPLETE")
        except (
            Exception
        ) as error:  # a resource type is other people's code: whatever it raises fails this resource only
            reason = _reason(error)
            if not isinstance(error, (ResourceError, TemplateError, ClientError, BotoCoreError)):
                logger.exception("%s of %s (%s)", verb.lower(), logical_id, type_name)
            self.record(logical_id, physical_id, type_name, f"{verb}_FAILED", reason)
            raise _ResourceFailedError(logical_id) from error


class _ResourceFailedError(Exception):
    """Ends a stack operation; the reason is already in the events."""

    def __init__(self, logical_id: str) -> None:
        self.logical_id = logical_id
        super().__init__(logical_id)


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
