"""`modelstacks package`: a locked model's archive. CDK's asset publishing reads its path from stdout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelstacks.core.artifact.packaging import package

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench


def run(bench: Bench, lock_file: Path) -> None:
    """Print the archive's path, absolute, and nothing else on stdout."""
    bench.terminal.data(str(package(lock_file, bench.project, bench.ports).resolve()))
