"""A seccomp filter: the system calls that a model server never makes, refused.

The filter closes what mount namespaces and Landlock leave open: sockets of other kinds, other processes,
and the kernel's less tried interfaces. It is a list of refusals, not of permissions, because engines are
large and change. Calls whose answer does not depend on their arguments cost nothing: the kernel remembers
it.
"""

from __future__ import annotations

import errno
import platform
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelstacks.adapters.sandbox.policy import Policy

__all__ = ["MACHINES", "PID", "SYSCALLS", "compile_filter", "supported"]

#: Stands for the process's own id, which is known only when the filter is installed (launch.py puts it in).
PID = 0x7FFFFFFE

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
MACHINES = tuple(_AUDIT_ARCH)
_X32 = 0x40000000  # the bit of x86-64's other set of system calls

# Operations of classic BPF (linux/bpf_common.h), and the fields of struct seccomp_data.
_LOAD, _RETURN = 0x20, 0x06
_EQUAL, _GREATER_OR_EQUAL, _AND_SET, _ALU_AND = 0x15, 0x35, 0x45, 0x54
_NUMBER, _ARCH = 0, 4
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000

_CLONE_THREAD = 0x10000
_CLONE_NAMESPACES = 0x7E020000  # CLONE_NEW*, less CLONE_NEWTIME, which clone() does not take
_FAST_OPEN = 0x20000000  # MSG_FASTOPEN: connects without a connect()
_TYPE_MASK = 0xF  # of socket(): SOCK_CLOEXEC and SOCK_NONBLOCK are above it
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_PR_SET_PDEATHSIG = 1

# name: (number on x86-64, number on arm64); None where the machine has no such call.
SYSCALLS: Mapping[str, tuple[int | None, int | None]] = {
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "perf_event_open": (298, 241),
    # the kernel and the machine
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "personality": (135, 92), "swapon": (167, 224), "swapoff": (168, 225),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "sethostname": (170, 161),
    "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None), "acct": (163, 89),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "syslog": (103, 116), "vhangup": (153, 58),
    "fanotify_init": (300, 262), "memfd_secret": (447, 447),
    # mounts and namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "move_mount": (429, 429), "open_tree": (428, 428), "open_tree_attr": (467, 467), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "unshare": (272, 97), "setns": (308, 268),
    # what Landlock does not cover: metadata, truncate() before ABI 3, System V objects, scheduling of others
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463),
    "removexattrat": (466, 466), "file_setattr": (469, 469), "truncate": (76, 45),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semtimedop": (220, 192), "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "setsid": (112, 157), "setpgid": (109, 154),
    # those that are refused by their arguments, or by the policy
    "fork": (57, None), "vfork": (58, None), "clone": (56, 220), "clone3": (435, 435),
    "socket": (41, 198), "socketpair": (53, 199), "sendto": (44, 206), "sendmsg": (46, 211),
    "sendmmsg": (307, 269), "ioctl": (16, 29), "prctl": (157, 167), "prlimit64": (302, 261),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424),
}  # fmt: skip

_ALWAYS = tuple(SYSCALLS)[: tuple(SYSCALLS).index("chmod")]
_BESIDE_LANDLOCK = tuple(SYSCALLS)[tuple(SYSCALLS).index("chmod") : tuple(SYSCALLS).index("fork")]
_SIGNALS = ("tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")
# A library falls back to an older call where these are missing.
_MISSING = frozenset({"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"})


@dataclass(frozen=True, slots=True)
class _Step:
    """One test of a system call's argument: its low 32 bits are masked and compared.

    `stay` is the outcome for which the refusal is considered further.
    """

    argument: int
    operation: int
    value: int
    stay: bool
    mask: int | None = None


def supported() -> bool:
    """Whether there is a table for this machine."""
    return platform.machine() in _AUDIT_ARCH


