"""Every fault in the corpus is caught by the rule that it breaks, and the reason is named."""

from __future__ import annotations

from collections import Counter

import pytest
from mutation import functional, hardening, reliability, run_time
from mutation.creation import violations
from mutation.edits import Document, Mutant
from mutation.invariants import RULES, Stack
from support.cdk import CONTEXT, Template, use_own_node
from support.plans import make

FAMILIES = {family.__name__.split(".")[-1]: family.MUTANTS for family in (functional, hardening, reliability)}
MUTANTS = [mutant for family in FAMILIES.values() for mutant in family]
ARCHITECTURES = ("self-hosted", "managed")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    """Both templates as the stacks make them today."""
    use_own_node()
    from modelstacks.cdk.synth import synthesize

    directory = tmp_path_factory.mktemp("cdk.out")
    synthesize([make("self-hosted"), make("managed")], outdir=str(directory), context=CONTEXT)
    return {name: Template.read(directory, f"churn-{name}").document for name in ARCHITECTURES}


def caught(mutant: Mutant, templates: dict[str, Document]) -> list[str]:
    """What the mutant's detector says of it."""
    template = templates[mutant.architecture]
    mutated = mutant.applied_to(template)
    if mutant.caught_by == "creation":
        return sorted(violations(mutated) - violations(template))
    return list(RULES[mutant.caught_by](Stack(mutated)))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_the_fault_is_caught_and_its_reason_named(mutant: Mutant, templates: dict[str, Document]) -> None:
    found = caught(mutant, templates)
    assert any(mutant.reason in line for line in found), found


@pytest.mark.parametrize("mutant", [*MUTANTS, *run_time.MUTANTS], ids=lambda mutant: mutant.id)
def test_the_fault_is_a_change(mutant: Mutant, templates: dict[str, Document]) -> None:
    template = templates[mutant.architecture]
    assert mutant.applied_to(template) != template


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_right_template_breaks_no_rule(architecture: str, templates: dict[str, Document]) -> None:
    stack = Stack(templates[architecture])
    assert {name: found for name, rule in RULES.items() if (found := list(rule(stack)))} == {}


def test_every_rule_catches_something() -> None:
    assert set(RULES) - {mutant.caught_by for mutant in MUTANTS} == set()


def test_the_corpus_is_large_and_even() -> None:
    assert [name for name, count in Counter(mutant.id for mutant in MUTANTS).items() if count > 1] == []
    assert {name: len(family) for name, family in FAMILIES.items() if len(family) < 30} == {}
    assert len(MUTANTS) >= 100
