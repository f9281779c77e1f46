"""Invocations are split between production variants in proportion to their weights."""

from __future__ import annotations

from collections import Counter

from modelstacks.cloud.services.sagemaker.runtime import _by_weight


def test_in_proportion() -> None:
    seen = Counter(_by_weight({"new": 1.0, "old": 9.0}) for _ in range(2_000))
    assert 0 < seen["new"] < seen["old"]


def test_none_to_a_variant_without_weight() -> None:
    assert {_by_weight({"new": 0.0, "old": 1.0}) for _ in range(200)} == {"old"}


def test_all_to_the_only_variant_whatever_its_weight() -> None:
    assert _by_weight({"only": 0.0}) == "only"
