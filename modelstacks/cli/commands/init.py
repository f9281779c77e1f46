"""`modelstacks init`: write a commented spec to start from, based on the source's own example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Option

from modelstacks.cli.command import Command, Section
from modelstacks.cli.options import OneArchitecture
from modelstacks.core.errors import EnvironmentFault, UsageError, did_you_mean, relative

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]")
SCHEMA = "docs/schema/spec.schema.json"
SCHEMA_LINE = "# yaml-language-server: $schema=../" + SCHEMA


def _complete_source(incomplete: str) -> list[str]:
    from modelstacks.core.registry import sources

    return [name for name in sources() if name.startswith(incomplete)]


def init(
    ctx: typer.Context,
    name: Annotated[str | None, Option("--name", "-n", help="the deployment's name")] = None,
    source: Annotated[
        str, Option("--source", "-s", help="where the model comes from", autocompletion=_complete_source)
    ] = "artifact",
    architecture: Annotated[
        OneArchitecture, Option("--architecture", "-a", help="the architecture to start with")
    ] = "self-hosted",
) -> None:
    """Write a commented spec to start from.

    The file is deployments/NAME.yaml; an existing file is never overwritten.
    """
    from modelstacks.core.registry import sources

    context: CommandContext = ctx.obj
    known = sources()
    if source not in known:
        raise UsageError(
            "unknown model source", got=source, allowed=", ".join(known), fix=did_you_mean(source, known)
        )
    if name is not None and not NAME.fullmatch(name):
        raise UsageError(
            "this name cannot be part of a stack's name",
            got=name,
            allowed="2 to 32 lower-case letters, digits and hyphens, beginning with a letter",
        )
    text = _spec(known[source].example, name, architecture)
    if not (context.project / SCHEMA).is_file():
        text = text.replace(f"{SCHEMA_LINE}\n", "")
    path = context.project / "deployments" / f"{_value(text, 'name')}.yaml"
    if path.exists():
        raise UsageError(
            f"{relative(path)} already exists", fix="choose another name with --name, or edit that file"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except PermissionError as error:
        raise EnvironmentFault(f"cannot write {relative(path)}: {error.strerror}") from None
    context.terminal.data(relative(path))
    context.terminal.say(
        f"next: edit it, then `modelstacks lock {relative(path)}` and `modelstacks up {relative(path)}`"
    )


def _spec(example: str, name: str | None, architecture: str) -> str:
    """Return the source's example under another name, with the blocks that have defaults as comments."""
    text = example.strip() + "\n"
    if name is not None:
        text = re.sub(r"(?m)^name:.*$", f"name: {name}", text, count=1)
    other = "managed" if architecture == "self-hosted" else "self-hosted"
    text = re.sub(r"(?m)^architecture:.*\n", "", text)
    if not text.startswith("# yaml-language-server"):
        text = f"{SCHEMA_LINE}\n{text}"
    lines = [
        text.rstrip(),
        f"architecture: {architecture}      # or: {other}; nothing changes for the API's callers",
        "",
        "# The lines below show the defaults; remove the # to change one.",
        "# api: {auth: api-key, throttle: {rate: 100, burst: 200}, timeout_seconds: 29}",
        "# scaling: {min_replicas: 2, max_replicas: 8}",
    ]
    for each in ("self-hosted", "managed"):
        if not re.search(rf"(?m)^{each}:", text):
            lines += _compute(each)
    return "\n".join(lines) + "\n"


def _compute(architecture: Literal["self-hosted", "managed"]) -> Iterator[str]:
    """Yield the block of the default target, and the names of the others, as comments."""
    from modelstacks.core.registry import default_target, targets

    default = default_target(architecture)
    yield from (f"# {line}" for line in default.example.strip().splitlines())
    for target in targets(architecture).values():
        if target is not default:
            yield f"#   or {target.name}: {target.summary}"


def _value(text: str, key: str) -> str:
    found = re.search(rf"(?m)^{key}:\s*(\S+)", text)
    if found is None:
        raise TypeError(f"a source's example has no {key}:")
    return found.group(1)


COMMAND = Command(
    init, Section.START, order=20, examples=("modelstacks init --name churn --source huggingface -a managed",)
)
