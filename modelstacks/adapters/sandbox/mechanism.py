"""Which mechanism this machine has: tried once, by running a program under it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from modelstacks.adapters.sandbox import bubblewrap, landlock, seccomp
from modelstacks.adapters.sandbox.interpreters import interpreter_paths
from modelstacks.adapters.sandbox.policy import Limits, Policy
from modelstacks.core.errors import EnvironmentFault, UsageError

__all__ = ["FIX", "LAUNCHER", "VARIABLE", "WISHES", "Prepared", "Sandbox", "choose", "wish"]

Kind = Literal["bubblewrap", "landlock", "none"]
Wish = Literal["auto", "require", "bubblewrap", "landlock", "none"]
WISHES: tuple[Wish, ...] = get_args(Wish)
VARIABLE = "MODELSTACKS_SANDBOX"
LAUNCHER, HOLD = Path(__file__).with_name("launch.py"), Path(__file__).with_name("hold.py")
FIX = "install bubblewrap (apt, dnf, pacman), or use a kernel with Landlock and seccomp (Linux 5.13 or newer)"
_PROBE_SECONDS = 20.0
_SECCOMP_CALL = dict(zip(seccomp.MACHINES, (317, 277), strict=True))
_KERNEL_LIMITS = {
    "memory": "RLIMIT_DATA",
    "cpu_seconds": "RLIMIT_CPU",
    "file_bytes": "RLIMIT_FSIZE",
    "open_files": "RLIMIT_NOFILE",
    "processes": "RLIMIT_NPROC",
}
_ADDRESS_SPACE = 4  # times the memory


@dataclass(frozen=True, slots=True)
class Prepared:
    """A command that runs a program in the sandbox: for subprocess.run and asyncio.create_subprocess_exec."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]  # of the sandbox's own programs; the program has the one it was given
    descriptors: tuple[int, ...]  # to pass on


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How processes are restricted on this machine."""

    kind: Kind
    bwrap: Path | None = None
    abi: int = 0  # of Landlock; 0 without
    filters: bool = False  # system calls, by seccomp
    lacking: str = ""  # why no stronger mechanism is used; empty where nothing is missing

    @property
    def private_network(self) -> bool:
        """Whether a process can have a loopback interface that nothing else of this machine reaches."""
        return self.kind == "bubblewrap"

    @property
    def summary(self) -> str:
        """One line for people: what runs models here."""
        extra = [f"Landlock ABI {self.abi}"] * bool(self.abi) + ["seccomp"] * self.filters
        if self.kind == "none":
            return "none: resource limits only"
        return " with ".join(filter(None, ("bubblewrap" * (self.kind == "bubblewrap"), " and ".join(extra))))

    @property
    def warning(self) -> str:
        """What a user must know before a model is loaded; empty where nothing is missing."""
        if self.kind != "none":
            return ""
        return (
            f"models run without a sandbox on this machine ({self.lacking}): "
            f"a hostile one could read your files and use the network; fix: {FIX}"
        )

    @contextmanager
    def prepared(
        self,
        policy: Policy,
        argv: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        *,
        started: int | None = None,
        sockets: int | None = None,
    ) -> Iterator[Prepared]:
        """A command that runs `argv` under the policy, and dies with the thread that starts it.

        Args:
            environment: all that the program gets.
            started: a descriptor to which a line is written when the sandbox is up, and a second one where
                the program cannot be run.
            sockets: a Unix socket, of a policy with a private network. Over it come listeners on the ports
                `policy.connect`, made inside the private network, and then one socket for each byte.
        """
        order = {
            "argv": list(argv),
            "environment": dict(environment),
            "started": started,
            "sockets": sockets,
            "listeners": list(policy.connect),
            "parent": os.getpid() if self.kind != "bubblewrap" else None,
            "limits": _limits(policy.limits),
            "landlock": self._landlock(policy),
            "seccomp": self._seccomp(policy),
        }
        with tempfile.TemporaryFile() as file:
            file.write(json.dumps(order).encode())
            file.flush()
            file.seek(0)
            python = Path(sys.executable).resolve()  # the launcher needs no packages
            isolated = [str(python), "-I", "-S"]
            command = [*isolated, str(LAUNCHER), str(file.fileno())]
            if self.kind == "bubblewrap":
                assert self.bwrap is not None
                wrapped = bubblewrap.wrap(self.bwrap, self._within(policy), command, directory)
                command = [*isolated, str(HOLD), *wrapped]
            descriptors = (file.fileno(), *(one for one in (started, sockets) if one is not None))
            yield Prepared(tuple(command), {"PATH": os.defpath, "LANG": "C.UTF-8"}, descriptors)

    def _within(self, policy: Policy) -> Policy:
        """The policy, and what the launcher itself must read: it runs inside."""
        own = (*_own_interpreter(), LAUNCHER)
        return replace(policy, readable=tuple(dict.fromkeys((*policy.readable, *own))))

    def _landlock(self, policy: Policy) -> Mapping[str, object] | None:
        alone = self.kind == "landlock"
        if not self.abi or not (alone or policy.network != "none"):
            return None
        return asdict(landlock.ruleset(policy, self.abi, files=alone, etc=bubblewrap.ETC))

    def _seccomp(self, policy: Policy) -> Mapping[str, object] | None:
        if not self.filters:
            return None
        namespaces = self.kind == "bubblewrap"
        compiled = seccomp.compile_filter(
            policy, namespaces=namespaces, scoped=self.abi >= landlock.SCOPE_ABI
        )
        return {"call": _SECCOMP_CALL[os.uname().machine], "filter": base64.b64encode(compiled).decode()}

    def works(self) -> str:
        """Why a program cannot be run in it; empty where it can."""
        program = shutil.which("true") or "/bin/true"
        try:
            with tempfile.TemporaryDirectory() as folder:
                policy = Policy(writable=(Path(folder),), network="private")
                with self.prepared(policy, [program], {}, Path(folder)) as ready:
                    done = subprocess.run(
                        ready.argv,
                        env=dict(ready.environment),
                        pass_fds=ready.descriptors,
                        cwd=folder,
                        stdin=subprocess.DEVNULL,
                        capture_output=True,
                        timeout=_PROBE_SECONDS,
                        check=False,
                    )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode == 0:
            return ""
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return said[-1] if said else f"exit status {done.returncode}"


def wish() -> Wish:
    """What MODELSTACKS_SANDBOX asks for. Raises UsageError for a word that it does not know."""
    text = os.environ.get(VARIABLE, "") or "auto"
    for known in WISHES:
        if text == known:
            return known
    raise UsageError(f"{VARIABLE} is not a kind of sandbox", got=text, allowed=", ".join(WISHES))


@cache
def choose(wanted: Wish) -> Sandbox:
    """The strongest mechanism that works here, or the one asked for. Tried once in a process.

    Raises EnvironmentFault where `wanted` does not work, or is "require" and there is none.
    """
    lacking = []
    for candidate in _candidates():
        if wanted not in ("auto", "require", candidate.kind):
            continue
        problem = candidate.lacking or candidate.works()
        if not problem:
            return candidate
        lacking.append(f"{candidate.kind}: {problem}")
    if wanted not in ("auto", "none"):
        raise EnvironmentFault(
            f"{VARIABLE} is {wanted}, and this machine has no such sandbox", got="; ".join(lacking), fix=FIX
        )
    return Sandbox("none", lacking="; ".join(lacking) or f"{VARIABLE} is none")


def _candidates() -> Iterator[Sandbox]:
    """From the strongest to the weakest. `lacking` is set on those that need not be tried."""
    if sys.platform != "linux":
        yield Sandbox("bubblewrap", lacking=f"{sys.platform} has none")
        yield Sandbox("landlock", lacking=f"{sys.platform} has none")
        return
    abi, filters = landlock.kernel_abi(), seccomp.supported()
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        yield Sandbox("bubblewrap", lacking="bwrap is not installed")
    else:
        yield Sandbox("bubblewrap", Path(bwrap), abi, filters)
    if not abi:
        yield Sandbox("landlock", lacking="the kernel has no Landlock")
    elif not filters:
        yield Sandbox("landlock", lacking=f"no seccomp filter for {os.uname().machine}")
    else:
        yield Sandbox("landlock", None, abi, filters)


@cache
def _own_interpreter() -> tuple[Path, ...]:
    """What this process's interpreter needs for the launcher: its own prefix, and no packages."""
    return interpreter_paths(Path(sys.executable).resolve())


def _limits(limits: Limits) -> Mapping[str, int]:
    """By the kernel's names. Core dumps are always off: they would hold the model and its credentials."""
    given = {_KERNEL_LIMITS[name]: value for name, value in asdict(limits).items() if value is not None}
    if limits.memory is not None:
        given["RLIMIT_AS"] = limits.memory * _ADDRESS_SPACE
    return {**given, "RLIMIT_CORE": 0}
