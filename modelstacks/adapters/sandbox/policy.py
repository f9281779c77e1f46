"""What one sandboxed process may do."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["Limits", "Network", "Policy", "machine_memory"]

Network = Literal["none", "loopback", "private"]

#: Of the machine's memory, for one process. The rest keeps the machine usable while a model is loaded.
_SHARE = 0.75
_LEAST_MEMORY = 2 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of each process. None leaves the limit of the caller in place.

    `memory` counts private memory that is really given out (RLIMIT_DATA), because libraries reserve far more
    address space than they use: thread stacks, malloc's arenas, CUDA's tables. The address space itself is
    limited to four times as much, which also bounds shared memory.
    """

    memory: int | None = None  # bytes
    cpu_seconds: int | None = None  # of all threads together
    file_bytes: int | None = None  # of each file that it writes
    open_files: int | None = None
    processes: int | None = None  # of its user; the kernel does not apply it to root


@dataclass(frozen=True, slots=True)
class Policy:
    """What a process can see and reach.

    Nothing else of this machine is visible to it where the mechanism can hide it.

    Args:
        readable: files and folders, by their paths on this machine. The system's libraries are always
            readable.
        writable: folders.
        scratch: an empty folder that it may write to; what it writes is discarded where the mechanism
            allows that.
        network: "none", or "loopback": it may listen on the ports `listen` and connect to the ports
            `connect` of 127.0.0.1. "private": the same on a 127.0.0.1 of its own, where the mechanism has
            network namespaces (`Sandbox.private_network`).
        forks: whether it may start other processes. A process that may not cannot leave any behind.
    """

    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    scratch: Path | None = None
    network: Network = "none"
    listen: tuple[int, ...] = ()
    connect: tuple[int, ...] = ()
    forks: bool = False
    limits: Limits = field(default_factory=Limits)


def machine_memory() -> int:
    """The memory that one sandboxed process may use, in bytes.

    It is three quarters of what this machine or its container has.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        text = "max"
    if text.isdigit():
        total = min(total, int(text))
    return max(int(total * _SHARE), _LEAST_MEMORY)
