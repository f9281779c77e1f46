"""bwrap's command line: namespaces of the process's own, and a file system that holds only what it needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from modelstacks.adapters.sandbox.policy import Policy

__all__ = ["ETC", "wrap"]

# Of /etc: what the dynamic linker and libc read, and the links of Debian's alternatives. No credentials, no
# keys.
ETC = tuple(
    f"/etc/{name}"
    for name in (
        "ld.so.cache",
        "ld.so.conf",
        "ld.so.conf.d",
        "alternatives",
        "localtime",
        "timezone",
        "passwd",
        "group",
        "nsswitch.conf",
        "hosts",
        "host.conf",
        "protocols",
        "services",
    )
)
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store")
_PROCESSORS = ("/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/fs/cgroup/cpu.max")


def wrap(program: Path, policy: Policy, command: Sequence[str], directory: Path) -> list[str]:
    """The command that runs `command` within bwrap, in `directory`."""
    options = ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]
    options += ["--unshare-net"] if policy.network != "loopback" else []
    options += ["--die-with-parent", "--cap-drop", "ALL"]
    options += [word for words in _mounts(policy) for word in words]
    return [str(program), *options, "--chdir", str(directory), "--", *command]


def _mounts(policy: Policy) -> Iterator[tuple[str, ...]]:
    for name in _SYSTEM:
        path = Path(name)
        if path.is_symlink():  # /lib -> usr/lib
            yield "--symlink", str(path.readlink()), name
        elif path.is_dir():
            yield "--ro-bind", name, name
    for name in (*ETC, *_PROCESSORS):
        yield "--ro-bind-try", name, name
    yield "--proc", "/proc"
    yield "--dev", "/dev"
    yield "--tmpfs", "/tmp"  # noqa: S108  the sandbox's own
    # What is inside another one is there already, and may be a link, which cannot be mounted over.
    given = set(policy.readable)
    outer = [path for path in given if not given.intersection(path.parents)]
    shared = [(path, "--ro-bind") for path in outer]
    shared += [(path, "--bind") for path in policy.writable]
    shared += [(policy.scratch, "--tmpfs")] if policy.scratch else []
    # A folder before what is inside it, which it would hide.
    for path, how in sorted(shared, key=lambda one: len(one[0].parts)):
        yield (how, str(path)) if how == "--tmpfs" else (how, str(path), str(path))
    yield "--remount-ro", "/"
