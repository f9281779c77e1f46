"""The filter of system calls, as the kernel would run it, for both machines that it is made for."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from modelstacks.adapters.sandbox.policy import Policy
from modelstacks.adapters.sandbox.seccomp import MACHINES, PID, SYSCALLS, compile_filter

ARCHITECTURES = dict(zip(MACHINES, (0xC000003E, 0xC00000B7), strict=True))
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
ALLOWED, KILLED = 0x7FFF0000, 0x80000000
INSPECT = Policy()
SERVE = Policy(network="loopback", forks=True)


def decide(program: bytes, number: int, *arguments: int, architecture: int) -> int:
    """Classic BPF: the verdict on one system call."""
    filled = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, architecture, 0, *filled)
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    place, accumulator = 0, 0
    while True:
        code, true, false, value = steps[place]
        place += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x54:
                accumulator &= value
            case 0x06:
                return value
            case 0x15:
                place += true if accumulator == value else false
            case 0x35:
                place += true if accumulator >= value else false
            case 0x45:
                place += true if accumulator & value else false
            case _:
                raise AssertionError(f"an instruction that the filter has no use for: {code:#x}")


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Filter:
    def __init__(
        self, policy: Policy, machine: str, *, namespaces: bool = False, scoped: bool = True
    ) -> None:
        self._program = compile_filter(policy, namespaces=namespaces, scoped=scoped, machine=machine)
        self._machine = machine

    def __call__(self, name: str, *arguments: int) -> str:
        number = SYSCALLS[name][MACHINES.index(self._machine)]
        if number is None:
            return "EPERM"  # there is no such call on this machine
        return self.number(number, *arguments)

    def number(self, number: int, *arguments: int, architecture: int | None = None) -> str:
        architecture = architecture or ARCHITECTURES[self._machine]
        verdict = decide(self._program, number, *arguments, architecture=architecture)
        if verdict in (ALLOWED, KILLED):
            return "allowed" if verdict == ALLOWED else "killed"
        return errno.errorcode[verdict & 0xFFFF]


INET, INET6, UNIX, NETLINK = 2, 10, 1, 16
STREAM, DATAGRAM, CLOEXEC = 1, 2, 0o2000000
THREAD, NEW_USER = 0x3D0F00, 0x10000000  # pthread_create's flags; CLONE_NEWUSER


def test_a_model_that_is_inspected_has_no_sockets_and_no_children(machine: str) -> None:
    verdict = Filter(INSPECT, machine)
    assert verdict("socket", INET, STREAM) == verdict("socket", UNIX, STREAM) == "EPERM"
    assert verdict("fork") == verdict("vfork") == "EPERM"
    assert verdict("clone", 17) == "EPERM"  # SIGCHLD: fork()
    assert verdict("clone", THREAD) == "allowed"
    assert verdict("clone3") == "ENOSYS"  # libc then calls clone
    assert verdict("socketpair", UNIX, STREAM | CLOEXEC) == "allowed"


def test_a_server_has_tcp_and_children(machine: str) -> None:
    verdict = Filter(SERVE, machine)
    assert verdict("socket", INET, STREAM | CLOEXEC) == verdict("socket", INET6, STREAM, 6) == "allowed"
    assert verdict("socket", INET, STREAM, 262) == "EPERM"  # multipath TCP
    assert verdict("socket", INET, DATAGRAM) == verdict("socket", NETLINK, 3) == "EPERM"
    assert verdict("socket", UNIX, STREAM) == "EPERM"
    assert verdict("clone", 17) == "allowed"
    assert verdict("clone", 17 | NEW_USER) == "EPERM"


@pytest.mark.parametrize(("call", "flags"), [("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)])
def test_nothing_is_connected_by_sending(machine: str, call: str, flags: int) -> None:
    verdict = Filter(SERVE, machine)
    before = [0] * flags
    assert verdict(call, *before, 0x4000) == "allowed"
    assert verdict(call, *before, 0x20004000) == "EPERM"


def test_datagram_pairs_could_reach_any_unix_socket(machine: str) -> None:
    assert Filter(SERVE, machine)("socketpair", UNIX, DATAGRAM | CLOEXEC) == "EPERM"


def test_signals_are_its_own_where_nothing_else_says_so(machine: str) -> None:
    unscoped = Filter(INSPECT, machine, scoped=False)
    assert (
        unscoped("kill", PID) == unscoped("tgkill", PID, PID, 6) == "allowed"
    )  # PID: its own, filled in later
    assert unscoped("kill", 1) == unscoped("kill", 0) == unscoped("tkill", 1) == "EPERM"
    assert Filter(INSPECT, machine, scoped=True)("kill", 1) == "allowed"  # Landlock's scope refuses it


@pytest.mark.parametrize("name", ["chmod", "fchmodat", "truncate", "setsid", "utimensat", "shmget"])
def test_what_landlock_does_not_cover_is_refused_beside_it(machine: str, name: str) -> None:
    assert Filter(SERVE, machine)(name) == "EPERM"
    inside = Filter(SERVE, machine, namespaces=True)(name)
    assert inside == ("allowed" if SYSCALLS[name][MACHINES.index(machine)] is not None else "EPERM")


def test_the_other_calls_of_the_machine_are_refused(machine: str) -> None:
    verdict = Filter(INSPECT, machine)
    assert verdict.number(0, architecture=0x40000003) == "killed"  # i386
    if machine == "x86_64":
        assert verdict.number(0x40000000 + 41) == "ENOSYS"  # socket() of x32


@pytest.mark.parametrize("name", ["read", "mmap", "openat", "futex", "epoll_wait", "execve"])
def test_ordinary_calls_are_not_looked_at(name: str) -> None:
    numbers = {"read": 0, "mmap": 9, "openat": 257, "futex": 202, "epoll_wait": 232, "execve": 59}
    for policy in (INSPECT, SERVE):
        assert Filter(policy, "x86_64").number(numbers[name], 1, 2, 3, 4) == "allowed"


def test_the_numbers_are_the_kernels(machine: str) -> None:
    if not HEADERS[machine].is_file():
        pytest.skip(f"{HEADERS[machine]} is not installed (linux-libc-dev)")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[machine].read_text())
    kernel = {name: int(number) for name, number in found}
    for name, numbers in SYSCALLS.items():
        if name in kernel:  # the header may be older than the newest calls
            assert numbers[MACHINES.index(machine)] == kernel[name], name


def test_it_is_short_enough_for_the_kernel(machine: str) -> None:
    for policy in (INSPECT, SERVE):
        assert len(compile_filter(policy, namespaces=False, scoped=False, machine=machine)) // 8 <= 4096
