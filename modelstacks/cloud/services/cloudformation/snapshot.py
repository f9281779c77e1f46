"""CloudFormation as it is read back: stacks, and which resource belongs to which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelstacks.cloud.clients import Clients
from modelstacks.cloud.snapshot import Snapshot, each

__all__ = ["CloudFormationSnapshot", "StackMember", "StackRecord"]


@dataclass(frozen=True, slots=True)
class StackRecord:
    name: str
    status: str
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StackMember:
    """A resource of a stack."""

    stack: str
    logical_id: str
    type: str


@dataclass(frozen=True)
class CloudFormationSnapshot(Snapshot):
    """The stacks of the account."""

    stacks: tuple[StackRecord, ...] = ()
    members: Mapping[str, StackMember] = field(default_factory=dict)  # by physical id

    @classmethod
    def read(cls, clients: Clients) -> CloudFormationSnapshot:
        """Read every stack that is not deleted, with the resources that it made."""
        return cls(*_stacks(clients))

    def owner(self, *physical_ids: str) -> str | None:
        """The stack that made a resource, looked up by any of its names."""
        return next((self.members[one].stack for one in physical_ids if one in self.members), None)

    def unfinished(self, *physical_ids: str) -> bool:
        """Whether the stack that a resource belongs to is still being created or updated."""
        stack = self.owner(*physical_ids)
        return any(one.name == stack and one.status.endswith("_IN_PROGRESS") for one in self.stacks)


def _stacks(clients: Clients) -> tuple[tuple[StackRecord, ...], dict[str, StackMember]]:
    found = [
        stack
        for stack in clients.pages("cloudformation", "describe_stacks", "Stacks")
        if not stack["StackStatus"].startswith("DELETE")
    ]
    records = tuple(
        StackRecord(
            stack["StackName"],
            stack["StackStatus"],
            {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])},
        )
        for stack in found
    )
    client = clients.client("cloudformation")

    def members(record: StackRecord) -> dict[str, StackMember]:
        resources = client.describe_stack_resources(StackName=record.name)["StackResources"]
        return {
            item["PhysicalResourceId"]: StackMember(
                record.name, item["LogicalResourceId"], item["ResourceType"]
            )
            for item in resources
            if item.get("PhysicalResourceId")
        }

    found_members: dict[str, StackMember] = {}
    for part in each(members, records):
        found_members |= part
    return records, found_members
