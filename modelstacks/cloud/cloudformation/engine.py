"""The provisioning engine: creates, updates and deletes a stack's resources in order, and rolls back.

It knows templates and what a `ResourceType` can do, and no resource type by name. As in CloudFormation: a
resource is created after everything that it refers to is stable; one that takes time to become stable holds
up only what depends on it; a failed create deletes what was created; a failed update restores what was there;
what an update replaced or dropped is deleted only after everything else succeeded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from modelstacks.cloud.cloudformation.resource import (
    Provisioned,
    Request,
    ResourceError,
    ResourceType,
)
from modelstacks.cloud.cloudformation.schedule import InterruptedByUserError, Pace, Unhurried, carry_out
from modelstacks.cloud.cloudformation.template import (
    TemplateError,
    condition_holds,
    creation_order,
    dependencies,
    resolve,
)

__all__ = ["Engine", "Environment", "OperationFailedError", "Recorder", "Resource", "StackResources"]

logger = logging.getLogger(__name__)


class OperationFailedError(Exception):
    """A stack operation did not succeed, and has been rolled back.

    The message is the stack's status reason.
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
    """Carries out one operation on one stack. `pace` decides how it waits, and whether it is to stop.

    `keep_failed` leaves everything as it is where the operation fails (DisableRollback).
    """

    environment: Environment
    stack_name: str
    stack_id: str
    record: Recorder
    stack_status: Callable[[str, str | None], None]
    pace: Pace = field(default_factory=Unhurried)
    keep_failed: bool = False

    def create(self, stack: StackResources) -> None:
        """Create every resource of `stack.template`. Raises OperationFailedError after the rollback."""
        scope = self.scope(stack)
        declarations = dict(self._wanted(stack, scope))

        def begin(logical_id: str) -> _Pending | None:
            return self._create(stack, logical_id, declarations[logical_id], scope)

        try:
            self._carry_out(declarations, begin)
        except _ResourceFailedError as failed:
            reason = f"The following resource(s) failed to create: [{failed.logical_id}]."
            if self.keep_failed:
                self.stack_status("CREATE_FAILED", reason)
                raise OperationFailedError(reason) from None
            reason += " Rollback requested by user."
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
        declarations: dict[str, Mapping[str, Any]] = {}

        def begin(logical_id: str) -> _Pending | None:
            old = stack.resources.get(logical_id)
            if old is not None and old.status != "CREATE_FAILED":
                return self._update(stack, old, declarations[logical_id], scope, changed)
            if old is not None:
                self._discard(old, "Delete")
            return self._create(stack, logical_id, declarations[logical_id], scope, changed)

        try:
            declarations.update(self._wanted(stack, scope))
            self._carry_out(declarations, begin)
        except _ResourceFailedError as failed:
            verb = "update" if failed.logical_id in before else "create"
            reason = f"The following resource(s) failed to {verb}: [{failed.logical_id}]."
            if self.keep_failed:
                self.stack_status("UPDATE_FAILED", reason)
                raise OperationFailedError(reason) from None
            self._roll_back(stack, before, changed, (old_template, old_parameters), reason)
        except InterruptedByUserError as interrupted:
            self._roll_back(stack, before, changed, (old_template, old_parameters), str(interrupted))
        self.stack_status("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", None)
        self._clean_up(stack, before, list(declarations))

    def _roll_back(
        self,
        stack: StackResources,
        before: Mapping[str, Resource],
        changed: list[str],
        old: tuple[dict[str, Any], dict[str, Any]],
        reason: str,
    ) -> NoReturn:
        """Return to `old`, the template and parameters of before. Raises OperationFailedError."""
        self.stack_status("UPDATE_ROLLBACK_IN_PROGRESS", reason)
        stack.template, stack.parameters = old
        left = self._put_back(stack, before, changed)
        self.stack_status("UPDATE_ROLLBACK_FAILED" if left else "UPDATE_ROLLBACK_COMPLETE", None)
        raise OperationFailedError(reason) from None

    def _clean_up(self, stack: StackResources, before: Mapping[str, Resource], wanted: Sequence[str]) -> None:
        """Delete what the update replaced, and what the template no longer names."""
        for logical_id in reversed(wanted):
            old = before.get(logical_id)
            new = stack.resources[logical_id]
            if old is not None and old.physical_resource_id != new.physical_resource_id:
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
        """The template's resources in order, without those whose condition does not hold."""
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

    def _carry_out(
        self, declarations: Mapping[str, Mapping[str, Any]], begin: Callable[[str], _Pending | None]
    ) -> None:
        """Begin each resource once everything that it depends on is stable."""
        carry_out(dependencies(declarations), begin, self.pace)

    def _create(
        self,
        stack: StackResources,
        logical_id: str,
        declaration: Mapping[str, Any],
        scope: _Scope,
        changed: list[str] | None = None,
    ) -> _Pending | None:
        type_name = declaration["Type"]
        self.record(logical_id, "", type_name, "CREATE_IN_PROGRESS")
        with self._failing(logical_id, type_name, "CREATE"):
            request = self._request(logical_id, declaration, scope)
            implementation, emulated = self.environment.type(type_name)
            provisioned = implementation.create(request)
        made = Resource(request, implementation, provisioned, "CREATE_IN_PROGRESS", declaration, emulated)
        stack.resources[logical_id] = made
        if changed is not None:
            changed.append(logical_id)
        return self._stabilised(made, "CREATE")

    def _update(
        self,
        stack: StackResources,
        old: Resource,
        declaration: Mapping[str, Any],
        scope: _Scope,
        changed: list[str],
    ) -> _Pending | None:
        """Update one resource, in place or by a replacement; nothing happens where it has not changed."""
        logical_id = old.logical_resource_id
        with self._failing(logical_id, declaration["Type"], "UPDATE", old.physical_resource_id):
            request = self._request(logical_id, declaration, scope)
        same = request.properties == old.request.properties and request.type_name == old.cf_resource_type
        if same and old.status != "UPDATE_FAILED":
            stack.resources[logical_id] = replace(old, declaration=declaration)
            return None
        self.record(logical_id, old.physical_resource_id, request.type_name, "UPDATE_IN_PROGRESS")
        with self._failing(logical_id, request.type_name, "UPDATE", old.physical_resource_id):
            provisioned = self._changed(old, request)
        new = replace(
            old,
            request=request,
            provisioned=provisioned,
            status="UPDATE_IN_PROGRESS",
            declaration=declaration,
        )
        stack.resources[logical_id] = new
        changed.append(logical_id)
        return self._stabilised(new, "UPDATE")

    def _changed(self, old: Resource, request: Request) -> Provisioned:
        """Carry out an update, by a new resource where a property that is fixed at creation changes."""
        logical_id = old.logical_resource_id
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
        return provisioned

    def _put_back(
        self, stack: StackResources, before: Mapping[str, Resource], changed: list[str]
    ) -> list[str]:
        """Undo a half-done update: restore the old properties, then delete what was new.

        The order is that of an update to the old template, so that what a resource needs is restored before
        it. Returns what could not be restored.
        """
        left: list[str] = []
        restored = {
            logical_id: before[logical_id]
            for logical_id in changed
            if logical_id in before
            and before[logical_id].physical_resource_id == stack.resources[logical_id].physical_resource_id
        }
        fresh = [
            stack.resources[logical_id] for logical_id in reversed(changed) if logical_id not in restored
        ]
        attempted = {logical_id: stack.resources[logical_id] for logical_id in restored}
        stack.resources = dict(before)

        def begin(logical_id: str) -> _Restoring | None:
            try:
                pending = self._restore(stack, restored[logical_id], attempted[logical_id])
            except _ResourceFailedError:
                left.append(logical_id)
                return None
            return _Restoring(pending, left) if pending is not None else None

        declarations = {logical_id: one.declaration for logical_id, one in restored.items()}
        with suppress(InterruptedByUserError):  # the stack is being deleted: nothing needs to be restored
            carry_out(dependencies(declarations), begin, self.pace.until_restored())
        left += [resource.logical_resource_id for resource in fresh if not self._discard(resource, "Delete")]
        return left

    def _restore(self, stack: StackResources, old: Resource, new: Resource) -> _Pending | None:
        """Give a resource that was updated its old properties back."""
        logical_id, physical_id = old.logical_resource_id, old.physical_resource_id
        self.record(logical_id, physical_id, old.cf_resource_type, "UPDATE_IN_PROGRESS")
        with self._failing(logical_id, old.cf_resource_type, "UPDATE", physical_id):
            provisioned = old.type.update(old.request, new.provisioned, new.request.properties)
        back = replace(old, provisioned=provisioned or old.provisioned, status="UPDATE_IN_PROGRESS")
        stack.resources[logical_id] = back
        return self._stabilised(back, "UPDATE")

    def _stabilised(self, resource: Resource, verb: str) -> _Pending | None:
        """None where the resource is stable already; else what the engine has to wait for."""
        pending = _Pending(
            self, resource, verb, self.pace.now() + resource.type.stabilises_within(resource.request)
        )
        if pending.stable():
            return None
        done = {"CREATE": "Resource creation Initiated"}.get(verb)
        self.record(
            resource.logical_resource_id,
            resource.physical_resource_id,
            resource.cf_resource_type,
            f"{verb}_IN_PROGRESS",
            done,
        )
        return pending

    def _delete_all(self, stack: StackResources, logical_ids: list[str]) -> list[str]:
        """Delete these, last made first, and return those that are left.

        A deletion that fails because something depends on the resource is tried again.
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
        self.record(logical_id, physical_id, type_name, "DELETE_IN_PROGRESS")
        try:
            with self._failing(logical_id, type_name, "DELETE", physical_id):
                resource.type.delete(resource.request, resource.provisioned)
        except _ResourceFailedError:
            resource.status = "DELETE_FAILED"
            return False
        self.record(logical_id, physical_id, type_name, "DELETE_COMPLETE")
        return True

    @contextmanager
    def _failing(self, logical_id: str, type_name: str, verb: str, physical_id: str = "") -> Iterator[None]:
        """Turn whatever goes wrong in one step into the reason of a failed resource."""
        try:
            yield
        except (
            Exception
        ) as error:  # a resource type is other people's code: whatever it raises fails this resource only
            reason = _reason(error)
            if not isinstance(error, (ResourceError, TemplateError, ClientError, BotoCoreError)):
                logger.exception("%s of %s (%s)", verb.lower(), logical_id, type_name)
            self.record(logical_id, physical_id, type_name, f"{verb}_FAILED", reason)
            raise _ResourceFailedError(logical_id) from error


@dataclass(slots=True)
class _Pending:
    """A resource that was created or updated and is not stable yet."""

    engine: Engine
    resource: Resource
    verb: str
    deadline: float

    def stable(self) -> bool:
        """Whether the resource is stable now. Raises _ResourceFailedError where it never will be."""
        resource = self.resource
        names = resource.logical_resource_id, resource.cf_resource_type
        try:
            with self.engine._failing(*names, self.verb, resource.physical_resource_id):  # noqa: SLF001  its own part
                found = resource.type.stabilised(resource.request, resource.provisioned)
                if found is None and self.engine.pace.now() > self.deadline:
                    where = resource.physical_resource_id
                    raise ResourceError(f"Resource timed out waiting for completion (Resource ARN: {where})")
        except _ResourceFailedError:
            resource.status = f"{self.verb}_FAILED"
            raise
        if found is None:
            return False
        resource.provisioned, resource.status = found, f"{self.verb}_COMPLETE"
        self.engine.record(names[0], found.physical_id, names[1], resource.status)
        return True

    def cancel(self) -> None:
        """Another resource has failed: CloudFormation does not wait any longer for this one."""
        resource, done = self.resource, {"CREATE": "creation", "UPDATE": "update"}[self.verb]
        resource.status = f"{self.verb}_FAILED"
        self.engine.record(
            resource.logical_resource_id,
            resource.physical_resource_id,
            resource.cf_resource_type,
            resource.status,
            f"Resource {done} cancelled",
        )


@dataclass(slots=True)
class _Restoring:
    """A resource that is being rolled back: a failure is noted, and the rollback of the others goes on."""

    pending: _Pending
    left: list[str]

    def stable(self) -> bool:
        """Whether the resource is stable, or has failed."""
        try:
            return self.pending.stable()
        except _ResourceFailedError as failed:
            self.left.append(failed.logical_id)
            return True

    def cancel(self) -> None:
        """The stack is being deleted."""
        self.pending.cancel()


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
