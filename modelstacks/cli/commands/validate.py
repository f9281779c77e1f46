"""`modelstacks validate`: every fault of every spec, in one pass, and what looks wrong in a valid one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from modelstacks.cli.project import spec_paths
from modelstacks.core.errors import Fault, ModelstacksError, SpecInvalid, relative
from modelstacks.core.registry import sources
from modelstacks.core.spec.validation import CheckedSpec, check_specs

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench


def run(bench: Bench, words: Sequence[str], *, as_json: bool) -> int:
    """Return 0 where every spec is valid; report the faults and return 2 where one is not."""
    paths = spec_paths(bench.project, words)
    try:
        checked = check_specs(paths)
    except SpecInvalid as error:
        if not as_json:
            raise
        bench.terminal.json(refusal(error))
        return error.exit_code
    warnings = [fault for one in checked for fault in _doubts(one, bench)]
    if as_json:
        specs = [
            {"file": relative(path), "name": one.spec.name} for path, one in zip(paths, checked, strict=True)
        ]
        bench.terminal.json(
            {"valid": True, "specs": specs, "warnings": [asdict(warning) for warning in warnings]}
        )
        return 0
    for path, one in zip(paths, checked, strict=True):
        bench.terminal.data(f"{relative(path)}: valid ({one.spec.name}, {one.spec.architecture})")
    for warning in warnings:
        bench.terminal.say(f"warning: {warning}")
    return 0


def refusal(error: ModelstacksError) -> dict[str, Any]:
    """A refused spec or lock as JSON: each fault of a spec, or the one error in its parts."""
    if isinstance(error, SpecInvalid):
        return {"valid": False, "faults": [asdict(fault) for fault in error.faults]}
    parts = {"what": error.what, "got": error.got, "allowed": error.allowed, "fix": error.fix}
    return {"valid": False, "faults": [], "error": parts}


def _doubts(one: CheckedSpec, bench: Bench) -> list[Fault]:
    source = sources()[one.spec.model.source]
    return [
        Fault(
            one.document.file,
            one.document.line(tuple(doubt.field.split("."))),
            doubt.field,
            doubt.what,
            got=doubt.got,
            fix=doubt.fix,
        )
        for doubt in source.doubts(one.spec.model, bench.project)
    ]
