"""The control plane's process: it starts, answers, stops, and says what keeps it from starting."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from modelstacks.cloud.control_plane.client import unemulated
from modelstacks.cloud.control_plane.process import start
from modelstacks.core.errors import EnvironmentFault


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_a_taken_port_is_one_clear_error(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("localhost", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(EnvironmentFault, match=f"its port is in use; got port {port}"):
            start(port, log=tmp_path / "log")


def test_it_starts_answers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with start(log=tmp_path / "log") as plane:
        assert unemulated(plane.endpoint, "us-east-1") == []
        assert os.getpgid(plane.pid) == plane.pid
    assert not psutil.pid_exists(plane.pid)
    assert (tmp_path / "log").read_text() == ""
    with pytest.raises(EnvironmentFault, match="the control plane does not answer"):
        unemulated(plane.endpoint, "us-east-1")


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is told to its children on Linux only")
def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import signal; from pathlib import Path; "
        "from modelstacks.cloud.control_plane.process import start; "
        f"print(start(log=Path({str(tmp_path / 'log')!r})).pid, flush=True); signal.pause()"
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
