"""What every source and target owes: a valid example, a page, words for each field, honest refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelstacks.core.plan import make_plan
from modelstacks.core.plan.features import DESCRIPTIONS, asked, refusals
from modelstacks.core.registry import FEATURES, Source, Target, sources, spec_type, targets
from modelstacks.core.spec.validation import read_spec

DOCS = Path(__file__).parents[2] / "docs"
SOURCES = list(sources().values())
TARGETS = list(targets().values())
DECLARED: list[Source | Target] = [*SOURCES, *TARGETS]


def name_of(declared: Source | Target) -> str:
    return declared.name


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_a_sources_example_is_a_valid_spec_of_that_source(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(source.example)
    assert read_spec(path).model.source == source.name
    assert isinstance(read_spec(path).model, source.spec)


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_a_targets_example_is_a_valid_block_of_that_target(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(
        f"name: churn\nmodel: {{source: artifact, path: models/churn}}\narchitecture: {target.architecture}\n"
        + target.example
        + "\n"
    )
    block = read_spec(path).target(target.architecture)
    assert isinstance(block, target.spec)
    assert block.target == target.name
    assert list(yaml.safe_load(target.example)) == [target.architecture]


@pytest.mark.parametrize("declared", DECLARED, ids=name_of)
def test_it_has_a_page(declared: Source | Target) -> None:
    page = DOCS / ("sources" if isinstance(declared, Source) else "targets") / f"{declared.name}.md"
    assert page.is_file(), f"write {page}"
    assert declared.name in page.read_text().splitlines()[0]


@pytest.mark.parametrize("declared", DECLARED, ids=name_of)
def test_every_field_says_what_it_is_for(declared: Source | Target) -> None:
    silent = [
        name
        for name, field in declared.spec.model_fields.items()
        if not field.description and name not in ("source", "target")
    ]
    assert silent == []


@pytest.mark.parametrize("declared", DECLARED, ids=name_of)
def test_its_file_its_name_and_its_summary_fit_together(declared: Source | Target) -> None:
    module = declared.spec.__module__.rsplit(".", 1)[-1]
    assert declared.name == module.replace("_", "-")
    assert declared.summary
    assert not declared.summary.endswith(".")


@pytest.mark.parametrize("declared", DECLARED, ids=name_of)
def test_a_refusal_says_why_and_what_to_do(declared: Source | Target) -> None:
    for feature, reason in declared.refuses.items():
        assert feature in FEATURES
        assert reason[0].islower()
        assert not reason.endswith(".")
        assert ";" in reason, f"{declared.name}, {feature}: the reason, a semicolon, then what to do instead"


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_every_source_makes_a_plan_on_every_target(
    source: Source, target: Target, tmp_path: Path, lock_of_anything: Any
) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(source.example)
    spec = read_spec(path)
    plan = make_plan(spec, lock_of_anything, "deployments/example.lock.json", target.architecture)
    assert plan.stack_name == f"{spec.name}-{target.architecture}"
    assert json.loads(plan.model_dump_json())["target"]["target"] == target.name
    assert list(refusals(spec, target.architecture, lock_of_anything)) == []


def test_every_feature_is_described_and_can_be_asked_for(lock_of_anything: Any) -> None:
    assert set(DESCRIPTIONS) == set(FEATURES)
    greedy = spec_type().model_validate(
        {
            "name": "churn",
            "model": {"source": "artifact", "path": "models/churn", "trust_code": True},
            "architecture": "self-hosted",
            "api": {"quota": {"requests": 5}},
            "server": {"max_body_bytes": 9_000_000},
            "aws": {"account": "123456789012", "region": "us-east-1", "zones": ["use1-az1", "use1-az3"]},
        }
    )
    found: set[str] = set()
    for task, engine in (("text-generation", "transformers"), ("custom", "script")):
        model = lock_of_anything.model.model_copy(update={"task": task, "engine": engine})
        found |= asked(greedy, lock_of_anything.model_copy(update={"model": model})).keys()
    assert found == set(FEATURES)


def test_a_modest_spec_asks_for_nothing(project: Any) -> None:
    assert asked(read_spec(project.spec())) == {}
