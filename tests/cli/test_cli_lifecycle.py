"""`up` from its start to its end, however that comes: what is left behind is nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from e2e.conftest import make_project, modelstacks

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = make_project(tmp_path_factory.mktemp("lifecycle") / "project")
    yield made
    modelstacks(made, "down")


@contextmanager
def up(project: Path) -> Iterator[subprocess.Popen[str]]:
    """`up churn` in the foreground, as under a terminal: Ctrl-C reaches it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "modelstacks", "up", "churn"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), "NO_COLOR": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def read_until(process: subprocess.Popen[str], beginning: str) -> str:
    """What it says on stderr, up to and with the first line that begins so."""
    said = ""
    assert process.stderr is not None
    for line in process.stderr:
        said += line
        if line.startswith(beginning):
            return said
    raise AssertionError(f"it ended without saying {beginning!r}:\n{said}")


def rest(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.read()


def left_over(project: Path) -> list[psutil.Process]:
    """The processes of this project that do not end by themselves at once."""
    found = [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(project) in word for word in process.info["cmdline"] or [])
    ]
    _, alive = psutil.wait_procs(found, timeout=5)
    return alive


def test_ctrl_c_in_mid_deploy_leaves_nothing_behind(project: Path) -> None:
    with up(project) as process:
        read_until(process, "ok     synthesize")
        process.send_signal(signal.SIGINT)
        said = rest(process)
        assert process.wait() == 130, said
    assert said.splitlines()[-1] == "modelstacks: interrupted"
    assert left_over(project) == []
    assert not (project / ".modelstacks" / "state.json").exists()


def test_a_daemon_that_is_killed_ends_up_with_one_message_and_takes_its_replicas_along(project: Path) -> None:
    with up(project) as process:
        read_until(process, "serving;")
        second = modelstacks(project, "up", "churn")
        assert second.returncode == 4
        assert f"another `modelstacks up` is running in this project (pid {process.pid})" in second.stderr
        status = json.loads(modelstacks(project, "status", "--json").stdout)
        os.kill(status["pid"], signal.SIGKILL)
        said = rest(process)
        assert process.wait() == 4
    assert "the embedded cloud stopped answering: its daemon was killed or crashed" in said.splitlines()[-1]
    assert left_over(project) == []
    assert modelstacks(project, "down").returncode == 0


def test_a_port_in_use_is_named(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = modelstacks(project, "up", "churn", "--port", str(port))
    assert ran.returncode == 4
    assert f"port {port} is in use" in ran.stderr.splitlines()[-1]


def test_a_damaged_state_file_is_named_and_deleting_it_mends_it(project: Path) -> None:
    state = project / ".modelstacks" / "state.json"
    state.write_text('{"version"')
    ran = modelstacks(project, "up", "churn")
    assert ran.returncode == 4
    assert f"the state file {state} is damaged" in ran.stderr.splitlines()[-1]
    assert f"rm {state}" in ran.stderr
    state.unlink()
    assert modelstacks(project, "down").returncode == 0
