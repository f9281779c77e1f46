"""Licences: the spec and the model card must agree, and one of them must speak."""

from __future__ import annotations

import pytest

from modelstacks.core.errors import UsageError
from modelstacks.core.lock.licences import card_license, settle


@pytest.mark.parametrize(
    ("spec", "card", "settled"),
    [
        ("MIT", None, ("MIT", "spec")),
        (None, "apache-2.0", ("apache-2.0", "model card")),
        ("Apache-2.0", "apache-2.0", ("Apache-2.0", "spec")),
        ("LicenseRef-ours", "other", ("LicenseRef-ours", "spec")),
    ],
)
def test_a_licence_is_settled(spec: str | None, card: str | None, settled: tuple[str, str]) -> None:
    assert settle(spec, card) == settled


@pytest.mark.parametrize("card", [None, "other", "unknown"])
def test_a_model_without_a_licence_is_refused(card: str | None) -> None:
    with pytest.raises(
        UsageError, match=r"neither the spec nor a model card names .*fix: read the model's terms"
    ):
        settle(None, card)


def test_two_licences_are_refused() -> None:
    with pytest.raises(UsageError, match=r"the spec says MIT, the model card says gpl-3.0"):
        settle("MIT", "gpl-3.0")


@pytest.mark.parametrize(
    ("readme", "license"),
    [
        ("---\nlicense: mit\ntags: [a]\n---\n# Model\n", "mit"),
        ("---\r\nlicense: 'apache-2.0'  # see LICENSE\r\n---\r\n", "apache-2.0"),
        ("---\ntags: [a]\n---\nlicense: mit\n", None),
        ("# Model\nlicense: mit\n", None),
        ("---\nmodel-license: mit\n---\n", None),
        ("", None),
    ],
)
def test_a_model_card_states_its_licence_in_its_front_matter(readme: str, license: str | None) -> None:
    assert card_license(readme) == license
