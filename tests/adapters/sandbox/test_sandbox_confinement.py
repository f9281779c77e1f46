"""What a sandboxed program cannot do, tried by a program that tries: each mechanism of this machine."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.sandboxes import MECHANISMS, sandbox

from modelstacks.adapters.sandbox import Ended, Limits, Policy, Sandbox, interpreter_paths, run

PYTHON = Path(sys.executable).resolve()
REFUSED = {"PermissionError", "FileNotFoundError", "ConnectionRefusedError", "OSError", "MemoryError"}
#: Landlock as older kernels have it: 5.13 and 6.7.
OLDER = (1, 4)


@pytest.fixture(params=MECHANISMS)
def confined(request: pytest.FixtureRequest) -> Sandbox:
    return sandbox(request.param)


@pytest.fixture(params=[*MECHANISMS, *(f"landlock {abi}" for abi in OLDER)])
def any_confined(request: pytest.FixtureRequest) -> Sandbox:
    """Those of this machine, and Landlock with less of it."""
    kind, _, abi = request.param.partition(" ")
    found = sandbox(kind)
    return replace(found, abi=int(abi)) if abi else found


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def python(confined: Sandbox, scratch: Path, source: str, *, timeout: float = 60, **policy: object) -> Ended:
    """Run a program of ours in the sandbox, with a folder that it may write to."""
    fields = {"readable": interpreter_paths(PYTHON), "scratch": scratch, **policy}
    return run(
        confined,
        Policy(**fields),  # type: ignore[arg-type]
        [str(PYTHON), "-I", "-c", source],
        {"HOME": str(scratch), "TMPDIR": str(scratch)},
        scratch,
        timeout=timeout,
    )


def attempt(confined: Sandbox, scratch: Path, statement: str, **policy: object) -> str:
    """What comes of a statement: "done", or the name of the exception."""
    source = (
        "import os, socket, subprocess, sys, ctypes\n"
        f"try:\n    {statement}\n"
        "except BaseException as error: print(type(error).__name__)\n"
        "else: print('done')\n"
        "sys.stdout.flush(); os._exit(0)"
    )
    ended = python(confined, scratch, source, **policy)
    assert ended.code == 0, ended.errors
    return ended.output.strip()


class TestFiles:
    def test_a_users_files_cannot_be_read(self, any_confined: Sandbox, scratch: Path, tmp_path: Path) -> None:
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh/id_rsa").write_text("a key")
        assert attempt(any_confined, scratch, f"open({str(tmp_path)!r} + '/.ssh/id_rsa')") in REFUSED
        assert attempt(any_confined, scratch, f"os.listdir({str(tmp_path)!r} + '/.ssh')") in REFUSED

    @pytest.mark.parametrize("path", ["/etc/shadow", "/root/.ssh", "/etc/ssh", str(Path.home() / ".aws")])
    def test_the_systems_secrets_cannot_be_read(self, confined: Sandbox, scratch: Path, path: str) -> None:
        reading = f"os.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r})"
        assert attempt(confined, scratch, reading) in REFUSED

    def test_nothing_can_be_written_outside_its_own_folder(
        self, any_confined: Sandbox, scratch: Path, tmp_path: Path
    ) -> None:
        canary = tmp_path / "canary"
        for place in (canary, Path.home() / ".modelstacks-canary", PYTHON.parent / "modelstacks-canary"):
            attempt(any_confined, scratch, f"open({str(place)!r}, 'w')")  # bwrap has a /tmp of its own
            assert not place.exists()
        assert attempt(any_confined, scratch, "open('mine', 'w').write('x')") == "done"

    @pytest.mark.parametrize(
        "change",
        [
            "os.truncate({path!r}, 0)",
            "open({path!r}, 'w')",
            "os.unlink({path!r})",
            "os.rename({path!r}, {path!r} + '.old')",
            "os.chmod({path!r}, 0)",
            "os.chown({path!r}, 1, 1)",
            "os.utime({path!r}, (0, 0))",
            "os.setxattr({path!r}, 'user.canary', b'x')",
            "os.symlink('x', {path!r} + '.link')",
            "os.link({path!r}, 'mine')",
        ],
    )
    def test_what_it_may_read_it_cannot_change(
        self, any_confined: Sandbox, scratch: Path, tmp_path: Path, change: str
    ) -> None:
        model = tmp_path / "model"
        model.mkdir()
        (model / "weights").write_text("weights")
        before = (model / "weights").stat()
        done = attempt(
            any_confined, scratch, change.format(path=str(model / "weights")),
            readable=(*interpreter_paths(PYTHON), model),
        )  # fmt: skip
        after = (model / "weights").stat()
        assert done in REFUSED
        assert [path.name for path in model.iterdir()] == ["weights"]
        assert (after.st_mode, after.st_uid, after.st_mtime, after.st_nlink) == (
            before.st_mode,
            before.st_uid,
            before.st_mtime,
            before.st_nlink,
        )
        assert (model / "weights").read_text() == "weights"

    def test_the_variables_of_who_started_it_are_out_of_reach(
        self, any_confined: Sandbox, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
        source = (
            "import os\n"
            "for one in [entry for entry in os.listdir('/proc') if entry.isdigit()]:\n"
            "    try: print(open(f'/proc/{one}/environ', 'rb').read())\n"
            "    except OSError: pass\n"
            "print(dict(os.environ))"
        )
        ended = python(any_confined, scratch, source)
        assert ended.code == 0, ended.errors
        assert "hush" not in ended.output
        assert "TMPDIR" in ended.output  # its own are there


class TestTheNetwork:
    @pytest.mark.parametrize(
        "family", ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET", "AF_VSOCK"]
    )
    def test_there_is_none(self, any_confined: Sandbox, scratch: Path, family: str) -> None:
        assert attempt(any_confined, scratch, f"socket.socket(socket.{family})") in REFUSED

    def test_a_listening_port_of_this_machine_hears_nothing(self, confined: Sandbox, scratch: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            connecting = f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
            assert attempt(confined, scratch, connecting) in REFUSED
            with pytest.raises(BlockingIOError):
                server.accept()

    def test_a_unix_socket_of_this_machine_hears_nothing(
        self, confined: Sandbox, scratch: Path, tmp_path: Path
    ) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(str(tmp_path / "bus"))
            server.setblocking(False)
            pair = "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)"
            sending = f"{pair}[0].sendto(b'x', {str(tmp_path / 'bus')!r})"
            seen = (*interpreter_paths(PYTHON), tmp_path)
            assert attempt(confined, scratch, sending, readable=seen) in REFUSED
            with pytest.raises(BlockingIOError):
                server.recv(1)

    def test_threads_and_event_loops_still_have_their_pairs(self, confined: Sandbox, scratch: Path) -> None:
        loop = "import asyncio; asyncio.run(asyncio.sleep(0))"
        assert attempt(confined, scratch, loop) == "done"


class TestAServer:
    """network="loopback": its own port, and its own way to AWS."""

    @pytest.fixture
    def gateway(self) -> Iterator[socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server

    @pytest.fixture
    def other(self) -> Iterator[socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            yield server

    @pytest.fixture
    def policy(self, gateway: socket.socket) -> dict[str, object]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            mine = probe.getsockname()[1]
        reached = gateway.getsockname()[1]
        return {"network": "loopback", "listen": (mine,), "connect": (reached,), "forks": True}

    def test_listens_on_its_own_port(
        self, confined: Sandbox, scratch: Path, policy: dict[str, object]
    ) -> None:
        (mine,) = policy["listen"]  # type: ignore[misc]
        assert attempt(confined, scratch, f"socket.create_server(('127.0.0.1', {mine}))", **policy) == "done"

    def test_listens_on_no_other(self, confined: Sandbox, scratch: Path, policy: dict[str, object]) -> None:
        assert attempt(confined, scratch, "socket.create_server(('127.0.0.1', 0))", **policy) in REFUSED
        assert attempt(confined, scratch, "socket.create_server(('0.0.0.0', 8080))", **policy) in REFUSED

    def test_reaches_its_gateway(
        self, confined: Sandbox, scratch: Path, policy: dict[str, object], gateway: socket.socket
    ) -> None:
        where = gateway.getsockname()
        assert attempt(confined, scratch, f"socket.create_connection({where!r}, 5)", **policy) == "done"

    @pytest.mark.parametrize(
        "way",
        [
            "socket.create_connection({where!r}, 5)",
            "socket.socket().sendto(b'x', socket.MSG_FASTOPEN, {where!r})",
            "socket.socket().sendmsg([b'x'], [], socket.MSG_FASTOPEN, {where!r})",
            "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).connect({where!r})",
        ],
        ids=["connect", "fast open", "fast open, sendmsg", "multipath"],
    )
    def test_reaches_nothing_else(
        self, confined: Sandbox, scratch: Path, policy: dict[str, object], other: socket.socket, way: str
    ) -> None:
        assert attempt(confined, scratch, way.format(where=other.getsockname()), **policy) in REFUSED
        with pytest.raises(BlockingIOError):
            other.accept()

    @pytest.mark.parametrize(
        "kind",
        ["AF_INET, socket.SOCK_DGRAM", "AF_INET6, socket.SOCK_DGRAM", "AF_UNIX", "AF_INET, socket.SOCK_RAW"],
    )
    def test_has_tcp_only(
        self, any_confined: Sandbox, scratch: Path, policy: dict[str, object], kind: str
    ) -> None:
        assert attempt(any_confined, scratch, f"socket.socket(socket.{kind})", **policy) in REFUSED


class TestProcesses:
    @pytest.mark.parametrize(
        "way", ["os.fork()", "subprocess.run(['/bin/true'])", "os.posix_spawn('/bin/true', ['x'], {})"]
    )
    def test_a_model_that_is_inspected_starts_none(
        self, any_confined: Sandbox, scratch: Path, way: str
    ) -> None:
        assert attempt(any_confined, scratch, way) in REFUSED

    def test_threads_are_allowed(self, any_confined: Sandbox, scratch: Path) -> None:
        starting = "import threading; t = threading.Thread(target=len, args=('',)); t.start(); t.join()"
        assert attempt(any_confined, scratch, starting) == "done"

    def test_one_that_is_left_behind_does_not_survive(
        self, confined: Sandbox, scratch: Path, tmp_path: Path
    ) -> None:
        """It holds a lock on a file for as long as it lives, in a session of its own if it can have one."""
        (folder := tmp_path / "shared").mkdir()
        source = (
            "import fcntl, os, time\n"
            f"file = open({str(folder / 'lock')!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
            "if os.fork() == 0:\n"
            "    try: os.setsid()\n"
            "    except OSError: pass\n"
            "    if os.fork() == 0: time.sleep(3600)\n"
            "    os._exit(0)\n"
        )
        ended = python(confined, scratch, source, forks=True, writable=(folder,))
        assert ended.code == 0, ended.errors
        with (folder / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # waits until it is gone; for ever, were it not

    def test_the_users_other_processes_get_no_signal(self, confined: Sandbox, scratch: Path) -> None:
        assert attempt(confined, scratch, f"os.kill({os.getpid()}, {signal.SIGURG:d})") in {
            "PermissionError",
            "ProcessLookupError",
        }

    @pytest.mark.parametrize("abi", OLDER)
    def test_not_from_a_model_that_is_inspected_on_an_older_kernel(self, scratch: Path, abi: int) -> None:
        older = replace(sandbox("landlock"), abi=abi)
        for call in (f"os.kill({os.getpid()}, 0)", "os.kill(-1, 0)", f"os.pidfd_open({os.getpid()})"):
            expected = {"done"} if "pidfd_open" in call else REFUSED  # of no use without pidfd_send_signal
            assert attempt(older, scratch, call) in expected
        assert attempt(older, scratch, "os.kill(os.getpid(), 0)") == "done"

    def test_no_limit_of_another_process_can_be_set(self, confined: Sandbox, scratch: Path) -> None:
        setting = f"__import__('resource').prlimit({os.getpid()}, 0, (1, 1))"
        assert attempt(confined, scratch, setting) in {"PermissionError", "ProcessLookupError"}

    @pytest.mark.parametrize(
        "call",
        [
            "unshare(0x10000000)", "setns(0, 0)", "ptrace(16, 1, 0, 0)", "mount(b'x', b'/', b'tmpfs', 0, 0)",
            "syscall(425, 8, 0)", "syscall(321, 0, 0, 0)", "syscall(323, 0)", "syscall(250, 0, 0)",
            "ioctl(0, 0x5412, b'x')",
        ],
    )  # fmt: skip
    def test_the_kernels_less_tried_interfaces_are_closed(
        self, any_confined: Sandbox, scratch: Path, call: str
    ) -> None:
        source = f"import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.{call}, ctypes.get_errno())"
        result, code = python(any_confined, scratch, source, forks=True).output.split()
        assert (result, int(code) in (1, 38)) == ("-1", True)  # EPERM, ENOSYS

    def test_it_has_no_capability_and_cannot_get_one(self, any_confined: Sandbox, scratch: Path) -> None:
        ended = python(any_confined, scratch, "print(open('/proc/self/status').read())")
        found = dict(line.split(":\t", 1) for line in ended.output.splitlines() if ":\t" in line)
        assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")

    def test_it_dies_with_what_started_it(self, confined: Sandbox, scratch: Path, tmp_path: Path) -> None:
        """Its starter is killed while it waits: the lock that it holds is free soon after."""
        (folder := tmp_path / "shared").mkdir()
        lock = str(folder / "lock")
        source = (
            "import fcntl, os, time\n"
            f"file = open({lock!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
            "os.write(2, b'x')\n"
            "time.sleep(3600)\n"
        )
        policy = Policy(readable=interpreter_paths(PYTHON), writable=(folder,), forks=True)
        reader, writer = os.pipe()
        if (pid := os.fork()) == 0:
            os.dup2(writer, 2)
            with confined.prepared(policy, [str(PYTHON), "-I", "-c", source], {}, folder) as ready:
                subprocess.run(
                    ready.argv, env=dict(ready.environment), pass_fds=ready.descriptors, check=False
                )
            os._exit(0)
        os.close(writer)
        assert os.read(reader, 1) == b"x"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with Path(lock).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
        os.close(reader)


class TestLimits:
    def test_memory(self, any_confined: Sandbox, scratch: Path) -> None:
        limits = Limits(memory=256 << 20)
        assert attempt(any_confined, scratch, "bytearray(1 << 30)", limits=limits) == "MemoryError"
        shared = "__import__('mmap').mmap(-1, 2 << 30)"
        assert attempt(any_confined, scratch, shared, limits=limits) in REFUSED

    def test_processor_time(self, confined: Sandbox, scratch: Path) -> None:
        ended = python(confined, scratch, "while True: pass", limits=Limits(cpu_seconds=1))
        assert ended.signal in (signal.SIGXCPU, signal.SIGKILL)

    def test_time(self, confined: Sandbox, scratch: Path) -> None:
        ended = python(confined, scratch, "import time; time.sleep(3600)", timeout=1)
        assert ended.timed_out

    def test_open_files_and_their_size(self, confined: Sandbox, scratch: Path) -> None:
        limits = Limits(file_bytes=1 << 20, open_files=64)
        for way in ("open('large', 'wb').write(bytes(2 << 20))", "[open('/dev/null') for _ in range(100)]"):
            assert attempt(confined, scratch, way, limits=limits) in REFUSED

    def test_they_cannot_be_raised(self, confined: Sandbox, scratch: Path) -> None:
        raising = "__import__('resource').setrlimit(2, (1 << 40, 1 << 40))"
        assert attempt(confined, scratch, raising, limits=Limits(memory=256 << 20)) == "ValueError"

    def test_no_core_is_dumped(self, confined: Sandbox, scratch: Path) -> None:
        ended = python(confined, scratch, "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))")
        assert ended.output.strip() == "(0, 0)"


def test_variables_reach_the_program_and_not_the_sandboxs_own(
    confined: Sandbox, scratch: Path, tmp_path: Path
) -> None:
    """LD_PRELOAD would otherwise be obeyed by bwrap, which is not restricted yet."""
    marker = tmp_path / "preloaded"
    variables = {"LD_PRELOAD": str(tmp_path / "absent.so"), "PYTHONSTARTUP": "x", "BASH_ENV": str(marker)}
    ended = run(
        confined,
        Policy(readable=interpreter_paths(PYTHON), scratch=scratch),
        [str(PYTHON), "-I", "-c", "import json, os; print(json.dumps(dict(os.environ)))"],
        variables,
        scratch,
        timeout=60,
    )
    assert json.loads(ended.output).items() >= variables.items()
    assert ended.errors.count("absent.so") == 1  # by the program's own loader, and by none before it


@pytest.mark.parametrize(("status", "signalled"), [("os._exit(7)", None), ("os.abort()", signal.SIGABRT)])
def test_the_end_of_the_program_is_told(
    confined: Sandbox, scratch: Path, status: str, signalled: signal.Signals | None
) -> None:
    ended = python(confined, scratch, f"import os; {status}")
    assert ended.signal == signalled
    assert signalled or ended.code == 7


def test_landlock_is_what_this_kernel_says(scratch: Path) -> None:
    if ctypes.CDLL(None).syscall(444, None, 0, 1) < 1:
        pytest.skip("the kernel has no Landlock")
    assert sandbox("landlock").abi >= 1
