"""CloudFormation's API: moto's parsing of requests and writing of answers, over the engine.

`install()` puts this backend in moto's place. A stack operation runs on a thread of its own (operations.py);
two stacks are created side by side, and one that waits for its replicas can be cancelled or deleted.
"""

# ruff: noqa: ARG002  the signatures are those of moto's backend
from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

from moto.cloudformation import responses
from moto.cloudformation.exceptions import (
    AlreadyExistsException,
    CloudFormationError,
    ExportNotFound,
    MissingParameterError,
    ValidationError,
)
from moto.cloudformation.models import Change, CloudFormationBackend, Event, cloudformation_backends
from moto.cloudformation.parsing import Export
from moto.cloudformation.utils import generate_changeset_id, generate_stack_id
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow

from modelstacks.cloud.cloudformation.engine import Engine, OperationFailedError, Resource, StackResources
from modelstacks.cloud.cloudformation.moto_types import moto_type
from modelstacks.cloud.cloudformation.operations import Operation
from modelstacks.cloud.cloudformation.resource import (
    Provisioned,
    Request,
    ResourceType,
    _client,
    emulated_types,
)
from modelstacks.cloud.cloudformation.schedule import Unhurried
from modelstacks.cloud.cloudformation.schemas import Validated, folder, schema_of
from modelstacks.cloud.cloudformation.template import TemplateError, creation_order, parse, resolve

__all__ = ["Backend", "Stack", "install", "unemulated"]

#: Types that only tell CloudFormation or the CDK something: there is nothing about them to emulate.
_NOTHING_TO_EMULATE = (
    "AWS::CDK::Metadata",
    "AWS::CloudFormation::WaitConditionHandle",
    "AWS::CloudFormation::WaitCondition",
)

_NO_CHANGES = (
    "The submitted information didn't contain changes. Submit different information to create a change set."
)
#: A stack whose create or update failed with DisableRollback can be updated from where it is.
_FAILED_AND_KEPT = ("CREATE_FAILED", "UPDATE_FAILED")
_UPDATABLE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", *_FAILED_AND_KEPT)


def install() -> None:
    """Make moto's server use this CloudFormation. To be called before the first request."""
    folder()  # without the schemas nothing can be deployed: say so now
    cloudformation_backends.backend = Backend
    responses.StackResourceDTO = _ResourceAnswer
    responses.CloudFormationResponse.describe_change_set = _describe_change_set
    responses.CloudFormationResponse.delete_change_set = _delete_change_set
    responses.CloudFormationResponse.cancel_update_stack = _cancel_update_stack
    for action in ("create_stack", "update_stack", "execute_change_set"):
        _remember_what_a_failure_does(action)


def unemulated(account: str, region: str) -> dict[str, list[dict[str, str]]]:
    """The resources that were accepted and are not emulated, as `{stack: [{"type", "logical_id"}]}`."""
    backend = cloudformation_backends[account][region]
    return {
        stack.name: [
            {"type": resource.cf_resource_type, "logical_id": resource.logical_resource_id}
            for resource in stack.stack_resources
            if not resource.emulated and resource.cf_resource_type not in _NOTHING_TO_EMULATE
        ]
        for stack in backend.stacks.values()
    }


CUSTOM_RESOURCE = "AWS::CloudFormation::CustomResource"


class _Unemulated(ResourceType):
    """Accepts anything and makes nothing."""

    def create(self, request: Request) -> Provisioned:
        return Provisioned(request.generated_name())

    def update(self, request: Request, current: Provisioned, before: dict[str, Any]) -> Provisioned | None:
        return current

    def delete(self, request: Request, current: Provisioned) -> None:
        return None


