"""The licence of a model: the spec or the model card names it, and where both do, they must agree."""

from __future__ import annotations

import re
from typing import Literal

from modelstacks.core.errors import UsageError

__all__ = ["card_license", "settle"]

# Words of model cards that name no licence.
_SAYS_NOTHING = {"other", "unknown", "none", "unlicensed", ""}
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)
_LICENSE = re.compile(r"^license:[ \t]*['\"]?([A-Za-z0-9.+-]+)['\"]?[ \t]*(?:#.*)?$", re.MULTILINE)


def card_license(readme: str) -> str | None:
    """The `license` in a model card's YAML front matter, or None where there is none."""
    front_matter = _FRONT_MATTER.search(readme)
    found = _LICENSE.search(front_matter.group(1)) if front_matter else None
    return found.group(1) if found else None


def settle(spec: str | None, card: str | None) -> tuple[str, Literal["spec", "model card"]]:
    """The licence, and whose word it is.

    Raises:
        UsageError: neither the spec nor the card names a licence, or they name two.
    """
    if card is not None and card.lower() in _SAYS_NOTHING:
        card = None
    if spec is None and card is None:
        raise UsageError(
            "model.license: neither the spec nor a model card names the licence of the model",
            allowed="an SPDX identifier, or LicenseRef-NAME for one of your own",
            fix="read the model's terms and write the identifier into the spec, such as license: Apache-2.0",
        )
    if spec is None:
        assert card is not None
        return card, "model card"
    if card is not None and card.lower() != spec.lower():
        raise UsageError(
            f"model.license: the spec says {spec}, the model card says {card}",
            fix="find out which is right, and correct the spec's model.license",
        )
    return spec, "spec"
