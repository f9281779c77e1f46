"""One account's server for all the tests of types, patches and stacks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.control_plane import Account

from modelstacks.cloud.account.process import ControlPlane, start


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    log = tmp_path_factory.mktemp("control-plane") / "log"
    # Not in pytest's folder: the path of a socket has some 100 bytes at most.
    with tempfile.TemporaryDirectory() as sockets, start(Path(sockets), log=log) as running:
        yield running


@pytest.fixture(scope="session")
def whole_account(plane: ControlPlane) -> Account:
    """One account for the session, because boto3's clients take long to make."""
    return Account(plane.connection)


@pytest.fixture
def account(whole_account: Account) -> Iterator[Account]:
    """An account whose stacks are deleted after each test."""
    yield whole_account
    for name in reversed(whole_account.stacks):
        whole_account.client("cloudformation").delete_stack(StackName=name)
    whole_account.stacks.clear()
