"""Landlock: a process gives up its access to files, ports and other processes, except what rules allow.

Each version of the kernel's interface (ABI) handles more. What an older one leaves open is closed by the
seccomp filter where that can tell, and is named in docs/embedded-cloud.md where it cannot.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path

from modelstacks.adapters.sandbox.policy import Policy

__all__ = ["NETWORK_ABI", "SCOPE_ABI", "Ruleset", "kernel_abi", "ruleset"]

NETWORK_ABI, SCOPE_ABI = 4, 6
_CREATE_RULESET = 444  # on every architecture
_VERSION_FLAG = 1

# linux/landlock.h: access rights by the ABI that introduced them.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_FILES_ABI_1, _REFER, _TRUNCATE, _IOCTL_DEVICE = (1 << 13) - 1, 1 << 13, 1 << 14, 1 << 15
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE
_BIND, _CONNECT = 1, 2
_ABSTRACT_UNIX_SOCKETS, _SIGNALS = 1, 2

# What a program may read besides its own files: libraries, the tables of names that libc reads, the
# processors. Landlock refuses /proc/<pid>/environ and the like of processes outside the sandbox by itself.
SYSTEM = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/nix/store",
    "/proc",
    "/sys/devices/system",
    "/sys/fs/cgroup/cpu.max",
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What launch.py passes to the kernel: the rights that are given up, and rules that keep some of them."""

    files: int
    network: int
    scoped: int
    paths: tuple[tuple[str, int], ...]
    ports: tuple[tuple[int, int], ...]


def kernel_abi() -> int:
    """The kernel's Landlock ABI; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    version: int = ctypes.CDLL(None).syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    return max(version, 0)


def ruleset(policy: Policy, abi: int, *, files: bool, etc: tuple[str, ...]) -> Ruleset:
    """The rules of a policy for a kernel with this ABI. `files`: whether file access is restricted too."""
    handled = _FILES_ABI_1
    for version, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEVICE)):
        handled |= right if abi >= version else 0
    read = _EXECUTE | _READ_FILE | _READ_DIR
    paths = [(name, read) for name in (*SYSTEM, *etc)]
    paths += [(str(path), read) for path in policy.readable]
    paths += [(str(path), handled) for path in (*policy.writable, *filter(None, [policy.scratch]))]
    paths += [(name, _READ_FILE | _WRITE_FILE) for name in DEVICES]
    ports = [(port, _BIND) for port in policy.listen] + [(port, _CONNECT) for port in policy.connect]
    return Ruleset(
        files=handled if files else 0,
        network=_BIND | _CONNECT if abi >= NETWORK_ABI else 0,
        scoped=_ABSTRACT_UNIX_SOCKETS | _SIGNALS if abi >= SCOPE_ABI else 0,
        paths=tuple(_fitting(name, rights) for name, rights in paths if Path(name).exists()) if files else (),
        ports=tuple(ports) if abi >= NETWORK_ABI else (),
    )


def _fitting(name: str, rights: int) -> tuple[str, int]:
    """The kernel refuses a rule that gives a file the rights of a folder."""
    return (name, rights if Path(name).is_dir() else rights & _OF_A_FILE)
