"""Services refuse what breaks their rules; only the resource and what it refers to are deployed."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mutation.edits import Document, Mutant
from mutation.service_rules import MUTANTS
from support.cdk import CONTEXT, Template, use_own_node
from support.control_plane import Account
from support.plans import make

from modelstacks.cloud.account.process import start

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    use_own_node()
    from modelstacks.cdk.synth import synthesize

    directory = tmp_path_factory.mktemp("cdk.out")
    synthesize([make("self-hosted"), make("managed")], outdir=str(directory), context=CONTEXT)
    return {name: Template.read(directory, f"churn-{name}").document for name in ("self-hosted", "managed")}


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    log = tmp_path_factory.mktemp("control-plane") / "log"
    with tempfile.TemporaryDirectory() as sockets, start(Path(sockets), log=log) as running:
        yield Account(running.connection)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_the_service_refuses_the_fault(
    mutant: Mutant, templates: dict[str, Document], account: Account
) -> None:
    resources = needed(mutant.applied_to(templates[mutant.architecture]), mutant.caught_by)
    reasons = account.refuse(f"mutant-{next(_numbers)}", resources)
    assert any(mutant.reason in one for one in reasons.values()), reasons


def needed(template: Document, what: str) -> Document:
    """The first resource of a type, in the order of the edits, and what it refers to, directly or not."""
    kind, _, text = what.partition(" ")
    resources = template["Resources"]
    wanted = [min(n for n, one in resources.items() if one["Type"] == kind and text in json.dumps(one))]
    found: Document = {}
    while wanted:
        name = wanted.pop()
        if name in resources and name not in found:
            found[name] = resources[name]
            wanted += references(resources[name])
    return found


def references(value: Any) -> list[str]:
    """The names in Ref, Fn::GetAtt, Fn::Sub and DependsOn, at any depth."""
    if isinstance(value, list):
        return [name for each in value for name in references(each)]
    if not isinstance(value, dict):
        return []
    names = [value["Ref"]] if isinstance(value.get("Ref"), str) else []
    names += value.get("DependsOn", [])
    if "Fn::GetAtt" in value:
        names.append(value["Fn::GetAtt"][0])
    if isinstance(value.get("Fn::Sub"), str):
        names += re.findall(r"\$\{(\w+)", value["Fn::Sub"])
    return names + [name for each in value.values() for name in references(each)]
