"""How the tests are shared out among processes (`pytest -n 2 --dist=loadscope`)."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Folders whose tests lean on one costly thing: a synthesized assembly, an account, a deployed cloud.
TOGETHER = ("tests/e2e/", "tests/stacks/", "tests/wheel/", "tests/cloud/deployed/")


class TogetherScheduling(LoadScopeScheduling):
    """One process for a folder of these, and for any other file: its tests share what is made for them."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)


DEPLOYED_SECONDS = 900  # the first test of a module waits until everything is deployed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """End-to-end tests may take as long as the deployment before them, on a machine that is busy."""
    for item in items:
        if item.get_closest_marker("e2e") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(DEPLOYED_SECONDS))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """xdist asks for a scheduler once, in the process that hands the tests out."""
    return TogetherScheduling(config, log)
