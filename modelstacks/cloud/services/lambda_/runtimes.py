"""The days on which Lambda's runtimes are deprecated, as cfn-lint's data states them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache

from modelstacks.cloud.cloudformation.schemas import folder

__all__ = ["lambda_runtimes"]


@cache
def lambda_runtimes() -> Mapping[str, Mapping[str, str | None]]:
    """Lambda runtime -> the days (YYYY-MM-DD) on which it is deprecated and its creation and update blocked.

    cfn-lint copies the table of Lambda's developer guide: "deprecated", "create-block", "update-block" and
    "successor".
    """
    text = (folder().parent / "AdditionalSpecs" / "LmbdRuntimeLifecycle.json").read_text()
    table: dict[str, dict[str, str | None]] = json.loads(text)
    return table
