"""Writes the pages that are made from declarations: the spec's JSON Schema and the table of features.

python -m modelstacks.core.reference [DOCS_FOLDER]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from modelstacks.core.plan.features import features_page
from modelstacks.core.spec.validation import json_schema

__all__ = ["pages", "write"]


def pages() -> Mapping[str, str]:
    """Path below docs/ -> content."""
    return {
        "schema/spec.schema.json": json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n",
        "features.md": features_page(),
    }


def write(docs: Path) -> None:
    """Write every page."""
    for path, content in pages().items():
        (docs / path).parent.mkdir(parents=True, exist_ok=True)
        (docs / path).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
