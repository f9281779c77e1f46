"""`modelstacks lock`: pin what can move, one lock file a spec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelstacks.cli.project import spec_paths
from modelstacks.core.errors import relative
from modelstacks.core.lock.locking import lock
from modelstacks.core.spec.validation import read_specs

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench


def run(bench: Bench, words: Sequence[str], *, as_json: bool) -> None:
    """Lock every spec; all of them are validated before the first is resolved."""
    paths = spec_paths(bench.project, words)
    read_specs(paths)
    bench.warn_without_sandbox()
    report = []
    for path in paths:
        outcome = lock(path, bench.project, bench.ports, report=bench.terminal.say)
        model = outcome.lock.model
        report.append(
            {
                "spec": relative(path),
                "lock": relative(outcome.path),
                "changed": outcome.changed,
                "revision": model.revision,
                "archive_sha256": model.archive.sha256,
                "warnings": list(outcome.warnings),
            }
        )
        if not as_json:
            done = "written" if outcome.changed else "unchanged"
            bench.terminal.data(
                f"{relative(outcome.path)}: {done} ({model.engine}, {model.task}, "
                f"{model.license or 'no licence'}, sha256 {model.archive.sha256[:12]})"
            )
    if as_json:
        bench.terminal.json({"locks": report})
