"""Restricts itself, then becomes another program: `python -I -S launch.py DESCRIPTOR`.

The file behind the descriptor holds what to do, as JSON (mechanism.py writes it): argv and the environment,
and under "parent", "limits", "landlock" and "seccomp" what to restrict. Run as a file before anything else
is imported. A preexec_fn would do the same in a fork of the daemon, whose threads make that unsafe.

Where a restriction cannot be applied the program is not started: one line on stderr, exit code 125.
"""

import base64
import ctypes
import json
import os
import resource
import signal
import struct
import sys

FAILED = 125
PID = 0x7FFFFFFE  # seccomp.PID: stands for this process's own id in the filter
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
SECCOMP_SET_MODE_FILTER = 1
# Without it, kernels before 5.16 slow the whole process down by mitigations that guard it against itself.
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
LANDLOCK_PATH_BENEATH, LANDLOCK_NET_PORT = 1, 2
CAPABILITY_VERSION_3 = 0x20080522


def main() -> None:
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        order = json.load(file)
    started = order["started"]
    try:
        if order["sockets"] is not None:
            pass_sockets(order["sockets"], order["listeners"])
        restrict(order)
    except OSError as error:
        sys.stderr.write(f"the sandbox cannot be set up: {error}\n")
        sys.exit(FAILED)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # hold.py blocked it
    if started is not None:
        os.set_inheritable(started, False)
        os.write(started, b"\n")
    try:
        os.execve(order["argv"][0], order["argv"], order["environment"])  # noqa: S606  becoming the program is the purpose
    except OSError as error:
        problem = f"{order['argv'][0]} cannot be run: {error.strerror}\n"
        sys.stderr.write(problem)
        if started is not None:
            os.write(started, problem.encode())
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


def pass_sockets(channel: int, ports: list) -> None:  # type: ignore[type-arg]
    """Give whoever holds the other end of the channel sockets of this network namespace.

    Listeners on the ports come at once, before the program begins; then one socket for each byte. A process
    that outlives this call does that, and ends with the channel.
    """
    child = os.fork()
    if child:
        os.close(channel)
        if os.waitpid(child, 0)[1]:
            raise OSError(0, "no sockets in the network namespace")
        return
    import socket

    with socket.socket(fileno=channel) as way:
        for port in ports:
            with socket.socket(proto=socket.IPPROTO_TCP) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", port))
                listener.listen(128)
                socket.send_fds(way, [b"l"], [listener.fileno()])
        if os.fork():
            os._exit(0)
        os.setsid()  # a signal to the program's group is not for it
        while way.recv(1):
            with socket.socket(proto=socket.IPPROTO_TCP) as fresh:
                socket.send_fds(way, [b"s"], [fresh.fileno()])
    os._exit(0)


def restrict(order: dict) -> None:  # type: ignore[type-arg]
    """Apply what the order asks for, the filter of system calls last."""
    for name, value in order["limits"].items():
        limit(name, value)
    if sys.platform == "linux":
        be_first_out_of_memory()
        libc = ctypes.CDLL(None, use_errno=True)
        if order["landlock"] is not None or order["seccomp"] is not None:
            check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
            drop_capabilities(libc)
        if order["landlock"] is not None:
            landlock(libc, order["landlock"])
        if order["parent"] is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if order["parent"] is not None and os.getppid() != order["parent"]:  # it died before the call above
        sys.exit(1)
    if order["seccomp"] is not None:
        seccomp(libc, order["seccomp"])


def limit(name: str, value: int) -> None:
    """Lower a resource limit for good; never raise it."""
    number = getattr(resource, name, None)
    if number is None:  # macOS has not all of them
        return
    _, hard = resource.getrlimit(number)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    # A second of grace, so that SIGXCPU, which names its reason, comes before SIGKILL.
    top = value + 1 if name == "RLIMIT_CPU" and hard == resource.RLIM_INFINITY else value
    try:
        resource.setrlimit(number, (value, top))
    except (OSError, ValueError):
        if sys.platform == "linux":  # other kernels refuse some limits
            raise


def be_first_out_of_memory() -> None:
    """When the machine runs out of memory, the kernel ends this process and not one of the user's."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123  pathlib is slow to import
            file.write("1000")
    except OSError:
        pass


def drop_capabilities(libc: ctypes.CDLL) -> None:
    """Root's rights, for good: also those that a program would get back when root starts it."""
    if os.geteuid() != 0:
        return
    for number in range(64):
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    check(libc.capset(header, bytes(24)), "capset")


def landlock(libc: ctypes.CDLL, order: dict) -> None:  # type: ignore[type-arg]
    rights = (order["files"], order["network"], order["scoped"])
    if not any(rights):
        return
    handled = struct.pack("=QQQ", *rights)
    ruleset = check(libc.syscall(444, handled, 24, 0), "landlock_create_ruleset")
    for path, kept in order["paths"]:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        rule = struct.pack("=Qi", kept, descriptor)
        check(libc.syscall(445, ruleset, LANDLOCK_PATH_BENEATH, rule, 0), f"landlock_add_rule {path}")
        os.close(descriptor)
    for port, kept in order["ports"]:
        rule = struct.pack("=QQ", kept, port)
        check(libc.syscall(445, ruleset, LANDLOCK_NET_PORT, rule, 0), f"landlock_add_rule {port}")
    check(libc.syscall(446, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def seccomp(libc: ctypes.CDLL, order: dict) -> None:  # type: ignore[type-arg]
    words = bytearray(base64.b64decode(order["filter"]))
    for at in range(4, len(words), 8):
        if struct.unpack_from("=I", words, at)[0] == PID:
            struct.pack_into("=I", words, at, os.getpid())
    program = ctypes.create_string_buffer(bytes(words), len(words))
    header = struct.pack("HxxxxxxP", len(words) // 8, ctypes.addressof(program))
    flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW
    check(libc.syscall(order["call"], SECCOMP_SET_MODE_FILTER, flags, header), "seccomp")


def check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


if __name__ == "__main__":
    main()
