"""How the tests are shared out among processes (`pytest -n 2 --dist loadgroup`)."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Folders whose tests lean on one costly thing: a synthesized assembly, an account, a deployed cloud.
TOGETHER = ("e2e", "stacks", "cloud/data_plane")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of one file, or of one such folder, in one process: they share what is made for them."""
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        path = item.path.relative_to(TESTS).as_posix()
        group = next((folder for folder in TOGETHER if path.startswith(f"{folder}/")), path)
        item.add_marker(pytest.mark.xdist_group(group))