def compile_filter(policy: Policy, *, namespaces: bool, scoped: bool, machine: str = "") -> bytes:
    """The filter as an array of struct sock_filter.

    Args:
        namespaces: the process has a mount and a pid namespace of its own.
        scoped: something else keeps its signals among its own processes.
    """
    machine = machine or platform.machine()
    column = MACHINES.index(machine)
    program = [
        _one(_LOAD, _ARCH),
        _one(_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        _one(_RETURN, _KILL),
        _one(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        program += [_one(_GREATER_OR_EQUAL, _X32, 0, 1), _one(_RETURN, _ERRNO | errno.ENOSYS)]
    rules: dict[str, list[Sequence[_Step]]] = {}
    for name, steps in _refusals(policy, namespaces=namespaces, scoped=scoped):
        rules.setdefault(name, []).append(steps)
    # First the calls that depend on their arguments: they alone are looked at each time.
    for name in sorted(rules, key=lambda name: () in rules[name]):
        number = SYSCALLS[name][column]
        if number is not None:
            program += _refuse(number, rules[name], errno.ENOSYS if name in _MISSING else errno.EPERM)
    return b"".join([*program, _one(_RETURN, _ALLOW)])


def _refusals(policy: Policy, *, namespaces: bool, scoped: bool) -> Iterator[tuple[str, Sequence[_Step]]]:
    """Each call that is refused, with the conditions under which it is."""
    for name in _ALWAYS:
        yield name, ()
    if not namespaces:
        for name in _BESIDE_LANDLOCK:
            yield name, ()
        yield "prctl", (_is(0, _PR_SET_PDEATHSIG),)
        yield "prlimit64", (_is_not(0, 0),)
    yield from _processes(policy, own=not namespaces and not scoped)
    yield from _sockets(policy)
    yield "ioctl", (_is(1, _TIOCSTI),)
    yield "ioctl", (_is(1, _TIOCLINUX),)


def _processes(policy: Policy, *, own: bool) -> Iterator[tuple[str, Sequence[_Step]]]:
    yield "clone3", ()  # its flags are behind a pointer; clone's are not
    yield "clone", (_Step(0, _AND_SET, _CLONE_NAMESPACES, stay=True),)
    if policy.forks:
        return
    yield "fork", ()
    yield "vfork", ()
    yield "clone", (_Step(0, _AND_SET, _CLONE_THREAD, stay=False),)
    if own:
        for name in _SIGNALS:
            yield name, ()
        yield "kill", (_is_not(0, PID),)
        yield "tgkill", (_is_not(0, PID),)


def _sockets(policy: Policy) -> Iterator[tuple[str, Sequence[_Step]]]:
    # A pair of datagram sockets could send to any other Unix socket.
    yield "socketpair", (_is(1, socket.SOCK_DGRAM, _TYPE_MASK),)
    if policy.network == "none":
        yield "socket", ()
        return
    yield "socket", (_is_not(0, socket.AF_INET), _is_not(0, socket.AF_INET6))
    yield "socket", (_is_not(1, socket.SOCK_STREAM, _TYPE_MASK),)
    # Multipath TCP and SCTP are not covered by rules on TCP ports.
    yield "socket", (_is_not(2, 0), _is_not(2, socket.IPPROTO_TCP))
    for name, flags in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        yield name, (_Step(flags, _AND_SET, _FAST_OPEN, stay=True),)


def _is(argument: int, value: int, mask: int | None = None) -> _Step:
    return _Step(argument, _EQUAL, value, stay=True, mask=mask)


def _is_not(argument: int, value: int, mask: int | None = None) -> _Step:
    return _Step(argument, _EQUAL, value, stay=False, mask=mask)


def _refuse(number: int, rules: Sequence[Sequence[_Step]], code: int) -> list[bytes]:
    """If the call is `number`: fail with `code` where one of the rules holds in every step, else allow it."""
    body = [one for steps in rules for one in _rule(steps, code)]
    if () not in rules:
        body.append(_one(_RETURN, _ALLOW))
    return [_one(_EQUAL, number, 0, len(body)), *body]


def _rule(steps: Sequence[_Step], code: int) -> list[bytes]:
    left = sum(2 + (step.mask is not None) for step in steps) + 1
    program = []
    for step in steps:
        program.append(_one(_LOAD, 16 + 8 * step.argument))
        if step.mask is not None:
            program.append(_one(_ALU_AND, step.mask))
        left -= 2 + (step.mask is not None)
        # Past what is left of this rule, where the step does not hold.
        program.append(_one(step.operation, step.value, *((0, left) if step.stay else (left, 0))))
    return [*program, _one(_RETURN, _ERRNO | code)]


def _one(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, value)
