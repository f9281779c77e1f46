"""One stack as moto's answers describe it, and the operation that is under way on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from moto.cloudformation.models import Event
from moto.cloudformation.parsing import Export
from moto.cloudformation.utils import generate_stack_id
from moto.core.utils import utcnow

from modelstacks.cloud.cloudformation.engine import Engine
from modelstacks.cloud.cloudformation.environment import StackEnvironment
from modelstacks.cloud.cloudformation.operations import Operation
from modelstacks.cloud.cloudformation.schedule import Unhurried
from modelstacks.cloud.cloudformation.scope import Resource, StackResources
from modelstacks.cloud.cloudformation.template import TemplateError, resolve

__all__ = ["Stack"]


class Stack:
    """One stack. Its attributes have the names that moto's answers read: stack_id, stack_name, outputs."""

    def __init__(self, backend: Any, name: str, tags: Mapping[str, str] | None, role_arn: str | None) -> None:
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
            StackEnvironment(self.backend), self.name, self.stack_id, self._record, enter, pace, keep_failed
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
