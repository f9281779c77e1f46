"""One control plane for all the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.control_plane import Account

from modelstacks.cloud.control_plane.process import ControlPlane, start


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with start(log=tmp_path_factory.mktemp("control-plane") / "log") as running:
        yield running


@pytest.fixture
def account(plane: ControlPlane) -> Iterator[Account]:
    """An account; whatever a test leaves standing is deleted after it."""
    account = Account(plane.endpoint)
    yield account
    for name in reversed(account.stacks):
        account.client("cloudformation").delete_stack(StackName=name)