class _Environment:
    """What a template can refer to outside its stack, in one account and region."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.account, self.region = backend, backend.account_id, backend.region_name

    def type(self, name: str) -> tuple[ResourceType, bool]:
        kind = _schema_name(name)
        known = emulated_types().get(kind) or moto_type(name)
        # The properties of a custom resource are its function's business; the schema names none of them.
        schema = None if kind == CUSTOM_RESOURCE else schema_of(kind, self.region)
        implementation = known or _Unemulated()
        return (Validated(implementation, schema) if schema else implementation), known is not None

    def exported(self, name: str) -> Any:
        if name not in self.backend.exports:
            raise TemplateError(str(ExportNotFound(name).message))
        return self.backend.exports[name].value

    def zones(self, region: str) -> list[str]:
        zones = _client("ec2", region).describe_availability_zones()["AvailabilityZones"]
        return [zone["ZoneName"] for zone in zones]

    def dynamic(self, service: str, reference: str) -> str:
        if service.startswith("ssm"):
            return str(
                _client("ssm", self.region).get_parameter(Name=reference, WithDecryption=True)["Parameter"][
                    "Value"
                ]
            )
        arn = reference.startswith("arn:")
        parts = reference.split(":")
        secret, rest = (":".join(parts[:7]), parts[7:]) if arn else (parts[0], parts[1:])
        value = _client("secretsmanager", self.region).get_secret_value(SecretId=secret)["SecretString"]
        key = rest[1] if len(rest) > 1 else ""
        return str(_parse_json(value)[key]) if key else str(value)


def _schema_name(type_name: str) -> str:
    """The type whose schema a type follows: a custom resource may have any name of its own."""
    return CUSTOM_RESOURCE if type_name.startswith("Custom::") else type_name


def _unrecognized(template: Mapping[str, Any], region: str) -> list[str]:
    """The template's resource types that the region does not have."""
    used = {resource["Type"] for resource in template["Resources"].values()}
    return sorted(name for name in used if schema_of(_schema_name(name), region) is None)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise TemplateError("Could not parse SecretString JSON") from None


class Stack:
    """One stack. Its attributes are what moto's answers look for: stack_id, stack_name, outputs and so on."""

    def __init__(
        self, backend: Backend, name: str, tags: Mapping[str, str] | None, role_arn: str | None
    ) -> None:
        self.backend = backend
        self.stack_name = self.name = name
        self.stack_id = generate_stack_id(name, backend.region_name, backend.account_id)
        self.template = ""
        self.given: dict[str, str] = {}
        self.contents = StackResources()
        self.status = "REVIEW_IN_PROGRESS"
        self.stack_status_reason: str | None = None
        self.creation_time = utcnow()
        self.last_updated_time: datetime | None = None
        self.deletion_time: datetime | None = None
        self.description: str | None = None
        self.tags, self.role_arn = dict(tags or {}), role_arn
        self.notification_arns: list[str] = []
        self.enable_termination_protection = self.disable_rollback = False
        self.events: list[Event] = []
        self.outputs: list[dict[str, Any]] = []
        self.exports: list[Export] = []
        self.policy = ""
        self.operation: Operation | None = None  # the latest

    @property
    def stack_status(self) -> str:
        """CREATE_COMPLETE and its like."""
        return self.status

    @property
    def template_description(self) -> str | None:
        """The template's Description."""
        return self.description

    @property
    def stack_resources(self) -> list[Resource]:
        """The resources that exist, in the order of creation."""
        return list(self.contents.resources.values())

    @property
    def stack_parameters(self) -> dict[str, Any]:
        """The parameters as given, or their defaults: an SSM parameter's name, not its value."""
        declared = self.contents.template.get("Parameters", {})
        return {
            name: self.given.get(name, declaration.get("Default")) for name, declaration in declared.items()
        }

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """The parameters as DescribeStacks lists them; those with NoEcho masked."""
        declared = self.contents.template.get("Parameters", {})
        return [
            {"ParameterKey": name, "ParameterValue": "****" if declared[name].get("NoEcho") else value}
            | (
                {"ResolvedValue": self.contents.parameters[name]}
                if declared[name]["Type"].startswith("AWS::SSM::")
                else {}
            )
            for name, value in self.stack_parameters.items()
        ]

    def engine(self, operation: Operation | None = None, *, keep_failed: bool = False) -> Engine:
        """The engine for one operation on this stack."""

        def enter(status: str, reason: str | None = None) -> None:
            if operation is None or not operation.abandoned:
                self.enter(status, reason)

        pace = Unhurried() if operation is None else operation
        return Engine(
            _Environment(self.backend), self.name, self.stack_id, self._record, enter, pace, keep_failed
        )

    def begin(self, what: str, work: Callable[[Operation], None]) -> None:
        """Start an operation, after the one before it has ended."""
        before = self.operation

        def after(operation: Operation) -> None:
            if before is not None:
                before.join()
            work(operation)

        self.operation = Operation(f"{what} {self.name}", after)
        self.operation.start()

    def enter(self, status: str, reason: str | None = None) -> None:
        """The stack as a whole is now in `status`."""
        self.status, self.stack_status_reason = status, reason
        self._record(self.name, self.stack_id, "AWS::CloudFormation::Stack", status, reason)

    def _record(
        self, logical_id: str, physical_id: str, type_name: str, status: str, reason: str | None = None
    ) -> None:
        event = Event(self.stack_id, self.name, logical_id, physical_id, type_name, status, reason, None)
        self.events.append(event)

    def settle(self) -> None:
        """Work out outputs and exports from the resources as they are now."""
        scope = self.engine().scope(self.contents)
        self.outputs, exports = [], []
        for key, declaration in self.contents.template.get("Outputs", {}).items():
            if "Condition" in declaration and not scope.condition(declaration["Condition"]):
                continue
            value = resolve(declaration["Value"], scope)
            output = {
                "OutputKey": key,
                "OutputValue": str(value),
                "Description": declaration.get("Description"),
            }
            if "Export" in declaration:
                output["ExportName"] = resolve(declaration["Export"]["Name"], scope)
                exports.append(Export(self.stack_id, output["ExportName"], output["OutputValue"]))
            self.outputs.append(output)
        for old in self.exports:
            self.backend.exports.pop(old.name, None)
        for new in exports:
            if new.name in self.backend.exports:
                raise TemplateError(
                    f"Export with name {new.name} is already exported by stack "
                    f"{self.backend.exports[new.name].exporting_stack_id}"
                )
            self.backend.exports[new.name] = new
        self.exports = exports


