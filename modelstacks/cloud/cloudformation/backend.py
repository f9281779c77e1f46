"""CloudFormation's API: moto's parsing of requests and writing of answers, over the engine.

`install()` replaces moto's backend with this one. A stack operation runs on a thread of its own
(operations.py): two stacks are created side by side, and one that waits can be cancelled or deleted.
"""

from __future__ import annotations

from typing import Any

from moto.cloudformation.exceptions import AlreadyExistsException, ValidationError
from moto.cloudformation.models import CloudFormationBackend, cloudformation_backends
from moto.core.utils import utcnow

from modelstacks.cloud.cloudformation import answers
from modelstacks.cloud.cloudformation.answers import on_failure
from modelstacks.cloud.cloudformation.change_sets import ChangeSet, ChangeSetNotFoundError
from modelstacks.cloud.cloudformation.engine import OperationFailedError
from modelstacks.cloud.cloudformation.operations import Operation
from modelstacks.cloud.cloudformation.parameters import prepared
from modelstacks.cloud.cloudformation.schemas import folder
from modelstacks.cloud.cloudformation.scope import StackResources
from modelstacks.cloud.cloudformation.stack import Stack
from modelstacks.cloud.cloudformation.template import TemplateError

__all__ = ["Backend", "install", "unemulated"]

#: A stack whose create or update failed with DisableRollback can be updated from where it is.
_FAILED_AND_KEPT = ("CREATE_FAILED", "UPDATE_FAILED")
_UPDATABLE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", *_FAILED_AND_KEPT)


def install() -> None:
    """Make moto's server use this CloudFormation. It has to be called before the first request."""
    folder()  # without the schemas nothing can be deployed: fail now
    cloudformation_backends.backend = Backend
    answers.install()


def unemulated(account: str, region: str) -> dict[str, list[dict[str, str]]]:
    """The resources that were accepted and are not emulated, as `{stack: [{"type", "logical_id"}]}`."""
    backend = cloudformation_backends[account][region]
    return {
        stack.name: [
            {"type": resource.cf_resource_type, "logical_id": resource.logical_resource_id}
            for resource in stack.stack_resources
            if not resource.emulated
        ]
        for stack in backend.stacks.values()
    }


