"""The daemon and its client: one a project, nothing left behind, one clear message for what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL, Popen

import boto3
import httpx
import psutil
import pytest

from modelstacks.cloud import client
from modelstacks.cloud.api import KillReplica
from modelstacks.cloud.daemon.state import MARKER, State, StateDirectory, process_of
from modelstacks.core.errors import EnvironmentFault, UsageError


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def session(project: Path) -> Iterator[client.Session]:
    started = client.start(project)
    assert started.started
    yield started
    client.clean(project)


class TestARunningDaemon:
    def test_serves_an_aws_account(self, session: client.Session) -> None:
        status = session.status()
        s3 = boto3.client(
            "s3",
            endpoint_url=status.endpoint_url,
            region_name=status.region,
            aws_access_key_id=status.credentials.access_key_id,
            aws_secret_access_key=status.credentials.secret_access_key,
        )
        s3.create_bucket(Bucket="a-bucket")
        s3.put_object(Bucket="a-bucket", Key="k", Body=b"x" * 100_000)
        assert s3.get_object(Bucket="a-bucket", Key="k")["Body"].read() == b"x" * 100_000

    def test_settles_at_once_when_nothing_is_deployed(self, session: client.Session) -> None:
        *_, last = session.reconcile()
        assert (last.settled, last.problem, last.workloads) == (True, None, ())

    def test_is_attached_to_by_a_second_up(self, session: client.Session, project: Path) -> None:
        with client.start(project) as second:
            assert not second.started
            assert second.status().pid == session.status().pid

    def test_answers_nobody_without_the_token(self, session: client.Session, project: Path) -> None:
        del session
        state = StateDirectory(project).read()
        assert state is not None
        assert state.admin_url is not None
        assert httpx.get(state.admin_url + "/status", trust_env=False).status_code == 401

    def test_keeps_its_state_from_others(self, session: client.Session, project: Path) -> None:
        del session
        root = project / ".modelstacks"
        kept = [root, root / "state.json", StateDirectory(project).sockets]
        assert [oct(one.stat().st_mode & 0o077) for one in kept] == ["0o0"] * 3

    def test_names_an_unknown_replica(self, session: client.Session) -> None:
        with pytest.raises(UsageError, match="no such replica; got nobody; allowed: none runs"):
            session.inject(KillReplica(replica="nobody"))

    def test_has_no_logs_of_what_never_ran(self, session: client.Session) -> None:
        assert session.logs(workload="nothing") == []


class TestTheUsersSurroundings:
    def test_do_not_matter(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A proxy that answers nobody, a profile that is missing, a configuration that cannot be read."""
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        broken = tmp_path / "config"
        broken.write_text("[profile\n= what")
        monkeypatch.setenv("AWS_PROFILE", "missing")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(broken))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(broken))
        with client.start(tmp_path, timeout=60) as session:
            *_, status = session.reconcile()
            assert (status.settled, status.problem) == (True, None)
            session.shutdown()

    def test_are_not_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The working folder is where a model was unpacked, whose files have the names of modules."""
        (folder := tmp_path / "unpacked").mkdir()
        canary = tmp_path / "canary"
        for name in ("moto", "httptools", "starlette", "uvicorn", "json", "boto3", "psutil", "modelstacks"):
            (folder / f"{name}.py").write_text(f"open({str(canary)!r}, 'w').close()\nraise SystemExit(1)")
        (project := tmp_path / "project").mkdir()
        monkeypatch.chdir(folder)
        with client.start(project, timeout=60) as session:
            *_, status = session.reconcile()
            assert (status.settled, status.problem) == (True, None)
            session.shutdown()
        assert not canary.exists()


class TestEnding:
    def test_a_start_that_is_cancelled_leaves_nothing(self, tmp_path: Path) -> None:
        cancelled = threading.Event()
        cancelled.set()
        with pytest.raises(EnvironmentFault, match="the start of the embedded cloud was cancelled"):
            client.start(tmp_path, cancelled=cancelled)
        assert not client.running(tmp_path)
        assert not [one for one in psutil.process_iter() if str(tmp_path) in command_line(one)]

    def test_a_daemon_whose_directory_was_deleted_ends_by_itself(self, tmp_path: Path) -> None:
        with client.start(tmp_path):
            state = StateDirectory(tmp_path).read()
            assert state is not None
            shutil.rmtree(tmp_path / ".modelstacks")
            until(lambda: all(gone(one.pid) for one in (state.daemon, *state.processes)))
        assert not (tmp_path / ".modelstacks").exists()

    def test_a_daemon_whose_directory_was_made_anew_leaves_it_to_its_successor(self, tmp_path: Path) -> None:
        with client.start(tmp_path) as first:
            old = first.status().pid
            shutil.rmtree(tmp_path / ".modelstacks")
        with client.start(tmp_path) as second:
            assert second.started
            until(lambda: gone(old))
            *_, status = second.reconcile()
            assert status.pid != old
            assert StateDirectory(tmp_path).read() is not None
            second.shutdown()

    @pytest.mark.parametrize("killed", [False, True])
    def test_unpacked_models_do_not_outlive_it(self, tmp_path: Path, killed: bool) -> None:
        for cycle in range(2):
            with client.start(tmp_path) as session:
                pid = session.status().pid
                for kind in ("models", "functions", "replicas"):
                    unpacked = StateDirectory(tmp_path).work / kind / str(cycle)
                    unpacked.mkdir(parents=True)
                    (unpacked / "weights").write_bytes(b"x" * 1_000)
                if killed:
                    os.kill(pid, signal.SIGKILL)
                    until(lambda: not client.running(tmp_path))
                    client.clean(tmp_path)
                else:
                    session.shutdown()
            assert not list((tmp_path / ".modelstacks").rglob("weights"))


def test_a_run_that_ends_leaves_alone_what_is_being_packaged(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    state.prepare()
    packaged = tmp_path / ".modelstacks" / "work" / "a-model"
    packaged.mkdir(parents=True)
    state.forget()
    assert packaged.is_dir()


class TestWhatGoesWrong:
    def test_what_nobody_foresaw_is_said_with_the_place_to_read_on(self, tmp_path: Path) -> None:
        state = StateDirectory(tmp_path)
        state.prepare()
        (state.root / "sitecustomize.py").write_text(
            "import asyncio\ndef run(work):\n    work.close()\n    raise RuntimeError('no loop today')\n"
            "asyncio.run = run\n"
        )
        path = os.pathsep.join([str(state.root), *filter(None, [os.environ.get("PYTHONPATH")])])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", path)
            with pytest.raises(EnvironmentFault) as caught:
                client.start(tmp_path)
        assert "the embedded cloud's daemon failed: RuntimeError: no loop today" in str(caught.value)
        assert f"fix: read {state.daemon_log}" in str(caught.value)

    def test_a_port_in_use_is_named(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(
                EnvironmentFault, match=f"port {port} is in use by another program; fix: choose"
            ):
                client.start(tmp_path, port=port)
        assert not client.running(tmp_path)

    def test_a_killed_control_plane_is_said_and_an_up_after_it_works(self, tmp_path: Path) -> None:
        with client.start(tmp_path) as session:
            state = StateDirectory(tmp_path).read()
            assert state is not None
            victim = next(one for one in state.processes if one.what == "control plane")
            os.kill(victim.pid, signal.SIGKILL)
            until(lambda: session.status().problem is not None)
            with pytest.raises(
                EnvironmentFault, match=r"the control plane .* was killed: what was deployed is lost"
            ):
                list(session.reconcile())
            session.shutdown()
        assert not client.running(tmp_path)
        assert not StateDirectory(tmp_path).state_file.exists()

    def test_a_killed_daemon_leaves_nothing_that_clean_does_not_find(self, tmp_path: Path) -> None:
        session = client.start(tmp_path)
        state = StateDirectory(tmp_path).read()
        assert state is not None
        os.kill(state.daemon.pid, signal.SIGKILL)
        until(lambda: not client.running(tmp_path))
        with pytest.raises(EnvironmentFault, match="its daemon was killed or crashed"):
            session.status()
        client.clean(tmp_path)
        assert all(gone(one.pid) for one in (state.daemon, *state.processes))
        assert client.attach(tmp_path) is None

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("{", "Expecting property name"),
            ("[]", "valid dictionary"),
            ('{"version": 2}', "version"),
            ("\x00\x01", "Expecting value"),
        ],
    )
    def test_a_damaged_state_file_is_refused_with_the_way_out(
        self, tmp_path: Path, text: str, why: str
    ) -> None:
        state = StateDirectory(tmp_path)
        state.prepare()
        state.state_file.write_text(text)
        with pytest.raises(EnvironmentFault) as caught:
            client.start(tmp_path)
        assert f"the state file {state.state_file} is damaged" in str(caught.value)
        assert why in str(caught.value)
        assert f"rm {state.state_file}" in str(caught.value)

    def test_a_full_disk_is_called_by_its_name(self, tmp_path: Path) -> None:
        full = Path("/dev/full")
        if not full.exists():
            pytest.skip("this system has no /dev/full")
        from modelstacks.cloud.daemon.state import disk_fault

        with pytest.raises(OSError) as caught, full.open("wb", buffering=0) as file:
            file.write(b"x")
        assert str(disk_fault(caught.value, tmp_path)).startswith(
            f"the disk is full: cannot write {tmp_path}"
        )


class TestCleaning:
    def sleeper(self, **environment: str) -> Popen[bytes]:
        program = [sys.executable, "-c", "import time; time.sleep(600)"]
        return Popen(program, env={**os.environ, **environment}, stdout=DEVNULL)

    def written(self, tmp_path: Path, state: dict[str, object]) -> StateDirectory:
        directory = StateDirectory(tmp_path)
        directory.prepare()
        credentials = {"access_key_id": "a", "secret_access_key": "b"}
        directory.write(State.model_validate({"token": "t", "credentials": credentials, **state}))
        return directory

    def test_a_pid_that_somebody_else_has_now_is_left_alone(self, tmp_path: Path) -> None:
        other = self.sleeper()
        try:
            found = process_of(other.pid, "daemon")
            assert found is not None
            stale = json.loads(found.model_copy(update={"created": found.created - 100}).model_dump_json())
            directory = self.written(tmp_path, {"daemon": stale})
            assert client.clean(tmp_path) == ()
            assert other.poll() is None
            assert not directory.state_file.exists()
        finally:
            other.kill()
            other.wait()

    def test_the_recorded_process_is_ended(self, tmp_path: Path) -> None:
        mine = self.sleeper()
        found = process_of(mine.pid, "daemon")
        assert found is not None
        self.written(tmp_path, {"daemon": json.loads(found.model_dump_json())})
        assert client.clean(tmp_path) == (mine.pid,)
        assert gone(mine.pid)

    def test_a_process_that_carries_the_mark_is_ended_though_it_was_never_written_down(
        self, tmp_path: Path
    ) -> None:
        root = StateDirectory(tmp_path).root
        mine = self.sleeper(**{MARKER: str(root)})
        until(lambda: psutil.Process(mine.pid).environ().get(MARKER) == str(root))
        assert client.clean(tmp_path) == (mine.pid,)
        mine.wait()