class _ChangeSet:
    """A change set; nothing is changed until it is executed."""

    def __init__(
        self,
        stack: Stack,
        kind: str,
        name: str,
        template: str,
        parameters: dict[str, str],
        description: str | None,
    ) -> None:
        self.stack, self.change_set_type, self.change_set_name = stack, kind, name
        self.stack_id, self.stack_name = stack.stack_id, stack.name
        self.change_set_id = generate_changeset_id(name, stack.backend.region_name, stack.backend.account_id)
        self.template, self.parameters, self.description = template, parameters, description
        self.tags: dict[str, str] | None = None
        self.role_arn: str | None = None
        self.creation_time = utcnow()
        self.changes = list(_changes(stack.contents.template, parse(template)))
        same = kind == "UPDATE" and stack.template == template and stack.given == parameters
        self.status = "FAILED" if same else "CREATE_COMPLETE"
        self.execution_status = "UNAVAILABLE" if same else "AVAILABLE"
        self.status_reason = _NO_CHANGES if same else None

    def answers_to(self, name: str, stack: str | None) -> bool:
        """Whether this change set has that ARN, or that name on that stack.

        The stack is given by its name or its ARN.
        """
        on_stack = stack is None or stack in (self.stack_name, self.stack_id)
        return name == self.change_set_id or (name == self.change_set_name and on_stack)


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    before, after = old["Resources"], new["Resources"]
    for logical_id, declaration in after.items():
        if logical_id not in before:
            yield Change("Add", logical_id, declaration["Type"])
        elif declaration != before[logical_id]:
            yield Change("Modify", logical_id, declaration["Type"])
    yield from (
        Change("Remove", logical_id, before[logical_id]["Type"])
        for logical_id in before
        if logical_id not in after
    )


class _ChangeSetNotFoundError(CloudFormationError):  # type: ignore[misc]
    """The CDK CLI deletes an old change set and waits until it hears this."""

    code = "ChangeSetNotFoundException"


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


def _on_failure() -> str:
    """What the request that this thread answers wants done where the operation fails."""
    chosen, _request.on_failure = getattr(_request, "on_failure", "ROLLBACK"), "ROLLBACK"
    return chosen


class _ResourceAnswer:
    """One resource, in the words of DescribeStackResources."""

    def __init__(self, stack: Stack, resource: Resource) -> None:
        self.stack_id, self.stack_name = stack.stack_id, stack.name
        self.logical_resource_id, self.physical_resource_id = (
            resource.logical_resource_id,
            resource.physical_resource_id,
        )
        self.resource_type, self.resource_status = resource.cf_resource_type, resource.status
        self.timestamp = self.last_updated_timestamp = stack.last_updated_time or stack.creation_time


