"""How the tests are shared out among processes (`pytest -n 2 --dist=loadscope`)."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Folders whose tests lean on one costly thing: a synthesized assembly, an account, a deployed cloud.
TOGETHER = ("tests/e2e/", "tests/stacks/", "tests/cloud/data_plane/")


class TogetherScheduling(LoadScopeScheduling):
    """One process for a folder of these, and for any other file: its tests share what is made for them."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """xdist asks for a scheduler once, in the process that hands the tests out."""
    return TogetherScheduling(config, log)
