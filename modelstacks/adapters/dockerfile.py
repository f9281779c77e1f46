"""Reads a Dockerfile and works out what building it with given arguments would produce. Pure.

It supports images that are a Python environment: a final stage whose programs are installed by one script.
Everything else is refused by name, never skipped.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from modelstacks.core.errors import UsageError

__all__ = ["Installation", "Recipe", "read"]

#: Programs of RUN that set up the image's operating system, which has no counterpart on this machine.
_OPERATING_SYSTEM = frozenset(
    {
        "apt-get",
        "apk",
        "dnf",
        "microdnf",
        "useradd",
        "adduser",
        "groupadd",
        "addgroup",
        "mkdir",
        "chown",
        "chmod",
        "rm",
        "true",
    }
)
_WITHOUT_EFFECT = frozenset(
    {"LABEL", "MAINTAINER", "STOPSIGNAL", "VOLUME", "WORKDIR", "HEALTHCHECK", "SHELL"}
)
_BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # what every base image sets
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))")


@dataclass(frozen=True, slots=True)
class Installation:
    """`sh SCRIPT PREFIX ENGINE`: the one RUN that puts programs into the image."""

    script: str  # relative to the build context: "install.sh"
    prefix: str  # inside the image: "/opt/model-server"
    arguments: tuple[str, ...]  # after the prefix: ("xgboost",)
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image consists of and how it starts."""

    installation: Installation
    copied: tuple[str, ...]  # paths of the build context that the image is made from
    env: Mapping[str, str]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    exposed_port: int | None
    user: str = ""  # of the last stage's last USER; "" is root


def read(text: str, arguments: Mapping[str, str], name: str = "Dockerfile") -> Recipe:
    """Follow a Dockerfile with these build arguments.

    Raises UsageError naming the instruction that cannot be performed on a machine without Docker.
    """
    known: dict[str, str] = {"PATH": _BASE_PATH}
    env: dict[str, str] = {}
    copied: list[str] = []
    installation: Installation | None = None
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    port: int | None = None
    user = ""
    for line, instruction, rest in _instructions(text):

        def refuse(why: str, *, at: int = line, what: str = instruction, words: str = rest) -> UsageError:
            return UsageError(
                f"{name}:{at}: {why}",
                got=f"{what} {words}"[:200],
                allowed="an image that one `RUN sh install.sh PREFIX ENGINE` installs",
                fix="deploy it into AWS, or let the image be installed by its install.sh",
            )

        def expand(words: str) -> str:
            return _VARIABLE.sub(lambda m: known.get(m[1] or m[3], m[2] or ""), words)

        match instruction:
            case "FROM":  # a new stage starts from its own base
                env, entrypoint, cmd, port, user = (
                    {},
                    (),
                    (),
                    None,
                    "",
                )
            case "ARG":
                variable, _, default = rest.partition("=")
                known[variable] = arguments.get(
                    variable, expand(default) if default else known.get(variable, "")
                )
            case "ENV":
                for variable, value in _assignments(rest):
                    known[variable] = env[variable] = expand(value)
            case "COPY":
                words = [word for word in shlex.split(rest) if not word.startswith("--chown")]
                if any(word.startswith("--from=") for word in words):
                    continue  # from the stage that installs, which is performed in place
                copied += [expand(word) for word in words[:-1]]
            case "RUN":
                for command in _commands(rest):
                    found = _installation(command, expand)
                    if found and installation and found != installation:
                        raise refuse("a second installation cannot be performed without Docker")
                    if not found and command[0] not in _OPERATING_SYSTEM:
                        raise refuse(f"`{command[0]}` cannot be performed without Docker")
                    installation = found or installation
            case "EXPOSE":
                port = int(expand(rest).split("/")[0])
            case "USER":
                user = expand(rest)
            case "ENTRYPOINT":
                entrypoint, cmd = _exec_form(rest, refuse), ()
            case "CMD":
                cmd = _exec_form(rest, refuse)
            case other if other not in _WITHOUT_EFFECT:
                raise refuse(f"{other} cannot be performed without Docker")
    if installation is None:
        raise UsageError(
            f"{name}: nothing installs the image's programs",
            allowed="one `RUN sh install.sh PREFIX ENGINE`",
            fix="deploy it into AWS, or let the image be installed by its install.sh",
        )
    return Recipe(installation, tuple(copied), env, entrypoint, cmd, port, user)


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, INSTRUCTION, the rest), continuation lines joined and comments dropped."""
    start, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        start = start if parts else number
        parts.append(line.strip().removesuffix("\\").strip())
        if not line.rstrip().endswith("\\"):
            instruction, _, rest = " ".join(parts).partition(" ")
            yield start, instruction.upper(), rest.strip()
            parts = []


def _assignments(rest: str) -> Iterator[tuple[str, str]]:
    words = shlex.split(rest)
    if "=" not in words[0]:  # the old form: ENV NAME the whole rest
        yield words[0], " ".join(words[1:])
        return
    for word in words:
        name, _, value = word.partition("=")
        yield name, value


def _commands(rest: str) -> Iterator[list[str]]:
    """The commands of a shell line, in words. Options of RUN itself (--mount=...) are dropped."""
    for command in re.split(r"&&|;", rest):
        words = [word for word in shlex.split(command) if not word.startswith("--mount=")]
        if words:
            yield words


def _installation(words: list[str], expand: Callable[[str], str]) -> Installation | None:
    environment = {}
    while words and re.fullmatch(r"\w+=.*", words[0]):
        name, _, value = words.pop(0).partition("=")
        environment[name] = expand(value)
    if len(words) >= 3 and words[0] in ("sh", "bash", "/bin/sh") and words[1].endswith(".sh"):
        script, prefix, *more = (expand(word) for word in words[1:])
        return Installation(script.removeprefix("./"), prefix, tuple(more), environment)
    return None


def _exec_form(rest: str, refuse: Callable[[str], UsageError]) -> tuple[str, ...]:
    try:
        words = json.loads(rest)
    except ValueError:
        raise refuse('only the exec form, ["program", "argument"], can be started without a shell') from None
    return tuple(map(str, words))
