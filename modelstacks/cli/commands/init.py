"""`modelstacks init`: a commented spec to start from, taken from the source's own example."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from modelstacks.core.errors import EnvironmentFault, UsageError, did_you_mean, relative
from modelstacks.core.registry import sources, targets

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]")
SCHEMA_LINE = "# yaml-language-server: $schema=../docs/schema/spec.schema.json"


def run(bench: Bench, *, source: str, name: str | None, architecture: str) -> None:
    """Write deployments/NAME.yaml. Raises UsageError for an unknown source, a bad name, an existing file."""
    known = sources()
    if source not in known:
        raise UsageError(
            "unknown model source", got=source, allowed=", ".join(known), fix=did_you_mean(source, known)
        )
    if name is not None and not NAME.fullmatch(name):
        raise UsageError(
            "this name does not fit a stack",
            got=name,
            allowed="2 to 32 lower-case letters, digits and hyphens, beginning with a letter",
        )
    text = _spec(known[source].example, name, architecture)
    written = _value(text, "name")
    path = bench.project / "deployments" / f"{written}.yaml"
    if path.exists():
        raise UsageError(
            f"{relative(path)} is there already",
            fix="choose another name with --name, or edit that file",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except PermissionError as error:
        raise EnvironmentFault(f"cannot write {relative(path)}: {error.strerror}") from None
    bench.terminal.data(relative(path))
    bench.terminal.say(
        f"next: edit it, then `modelstacks lock {relative(path)}` and `modelstacks up {relative(path)}`"
    )


def _spec(example: str, name: str | None, architecture: str) -> str:
    """The source's example under another name, with the blocks that have defaults shown as comments."""
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
        "# What follows are the defaults; take the # away to change one.",
        "# api: {auth: api-key, throttle: {rate: 100, burst: 200}, timeout_seconds: 29}",
        "# scaling: {min_replicas: 2, max_replicas: 8}",
    ]
    lines += [f"# {line}" for target in targets().values() for line in target.example.strip().splitlines()]
    return "\n".join(lines) + "\n"


def _value(text: str, key: str) -> str:
    found = re.search(rf"(?m)^{key}:\s*(\S+)", text)
    if found is None:
        raise TypeError(f"a source's example has no {key}:")
    return found.group(1)