class Backend(CloudFormationBackend):  # type: ignore[misc]  # moto comes without types here
    """moto's backend with stacks of our own making. Stack sets are not offered."""

    __module__ = (
        CloudFormationBackend.__module__
    )  # moto finds a backend's URLs beside the module of its class

    def create_stack(
        self,
        name: str,
        template: str,
        parameters: dict[str, Any],
        tags: Any = None,
        role_arn: Any = None,
        **more: Any,
    ) -> Stack:
        """CreateStack. A failure is told by the stack's status and events, as AWS tells it."""
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
        """DeleteStack; of a stack that is not there, no error."""
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
            change_set = _ChangeSet(
                stack, change_set_type, change_set_name, template, parameters, description
            )
        except TemplateError as error:
            raise ValidationError(message=str(error)) from None
        change_set.tags, change_set.role_arn = tags, role_arn
        self.change_sets[change_set.change_set_id] = change_set
        return change_set.change_set_id, stack.stack_id

    def describe_change_set(self, change_set_name: str, stack_name: str | None = None) -> _ChangeSet:
        """DescribeChangeSet: by ARN, or by name on one stack; the newest of that name."""
        for change_set in reversed(self.change_sets.values()):
            if change_set.answers_to(change_set_name, stack_name):
                found: _ChangeSet = change_set
                return found
        raise _ChangeSetNotFoundError(f"ChangeSet [{change_set_name}] does not exist")

    def delete_change_set(self, change_set_name: str, stack_name: str | None = None) -> None:
        """DeleteChangeSet; of one that is not there, no error."""
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
            parsed, parameters = self._prepared(template, given)
        except Exception:
            del self.stacks[stack.stack_id]
            raise
        stack.template, stack.given, stack.description = template, given, parsed.get("Description")
        stack.contents = StackResources(parsed, parameters)
        on_failure = _on_failure()
        stack.enter("CREATE_IN_PROGRESS", "User Initiated")
        stack.begin("create", lambda operation: self._carry_out_create(stack, operation, on_failure))

    def _carry_out_create(self, stack: Stack, operation: Operation, on_failure: str) -> None:
        try:
            stack.engine(operation, keep_failed=on_failure == "DO_NOTHING").create(stack.contents)
            stack.settle()
        except OperationFailedError:
            if on_failure == "DELETE" and not operation.abandoned:
                self._delete(stack, operation)
            return
        except TemplateError as error:  # an output that cannot be had fails the stack like a resource
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
        parsed, parameters = self._prepared(template, given)
        keep_failed = _on_failure() == "DO_NOTHING"
        stack.enter("UPDATE_IN_PROGRESS", "User Initiated")
        stack.last_updated_time = utcnow()

        def work(operation: Operation) -> None:
            before = stack.contents.template, stack.contents.parameters
            try:
                stack.engine(operation, keep_failed=keep_failed).update(stack.contents, parsed, parameters)
                stack.settle()
            except OperationFailedError:
                return
            except TemplateError as error:  # an output that cannot be had: back to what was there
                stack.enter("UPDATE_ROLLBACK_IN_PROGRESS", str(error))
                stack.engine(operation).update(stack.contents, *before)
                stack.settle()
                stack.enter("UPDATE_ROLLBACK_COMPLETE")
                return
            stack.template, stack.given, stack.description = template, given, parsed.get("Description")
            stack.enter("UPDATE_COMPLETE")

        stack.begin("update", work)

    def _prepared(self, template: str, given: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The parsed template and its parameters' values. Raises ValidationError."""
        try:
            parsed = parse(template)
            creation_order(parsed["Resources"])  # a circle is the template's fault, before anything is made
        except TemplateError as error:
            raise ValidationError(message=str(error)) from None
        if parsed.get("Transform"):
            raise ValidationError(
                message=f"transforms are not emulated: {parsed['Transform']}; "
                "give the template that the transform makes"
            )
        if unknown := _unrecognized(parsed, self.region_name):
            raise ValidationError(
                message=f"Template format error: Unrecognized resource types: [{', '.join(unknown)}]"
            )
        declared = parsed.get("Parameters", {})
        if extra := sorted(set(given) - set(declared)):
            raise ValidationError(message=f"Parameters: [{', '.join(extra)}] do not exist in the template")
        return parsed, {
            name: self._parameter(name, declaration, given.get(name))
            for name, declaration in declared.items()
        }

    def _parameter(self, name: str, declaration: Mapping[str, Any], given: str | None) -> Any:
        value = declaration.get("Default") if given is None else given
        if value is None:
            raise MissingParameterError(name)
        if "AllowedValues" in declaration and str(value) not in map(str, declaration["AllowedValues"]):
            raise ValidationError(message=f"Parameter '{name}' must be one of AllowedValues")
        kind = declaration["Type"]
        if kind.startswith("AWS::SSM::Parameter::Value"):
            ssm = _client("ssm", self.region_name)
            try:
                value = ssm.get_parameter(Name=value, WithDecryption=True)["Parameter"]["Value"]
            except ssm.exceptions.ParameterNotFound:
                raise ValidationError(
                    message=f"Unable to fetch parameters [{value}] from parameter store for this account."
                ) from None
        if kind == "CommaDelimitedList" or "List<" in kind:
            return [item.strip() for item in str(value).split(",")]
        return value

    def _given(self, stack: Stack, parameters: Any) -> dict[str, str]:
        """The parameters of an UpdateStack call, with previous values filled in."""
        return {
            entry["ParameterKey"]: stack.stack_parameters[entry["ParameterKey"]]
            if entry.get("UsePreviousValue")
            else entry["ParameterValue"]
            for entry in parameters
        }
