"""One change to a template: the smallest fault that a careless edit of the stacks could make."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]
Architecture = str


@dataclass(frozen=True)
class Mutant:
    """A fault, and the rule that has to catch it.

    `caught_by` is the name of an invariant, or "creation" where CloudFormation refuses the resource itself;
    `reason` occurs in what it says.
    """

    id: str
    architecture: Architecture
    change: Callable[[Document], None]
    caught_by: str
    reason: str

    def applied_to(self, template: Document) -> Document:
        mutated = copy.deepcopy(template)
        self.change(mutated)
        return mutated


def _found(template: Document, kind: str, where: str) -> tuple[str, Document]:
    """The first resource of a type whose text, or logical id, holds `where`."""
    for name, resource in sorted(template["Resources"].items()):
        if resource["Type"] == kind and where in name + json.dumps(resource):
            return name, resource
    raise LookupError(f"no {kind} with {where!r}")


def _walk(value: Any, step: str) -> Any:
    """One step of a path: a key, an index, or `Key=NAME` for an entry of a list of keys and values."""
    if isinstance(value, list):
        if "=" in step:
            key, _, wanted = step.partition("=")
            return next(i for i, item in enumerate(value) if item.get(key) == wanted)
        return int(step)
    return step


def _parent(resource: Document, path: str) -> tuple[Any, Any]:
    *steps, last = path.split("/")
    value: Any = resource
    for step in steps:
        value = value[_walk(value, step)]
    return value, _walk(value, last)


def put(kind: str, path: str, value: Any, where: str = "") -> Callable[[Document], None]:
    """Set what a path of a resource holds."""

    def change(template: Document) -> None:
        parent, last = _parent(_found(template, kind, where)[1], path)
        parent[last] = value

    return change


def drop(kind: str, path: str, where: str = "") -> Callable[[Document], None]:
    """Leave out what a path of a resource holds."""

    def change(template: Document) -> None:
        parent, last = _parent(_found(template, kind, where)[1], path)
        del parent[last]

    return change


def remove(kind: str, where: str = "") -> Callable[[Document], None]:
    """Leave out a resource, and every DependsOn on it."""

    def change(template: Document) -> None:
        name, _ = _found(template, kind, where)
        del template["Resources"][name]
        for resource in template["Resources"].values():
            if name in resource.get("DependsOn", []):
                resource["DependsOn"].remove(name)

    return change


def move_policy(where: str, to: str) -> Callable[[Document], None]:
    """Move the first inline policy of the role with this text to the role whose id begins with `to`."""

    def change(template: Document) -> None:
        _, source = _found(template, "AWS::IAM::Role", where)
        _, target = _found(template, "AWS::IAM::Role", to)
        moved = source["Properties"]["Policies"].pop(0)
        target["Properties"].setdefault("Policies", []).append(moved)

    return change


def add(kind: str, properties: Document) -> Callable[[Document], None]:
    """One more resource."""
    return lambda template: template["Resources"].update({"Added": {"Type": kind, "Properties": properties}})


def append(kind: str, path: str, value: Any, where: str = "") -> Callable[[Document], None]:
    """One more entry of a list."""

    def change(template: Document) -> None:
        parent, last = _parent(_found(template, kind, where)[1], path)
        parent[last].append(value)

    return change
