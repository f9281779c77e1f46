"""`modelstacks validate`: every fault of every spec, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from modelstacks.cli.project import spec_paths
from modelstacks.core.errors import SpecInvalid, relative
from modelstacks.core.validation import read_specs

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench


def run(bench: Bench, words: Sequence[str], *, as_json: bool) -> int:
    """Return 0 where every spec is valid; report the faults and return 2 where one is not."""
    paths = spec_paths(bench.project, words)
    try:
        specs = read_specs(paths)
    except SpecInvalid as error:
        if not as_json:
            raise
        bench.terminal.json({"valid": False, "faults": [asdict(fault) for fault in error.faults]})
        return error.exit_code
    if as_json:
        bench.terminal.json(
            {
                "valid": True,
                "specs": [
                    {"file": relative(path), "name": spec.name}
                    for path, spec in zip(paths, specs, strict=True)
                ],
            }
        )
    else:
        for path, spec in zip(paths, specs, strict=True):
            bench.terminal.data(f"{relative(path)}: valid ({spec.name}, {spec.architecture})")
    return 0
