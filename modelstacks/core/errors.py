"""Every error a user can meet, and the exit code that goes with it.

    ModelstacksError
    ├── SpecInvalid        2   the spec, or the command line, says something that cannot be
    ├── UsageError         2
    │   └── SignatureNeeded    the model does not say what its columns hold
    ├── LockInvalid        3   the lock file is missing, stale or damaged
    ├── EnvironmentFault   4   this machine lacks something: a port, a program, disk space
    ├── DeploymentFailed   5   the deployment was refused, or did not become ready
    └── InvocationFailed   6   the deployed API answered with an error, or not at all

130 is an interrupt (Ctrl-C). An error's text is complete: what happened, what was got, what is allowed, how
to fix it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar

__all__ = [
    "DeploymentFailed",
    "EnvironmentFault",
    "Fault",
    "Invalid",
    "InvocationFailed",
    "LockInvalid",
    "ModelstacksError",
    "SignatureNeeded",
    "SpecInvalid",
    "UsageError",
    "did_you_mean",
    "relative",
]


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing wrong in one place of one file."""

    file: str
    # 1-based; the field's own line, or its parent's where the field is missing.
    line: int
    # Dotted, as the user wrote it: "self-hosted.cpu"; "" for the whole document.
    field: str
    what: str
    got: str = ""
    allowed: str = ""
    fix: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " + (f"{self.field}: " if self.field else "")
        details = [
            f"{label} {value}"
            for label, value in (("got", self.got), ("allowed:", self.allowed), ("fix:", self.fix))
            if value
        ]
        return place + "; ".join([self.what, *details])


class Invalid(ValueError):
    """What a validator of a spec's block raises: one fault, in the parts that a `Fault` has.

    `field` is the offending key of the block, as the user writes it; the fault is then shown on that key's
    line.
    """

    def __init__(
        self, what: str, *, field: str = "", got: str = "", allowed: str = "", fix: str = ""
    ) -> None:
        self.what, self.field, self.got, self.allowed, self.fix = what, field, got, allowed, fix
        super().__init__(what)


class ModelstacksError(Exception):
    """A failure that a user can understand and act on.

    `what` states the failure; `got`, `allowed` and `fix` complete the sentence where they apply.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, got: str = "", allowed: str = "", fix: str = "") -> None:
        self.what, self.got, self.allowed, self.fix = what, got, allowed, fix
        parts = [what]
        parts += [f"got {got}"] if got else []
        parts += [f"allowed: {allowed}"] if allowed else []
        parts += [f"fix: {fix}"] if fix else []
        super().__init__("; ".join(parts))


class UsageError(ModelstacksError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class SignatureNeeded(UsageError):
    """The model does not say what its columns hold.

    Args:
        skeleton: a signature.json to correct, as far as it is known.
    """

    def __init__(self, what: str, skeleton: dict[str, object]) -> None:
        self.skeleton = skeleton
        super().__init__(what)


class SpecInvalid(ModelstacksError):
    """One or more specs cannot be used; `faults` holds every fault found, in file order."""

    exit_code = 2

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__("\n".join(map(str, self.faults)))


class LockInvalid(ModelstacksError):
    """The lock file is missing, stale or damaged; `fix` is the command to run."""

    exit_code = 3


class EnvironmentFault(ModelstacksError):
    """This machine lacks something that the command needs."""

    exit_code = 4


class DeploymentFailed(ModelstacksError):
    """The deployment was refused or did not become ready; the message carries the root cause."""

    exit_code = 5


class InvocationFailed(ModelstacksError):
    """The deployed API answered with an error, or did not answer."""

    exit_code = 6


def did_you_mean(got: object, allowed: Iterable[str]) -> str:
    """`did you mean "x"?` for the allowed word nearest to what was written, or nothing."""
    if not isinstance(got, str):
        return ""
    words = {word.lower(): word for word in sorted(allowed)}
    near = get_close_matches(got.lower(), words, n=1, cutoff=0.6)
    return f'did you mean "{words[near[0]]}"?' if near else ""


def relative(path: Path) -> str:
    """A path as a user would type it: relative to the working directory where it is below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)
