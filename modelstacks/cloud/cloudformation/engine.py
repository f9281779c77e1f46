"""The provisioning engine: creates, updates and deletes a stack's resources in order, and rolls back.

It knows templates and what a `ResourceType` can do, and no resource type by name. As in CloudFormation: a
resource is created after everything that it refers to is stable; one that takes time to become stable delays
only what depends on it; a failed create deletes what was created; a failed update restores the old state;
what an update replaced or dropped is deleted only after everything else succeeded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from modelstacks.cloud.cloudformation.resource import Provisioned, Request, ResourceError
from modelstacks.cloud.cloudformation.schedule import InterruptedByUserError, Pace, Unhurried, carry_out
from modelstacks.cloud.cloudformation.scope import Environment, Resource, StackResources, StackScope
from modelstacks.cloud.cloudformation.steps import (
    Pending,
    Recorder,
    ResourceFailedError,
    Restoring,
    failing,
)
from modelstacks.cloud.cloudformation.template import creation_order, dependencies, resolve

__all__ = ["Engine", "OperationFailedError"]


class OperationFailedError(Exception):
    """A stack operation failed and was rolled back; the message is the stack's status reason."""


@dataclass(slots=True)
class Engine:
    """Carries out one operation on one stack. `pace` decides how it waits, and whether it has to stop.

    `keep_failed` leaves everything as it is after a failure (DisableRollback).
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

        def begin(logical_id: str) -> Pending | None:
            return self._create(stack, logical_id, declarations[logical_id], scope)

        try:
            self._carry_out(declarations, begin)
        except ResourceFailedError as failed:
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

        def begin(logical_id: str) -> Pending | None:
            old = stack.resources.get(logical_id)
            if old is not None and old.status != "CREATE_FAILED":
                return self._update(stack, old, declarations[logical_id], scope, changed)
            if old is not None:
                self._discard(old, "Delete")
            return self._create(stack, logical_id, declarations[logical_id], scope, changed)

        try:
            declarations.update(self._wanted(stack, scope))
            self._carry_out(declarations, begin)
        except ResourceFailedError as failed:
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

    def scope(self, stack: StackResources) -> StackScope:
        """What the stack's template can refer to."""
        return StackScope(
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

    def _wanted(self, stack: StackResources, scope: StackScope) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The template's resources in order, without those whose condition does not hold."""
        declarations = stack.template["Resources"]
        for logical_id in creation_order(declarations):
            declaration = declarations[logical_id]
            if "Condition" not in declaration or scope.condition(declaration["Condition"]):
                yield logical_id, declaration

    def _request(self, logical_id: str, declaration: Mapping[str, Any], scope: StackScope) -> Request:
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
        self, declarations: Mapping[str, Mapping[str, Any]], begin: Callable[[str], Pending | None]
    ) -> None:
        """Begin each resource once everything that it depends on is stable."""
        carry_out(dependencies(declarations), begin, self.pace)

    def _create(
        self,
        stack: StackResources,
        logical_id: str,
        declaration: Mapping[str, Any],
        scope: StackScope,
        changed: list[str] | None = None,
    ) -> Pending | None:
        type_name = declaration["Type"]
        self.record(logical_id, "", type_name, "CREATE_IN_PROGRESS")
        with failing(self.record, logical_id, type_name, "CREATE"):
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
        scope: StackScope,
        changed: list[str],
    ) -> Pending | None:
        """Update one resource, in place or by a replacement; nothing happens where it has not changed."""
        logical_id = old.logical_resource_id
        with failing(self.record, logical_id, declaration["Type"], "UPDATE", old.physical_resource_id):
            request = self._request(logical_id, declaration, scope)
        same = request.properties == old.request.properties and request.type_name == old.cf_resource_type
        if same and old.status != "UPDATE_FAILED":
            stack.resources[logical_id] = replace(old, declaration=declaration)
            return None
        self.record(logical_id, old.physical_resource_id, request.type_name, "UPDATE_IN_PROGRESS")
        with failing(self.record, logical_id, request.type_name, "UPDATE", old.physical_resource_id):
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

        def begin(logical_id: str) -> Restoring | None:
            try:
                pending = self._restore(stack, restored[logical_id], attempted[logical_id])
            except ResourceFailedError:
                left.append(logical_id)
                return None
            return Restoring(pending, left) if pending is not None else None

        declarations = {logical_id: one.declaration for logical_id, one in restored.items()}
        with suppress(InterruptedByUserError):  # the stack is being deleted: nothing needs to be restored
            carry_out(dependencies(declarations), begin, self.pace.until_restored())
        left += [resource.logical_resource_id for resource in fresh if not self._discard(resource, "Delete")]
        return left

    def _restore(self, stack: StackResources, old: Resource, new: Resource) -> Pending | None:
        """Give a resource that was updated its old properties back."""
        logical_id, physical_id = old.logical_resource_id, old.physical_resource_id
        self.record(logical_id, physical_id, old.cf_resource_type, "UPDATE_IN_PROGRESS")
        with failing(self.record, logical_id, old.cf_resource_type, "UPDATE", physical_id):
            provisioned = old.type.update(old.request, new.provisioned, new.request.properties)
        back = replace(old, provisioned=provisioned or old.provisioned, status="UPDATE_IN_PROGRESS")
        stack.resources[logical_id] = back
        return self._stabilised(back, "UPDATE")

    def _stabilised(self, resource: Resource, verb: str) -> Pending | None:
        """None where the resource is stable already; else what the engine has to wait for."""
        deadline = self.pace.now() + resource.type.stabilises_within(resource.request)
        pending = Pending(self.record, self.pace, resource, verb, deadline)
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
        """Delete one resource, or keep it if its policy says so. Returns whether the stack is rid of it."""
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
            with failing(self.record, logical_id, type_name, "DELETE", physical_id):
                resource.type.delete(resource.request, resource.provisioned)
        except ResourceFailedError:
            resource.status = "DELETE_FAILED"
            return False
        self.record(logical_id, physical_id, type_name, "DELETE_COMPLETE")
        return True