class Backend(CloudFormationBackend):  # type: ignore[misc]  # moto comes without types here
    """moto's backend with stacks of our own making. Stack sets are not offered."""

    # moto finds a backend's URLs next to the module of its class.
    __module__ = CloudFormationBackend.__module__

    def create_stack(
        self,
        name: str,
        template: str,
        parameters: dict[str, Any],
        tags: Any = None,
        role_arn: Any = None,
        **more: Any,
    ) -> Stack:
        """CreateStack. A failure appears in the stack's status and events, as in AWS."""
        stack = self._new_stack(name, tags, role_arn)
        stack.enable_termination_protection = bool(more.get("enable_termination_protection"))
        self._create(stack, template, parameters)
        return stack

    def update_stack(self, name: str, template: str, role_arn: Any, parameters: Any, tags: Any) -> Stack:
        """UpdateStack. Raises ValidationError where nothing would change."""
        stack: Stack = self.get_stack(name)
        given = self._given(stack, parameters)
        failed = stack.status in _FAILED_AND_KEPT
        if stack.template == template and stack.given == given and not failed:
            raise ValidationError(message="No updates are to be performed.")
        stack.tags, stack.role_arn = dict(tags or stack.tags), role_arn or stack.role_arn
        self._update(stack, template, given)
        return stack

    def delete_stack(self, name_or_stack_id: str) -> None:
        """DeleteStack; no error for a stack that does not exist."""
        found = [stack for stack in self.stacks.values() if name_or_stack_id in (stack.name, stack.stack_id)]
        for stack in found:
            if stack.enable_termination_protection:
                raise ValidationError(
                    message=f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled"
                )
            if stack.operation is not None:
                stack.operation.abandon()
            stack.enter("DELETE_IN_PROGRESS", "User Initiated")
            stack.begin("delete", lambda operation, stack=stack: self._delete(stack, operation))

    def _delete(self, stack: Stack, operation: Operation) -> None:
        try:
            stack.engine(operation).delete(stack.contents)
        except OperationFailedError as failure:
            stack.enter("DELETE_FAILED", str(failure))
            return
        for export in stack.exports:
            self.exports.pop(export.name, None)
        stack.deletion_time = utcnow()
        stack.enter("DELETE_COMPLETE")
        self.deleted_stacks[stack.stack_id] = self.stacks.pop(stack.stack_id)

    def cancel_update_stack(self, name: str) -> None:
        """CancelUpdateStack: an update that is under way is rolled back."""
        stack: Stack = self.get_stack(name)
        if stack.status != "UPDATE_IN_PROGRESS" or stack.operation is None:
            raise ValidationError(message="CancelUpdateStack cannot be called from current stack status")
        stack.operation.cancel()

    def create_change_set(
        self,
        stack_name: str,
        change_set_name: str,
        template: str,
        parameters: dict[str, str],
        description: str,
        change_set_type: str,
        notification_arns: Any = None,
        tags: Any = None,
        role_arn: Any = None,
    ) -> tuple[str, str]:
        """CreateChangeSet for a new stack or an existing one."""
        waiting = [
            s for s in self.stacks.values() if s.name == stack_name and s.status == "REVIEW_IN_PROGRESS"
        ]
        if change_set_type == "UPDATE":
            stack = self.get_stack(stack_name)
        else:
            stack = waiting[0] if waiting else self._new_stack(stack_name, tags, role_arn)
            stack.enter("REVIEW_IN_PROGRESS", "User Initiated")
        try:
            change_set = ChangeSet(stack, change_set_type, change_set_name, template, parameters, description)
        except TemplateError as error:
            raise ValidationError(message=str(error)) from None
        change_set.tags, change_set.role_arn = tags, role_arn
        self.change_sets[change_set.change_set_id] = change_set
        return change_set.change_set_id, stack.stack_id

    def describe_change_set(self, change_set_name: str, stack_name: str | None = None) -> ChangeSet:
        """DescribeChangeSet: by ARN, or by name on one stack; the newest of that name."""
        for change_set in reversed(self.change_sets.values()):
            if change_set.answers_to(change_set_name, stack_name):
                found: ChangeSet = change_set
                return found
        raise ChangeSetNotFoundError(f"ChangeSet [{change_set_name}] does not exist")

    def delete_change_set(self, change_set_name: str, stack_name: str | None = None) -> None:
        """DeleteChangeSet; no error for one that does not exist."""
        for change_set_id, change_set in list(self.change_sets.items()):
            if change_set.answers_to(change_set_name, stack_name):
                del self.change_sets[change_set_id]

    def execute_change_set(self, change_set_name: str, stack_name: str | None = None) -> None:
        """ExecuteChangeSet."""
        change_set = self.describe_change_set(change_set_name, stack_name)
        if change_set.execution_status != "AVAILABLE":
            raise ValidationError(
                message=f"ChangeSet [{change_set.change_set_id}] cannot be executed in its current status of "
                f"[{change_set.status}]"
            )
        stack = change_set.stack
        stack.tags, stack.role_arn = (
            dict(change_set.tags or stack.tags),
            change_set.role_arn or stack.role_arn,
        )
        change_set.execution_status = "EXECUTE_COMPLETE"
        if change_set.change_set_type == "CREATE":
            self._create(stack, change_set.template, change_set.parameters)
        else:
            self._update(stack, change_set.template, change_set.parameters)

    def _new_stack(self, name: str, tags: Any, role_arn: Any) -> Stack:
        if any(stack.name == name for stack in self.stacks.values()):
            raise AlreadyExistsException(f"Stack [{name}] already exists")
        stack = Stack(self, name, tags, role_arn)
        self.stacks[stack.stack_id] = stack
        return stack

    def _create(self, stack: Stack, template: str, given: dict[str, str]) -> None:
        try:
            parsed, parameters = prepared(template, given, self.region_name)
        except Exception:
            del self.stacks[stack.stack_id]
            raise
        stack.template, stack.given, stack.description = template, given, parsed.get("Description")
        stack.contents = StackResources(parsed, parameters)
        wanted = on_failure()
        stack.enter("CREATE_IN_PROGRESS", "User Initiated")
        stack.begin("create", lambda operation: self._carry_out_create(stack, operation, wanted))

    def _carry_out_create(self, stack: Stack, operation: Operation, wanted: str) -> None:
        try:
            stack.engine(operation, keep_failed=wanted == "DO_NOTHING").create(stack.contents)
            stack.settle()
        except OperationFailedError:
            if wanted == "DELETE" and not operation.abandoned:
                self._delete(stack, operation)
            return
        except TemplateError as error:  # an output without a value fails the stack like a resource
            stack.enter("ROLLBACK_IN_PROGRESS", str(error))
            stack.engine(operation).delete(stack.contents)
            stack.enter("ROLLBACK_COMPLETE")
            return
        stack.enter("CREATE_COMPLETE")

    def _update(self, stack: Stack, template: str, given: dict[str, str]) -> None:
        if not stack.status.endswith(_UPDATABLE):
            raise ValidationError(
                message=f"Stack:{stack.stack_id} is in {stack.status} state and can not be updated."
            )
        parsed, parameters = prepared(template, given, self.region_name)
        keep_failed = on_failure() == "DO_NOTHING"
        stack.enter("UPDATE_IN_PROGRESS", "User Initiated")
        stack.last_updated_time = utcnow()

        def work(operation: Operation) -> None:
            before = stack.contents.template, stack.contents.parameters
            try:
                stack.engine(operation, keep_failed=keep_failed).update(stack.contents, parsed, parameters)
                stack.settle()
            except OperationFailedError:
                return
            except TemplateError as error:  # an output without a value: back to the old template
                stack.enter("UPDATE_ROLLBACK_IN_PROGRESS", str(error))
                stack.engine(operation).update(stack.contents, *before)
                stack.settle()
                stack.enter("UPDATE_ROLLBACK_COMPLETE")
                return
            stack.template, stack.given, stack.description = template, given, parsed.get("Description")
            stack.enter("UPDATE_COMPLETE")

        stack.begin("update", work)

    def _given(self, stack: Stack, parameters: Any) -> dict[str, str]:
        """The parameters of an UpdateStack call, with previous values filled in."""
        return {
            entry["ParameterKey"]: stack.stack_parameters[entry["ParameterKey"]]
            if entry.get("UsePreviousValue")
            else entry["ParameterValue"]
            for entry in parameters
        }
