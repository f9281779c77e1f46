"""Refusals: a combination is refused when all of the parts that it names apply, and only then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.plans import make_lock
from support.project import Project

from modelstacks.core.lock import Lock
from modelstacks.core.plan.features import refused
from modelstacks.core.registry import Refusal, default_target, sources
from modelstacks.core.spec.validation import read_spec

SOURCE = sources()["artifact"]
TARGET = default_target("self-hosted")
REASON = "a test refuses it; try something else"
QUOTA = "architecture: self-hosted\napi: {quota: {requests: 5}}\n"
PLAIN = "architecture: self-hosted\n"


def told(
    project: Project, refusal: Refusal, *, rest: str = PLAIN, lock: Lock | None = None, by: str = "target"
) -> list[tuple[str, str]]:
    """What a spec is told when the target, or the source, refuses this."""
    spec = read_spec(Path(project.spec(rest=rest)))
    source = replace(SOURCE, refuses=(refusal,) if by == "source" else ())
    target = replace(TARGET, refuses=(refusal,) if by == "target" else ())
    return list(refused(source, target, spec, lock))


def test_a_feature_is_refused_where_it_is_asked_for(project: Project) -> None:
    refusal = Refusal(REASON, feature="quota")
    assert told(project, refusal, rest=QUOTA) == [
        ("api.quota", f"ecs-fargate does not support api.quota: {REASON}")
    ]
    assert told(project, refusal) == []


def test_a_source_can_refuse_too(project: Project) -> None:
    refusal = Refusal(REASON, feature="quota", target="ecs-fargate")
    assert told(project, refusal, rest=QUOTA, by="source") == [
        ("api.quota", f"artifact does not support api.quota with target: ecs-fargate: {REASON}")
    ]
    assert told(project, replace(refusal, target="other"), rest=QUOTA, by="source") == []


def test_a_contract_is_refused_once_the_lock_says_that_the_model_has_it(project: Project) -> None:
    refusal = Refusal(REASON, contract="predictive")
    assert told(project, refusal) == []
    assert told(project, refusal, lock=make_lock()) == [
        ("model", f"ecs-fargate does not support the predictive routes: {REASON}")
    ]
    assert told(project, replace(refusal, contract="generative"), lock=make_lock()) == []


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(REASON, feature="quota", contract="predictive"),
        Refusal(REASON, feature="quota", source_kind="artifact"),
        Refusal(REASON, feature="quota", contract="predictive", source="artifact", source_kind="artifact"),
    ],
)
def test_all_of_its_parts_have_to_apply(project: Project, refusal: Refusal) -> None:
    assert len(told(project, refusal, rest=QUOTA, lock=make_lock())) == 1
    assert told(project, refusal, lock=make_lock()) == []
    assert told(project, replace(refusal, source_kind="remote"), rest=QUOTA, lock=make_lock()) == []
    assert told(project, replace(refusal, source="huggingface"), rest=QUOTA, lock=make_lock()) == []


def test_a_kind_of_model_is_refused_at_the_field_that_chooses_it(project: Project) -> None:
    assert told(project, Refusal(REASON, source_kind="artifact")) == [
        ("model.source", f"ecs-fargate does not support a model made of files: {REASON}")
    ]
