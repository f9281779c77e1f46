"""What the CDK CLI prints, as data: events of CloudFormation resources, and the reason of a failure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from modelstacks.core.errors import DeploymentFailed, ModelstacksError

__all__ = ["ASSET", "ResourceEvent", "failure", "resource_event"]

#: One line of `--progress events`: stack | 3/42 | time | STATUS | AWS::Type | logical id and reason.
_EVENT = re.compile(
    r"^(?P<stack>\S+) \|\s*(?:(?P<done>\d+)(?:/(?P<total>\d+))? \| )?[\d: APM]+ "
    r"\| (?P<status>[A-Z_]+)\s*\| (?P<type>\S+)\s*\| (?P<rest>.*)$"
)
_LOGICAL_ID = re.compile(r"^(?P<path>\S+)(?: \((?P<id>\w+)\))?\s*(?P<reason>.*)$")
ASSET = re.compile(r"^(?P<stack>\S+): (?P<step>start|success|fail): (?P<what>.*)$")
#: Where a Node program's reason ends and its stack trace begins.
_STACK_TRACE = re.compile(r"at .*:\d+:\d+\)?( \{)?$")
#: Reasons that only say that something else failed first.
_CONSEQUENCE = re.compile(r"cancelled|The following resource\(s\) failed", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ResourceEvent:
    """One event of a resource. `done` of `total` resources are finished, if the CLI counts them."""

    stack: str
    status: str  # CREATE_IN_PROGRESS, UPDATE_COMPLETE ...
    type: str  # AWS::ECS::Service
    logical_id: str
    reason: str = ""
    done: int | None = None
    total: int | None = None

    @property
    def failed(self) -> bool:
        """Whether this failure is not the consequence of another one."""
        return self.status.endswith("_FAILED") and not _CONSEQUENCE.search(self.reason)

    def __str__(self) -> str:
        count = f" {self.done}/{self.total}" if self.total else ""
        status = self.status.lower().replace("_", " ")
        return f"{self.stack}{count} {status} {self.type} {self.logical_id}".strip()


def resource_event(line: str) -> ResourceEvent | None:
    """Return the event in a line of `--progress events`, or None for any other line."""
    found = _EVENT.match(line)
    if not found:
        return None
    named = _LOGICAL_ID.match(found["rest"])
    return ResourceEvent(
        stack=found["stack"],
        status=found["status"],
        type=found["type"],
        logical_id=(named["id"] or named["path"]) if named else "",
        reason=named["reason"] if named else "",
        done=int(found["done"]) if found["done"] else None,
        total=int(found["total"]) if found["total"] else None,
    )


def failure(what: str, code: int, failures: Sequence[str], lines: Sequence[str]) -> ModelstacksError:
    """Return an error with CloudFormation's reason, else with the CLI's last lines."""
    if failures:
        return DeploymentFailed(f"{what} failed: {failures[0]}")
    said = [line.strip() for line in lines if line.strip() and not resource_event(line)]
    start = next((index for index, line in enumerate(said) if line.startswith("❌")), max(len(said) - 12, 0))
    told = takewhile(lambda line: not _STACK_TRACE.match(line), said[start:])
    words = "\n".join(told).removeprefix("❌").strip() or "it gave no reason"
    return DeploymentFailed(f"{what} ended with exit code {code}: {words}")
