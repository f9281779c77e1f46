"""What every source and target owes: a valid example, a page, words for each field, honest refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from modelstacks.core.contract import groups
from modelstacks.core.errors import SpecInvalid
from modelstacks.core.lock import Lock
from modelstacks.core.model import MODEL_KINDS, RemoteModel, VendorImage
from modelstacks.core.plan import Plan, make_plan
from modelstacks.core.plan.capacity import capacity
from modelstacks.core.plan.features import FEATURES, Feature, asked, refusals
from modelstacks.core.plan.outputs import outputs
from modelstacks.core.registry import Refusal, Source, Target, default_target, sources, spec_type, targets
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
def test_a_targets_example_is_a_valid_block_of_that_target(target: Target) -> None:
    example = yaml.safe_load(target.example)
    assert list(example) == [target.architecture]
    model = {"source": "artifact", "path": "models/churn"}
    spec = {"name": "churn", "model": model, "architecture": target.architecture, **example}
    block = spec_type().model_validate(spec).target(target.architecture)
    assert isinstance(block, target.spec)
    assert block.target == target.name


@pytest.mark.parametrize("declared", DECLARED, ids=name_of)
def test_it_has_a_page(declared: Source | Target) -> None:
    page = DOCS / ("sources" if isinstance(declared, Source) else "targets") / f"{declared.name}.md"
    assert page.is_file(), f"write {page}"
    assert declared.name in page.read_text().splitlines()[0]


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_the_page_of_a_target_names_its_fields_and_outputs(target: Target) -> None:
    page = (DOCS / "targets" / f"{target.name}.md").read_text()
    named = [*target.spec.model_fields, *target.outputs]
    assert [name for name in named if name != "target" and f"`{name}`" not in page] == []


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
def test_a_refusal_says_what_why_and_what_to_do(declared: Source | Target) -> None:
    for refusal in declared.refuses:
        parts = {
            "feature": (refusal.feature, FEATURES),
            "contract": (refusal.contract, groups()),
            "source_kind": (refusal.source_kind, MODEL_KINDS),
            "source": (refusal.source, sources()),
            "target": (refusal.target, targets()),
        }
        assert any(given for given, _ in parts.values()), f"{refusal} would refuse everything"
        assert all(not given or given in known for given, known in parts.values()), refusal
        assert refusal.reason[0].islower()
        assert not refusal.reason.endswith(".")
        assert ";" in refusal.reason, f"{refusal}: the reason, a semicolon, then what to do instead"


@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_every_default_of_a_target_has_its_reason(target: Target) -> None:
    fields = target.spec.model_fields.items()
    assert set(target.reasons) == {
        name for name, field in fields if name != "target" and not field.is_required()
    }
    assert all(why[0].isupper() or why[0].isdigit() for why in target.reasons.values())
    assert all(why.endswith(".") for why in target.reasons.values())


@pytest.mark.parametrize("architecture", ["self-hosted", "managed"])
def test_one_target_of_each_architecture_is_the_default(architecture: Any, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f"name: churn\nmodel: {{source: artifact, path: models}}\narchitecture: {architecture}\n")
    assert read_spec(path).target(architecture) == default_target(architecture).spec()


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_every_source_makes_a_plan_on_every_target_that_does_not_refuse_it(
    source: Source, target: Target, tmp_path: Path, lock_of_anything: Lock
) -> None:
    path = tmp_path / "example.yaml"
    example = yaml.safe_load(source.example) | {"architecture": target.architecture}
    path.write_text(json.dumps(example | yaml.safe_load(target.example)))  # JSON is YAML
    lock = lock_of_anything if source.kind == "artifact" else REMOTE
    refused = {r.reason for one in (source, target) for r in one.refuses if is_about(r, source, target)}
    if any(refusal.source_kind == source.kind for refusal in target.refuses):
        with pytest.raises(SpecInvalid, match="does not support a model"):
            read_spec(path)
        return
    spec = read_spec(path)
    plan = make_plan(spec, lock, "deployments/example.lock.json", target.architecture)
    assert plan.stack_name == f"{spec.name}-{target.architecture}"
    assert json.loads(plan.model_dump_json())["target"]["target"] == target.name
    assert all(0 <= unit.least <= unit.most <= unit.peak for unit in capacity(plan))
    assert {"ApiUrl", "ApiId", "ApiKeyId", *target.outputs} == {*outputs(plan)}
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    found = list(refusals(spec, target.architecture, lock))
    assert len(found) == len(refused)
    assert all(message.endswith(tuple(refused)) for _, message in found)


def is_about(refusal: Refusal, source: Source, target: Target) -> bool:
    """Whether it refuses these two whatever is asked for."""
    return (
        not refusal.feature
        and not refusal.contract
        and refusal.source_kind in ("", source.kind)
        and refusal.source in ("", source.name)
        and refusal.target in ("", target.name)
    )


REMOTE = Lock(
    spec="example.yaml",
    model_digest="0" * 64,
    model=RemoteModel(
        source="provider",
        provider="example",
        model_id="small-1",
        task="classification",
        contracts=("predictive",),
    ),
)


def test_every_feature_can_be_asked_for(lock_of_anything: Lock) -> None:
    greedy = spec_type().model_validate(
        {
            "name": "churn",
            "model": {"source": "artifact", "path": "models/churn", "trust_code": True},
            "architecture": "self-hosted",
            "api": {"quota": {"requests": 5}},
            "server": {"max_body_bytes": 9_000_000},
            "scaling": {"min_replicas": 0},
            "aws": {"account": "123456789012", "region": "us-east-1", "zones": ["use1-az1", "use1-az3"]},
        }
    )
    vendor = VendorImage(name="server 1", uris={"us-east-1": "1.dkr.ecr/server:1"})
    found: set[str] = set()
    for changes in (
        {"task": "text-generation"},
        {"engine": "script"},
        {"engine": "server", "image": vendor},
    ):
        model = lock_of_anything.model.model_copy(update=changes)
        found |= {one.name for one in asked(greedy, lock_of_anything.model_copy(update={"model": model}))}
    assert found == set(FEATURES)


@pytest.mark.parametrize("feature", FEATURES.values(), ids=lambda feature: feature.name)
def test_the_field_that_asks_for_a_feature_is_one_of_the_spec(feature: Feature) -> None:
    block: Any = spec_type()
    for key in feature.field.split("."):
        block = block.model_fields[key].annotation
        block = next((one for one in (*get_args(block), block) if hasattr(one, "model_fields")), None)


def test_a_modest_spec_asks_for_nothing(project: Any) -> None:
    assert asked(read_spec(project.spec())) == []
