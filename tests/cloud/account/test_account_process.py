"""The control plane's process: it starts, answers, stops, and says what keeps it from starting."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from modelstacks.cloud.account.client import Connection
from modelstacks.cloud.account.process import start
from modelstacks.core.errors import EnvironmentFault


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def test_a_socket_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="the control plane's socket cannot be made; got "):
        start(tmp_path / "missing", log=tmp_path / "log")


def test_it_starts_answers_and_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    with start(folder, log=tmp_path / "log") as plane:
        assert plane.connection.unemulated("us-east-1") == []
        assert os.getpgid(plane.pid) == plane.pid
    assert not psutil.pid_exists(plane.pid)
    assert (tmp_path / "log").read_text() == ""
    assert list(folder.iterdir()) == []
    with pytest.raises(EnvironmentFault, match="the control plane does not answer"):
        Connection(plane.socket).unemulated("us-east-1")


def test_it_listens_on_no_port_and_its_socket_is_for_its_user_alone(folder: Path, tmp_path: Path) -> None:
    with start(folder, log=tmp_path / "log") as plane:
        assert psutil.Process(plane.pid).net_connections("inet") == []
        assert stat.S_IMODE(plane.socket.stat().st_mode) == 0o600


def test_it_starts_behind_a_proxy_that_answers_nobody(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with start(folder, log=tmp_path / "log", timeout=60) as plane:
        assert plane.alive()


def test_motos_own_interface_is_switched_off(folder: Path, tmp_path: Path) -> None:
    with start(folder, log=tmp_path / "log") as plane:
        for path in ("/moto-api/data.json", "/moto-api/", "/latest/meta-data/iam/", "/favicon.ico"):
            with pytest.raises(EnvironmentFault, match="the control plane does not answer"):
                plane.connection.ask(path)


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is told to its children on Linux only")
def test_it_dies_with_its_parent(folder: Path, tmp_path: Path) -> None:
    program = (
        "import signal; from pathlib import Path; "
        "from modelstacks.cloud.account.process import start; "
        f"print(start(Path({str(folder)!r}), log=Path({str(tmp_path / 'log')!r})).pid, flush=True); "
        "signal.pause()"
    )
    root = Path(__file__).parents[3]
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert wait_until_gone(pid)
