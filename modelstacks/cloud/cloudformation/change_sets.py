"""Change sets: what an update would change; nothing is changed until one is executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from moto.cloudformation.exceptions import CloudFormationError
from moto.cloudformation.models import Change
from moto.cloudformation.utils import generate_changeset_id
from moto.core.utils import utcnow

from modelstacks.cloud.cloudformation.stack import Stack
from modelstacks.cloud.cloudformation.template import parse

__all__ = ["ChangeSet", "ChangeSetNotFoundError"]

_NO_CHANGES = (
    "The submitted information didn't contain changes. Submit different information to create a change set."
)


class ChangeSet:
    """One change set."""

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


class ChangeSetNotFoundError(CloudFormationError):  # type: ignore[misc]
    """The CDK CLI deletes an old change set and waits until it hears this."""

    code = "ChangeSetNotFoundException"
