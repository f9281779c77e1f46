"""A checkout that this user cannot write to: one message, exit code 4, no traceback."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import ROOT, FakeCdk

DROP_FROM_BOUNDING_SET, OVERRIDE_PERMISSIONS = 24, 1  # of Linux: PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def heed_permissions() -> None:
    """Take from root, in a child before it becomes another program, what lets it write anywhere."""
    if os.getuid() == 0 and sys.platform == "linux":
        ctypes.CDLL(None).prctl(DROP_FROM_BOUNDING_SET, OVERRIDE_PERMISSIONS)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_refused_write_is_one_message_and_exit_code_4(cli, cdk: FakeCdk, number: int) -> None:
    cdk.fails["synth"] = OSError(number, os.strerror(number), "/project/.modelstacks/cdk.out")
    ran = cli("up")
    assert ran.code == 4
    assert (
        f"this user cannot open or write /project/.modelstacks/cdk.out: {os.strerror(number).lower()}; "
        "fix: run the command in a copy of the project that this user can write to"
    ) in ran.err


@pytest.fixture
def checkout(project: Path) -> Iterator[Path]:
    """A project that nobody may write to, as it was cloned."""
    shutil.rmtree(project / ".modelstacks")
    folders = [project, *(path for path in project.rglob("*") if path.is_dir())]
    for one in folders:
        one.chmod(0o555)
    yield project
    for one in folders:
        one.chmod(0o755)


@pytest.mark.parametrize(
    ("words", "code"), [(["up"], 4), (["lock", "deployments/churn.yaml"], 4), (["status"], 0), (["down"], 0)]
)
def test_a_read_only_checkout(checkout: Path, words: list[str], code: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "modelstacks", *words],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=heed_permissions,
    )
    assert ran.returncode == code, ran.stderr
    if code:
        assert len(ran.stderr.splitlines()) <= 3, ran.stderr
        assert "permission denied" in ran.stderr.lower()
        assert "unexpected" not in ran.stderr
