"""`modelstacks down`: stop everything that this project started here, and clean up behind a crash."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from modelstacks.core.errors import EnvironmentFault, relative

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench


def run(bench: Bench, *, purge: bool, as_json: bool) -> None:
    """Idempotent: nothing to stop is fine."""
    session = bench.cloud.attach(bench.project)
    ended: tuple[int, ...] = ()
    if session is not None:
        session.shutdown()
        done = "stopped the embedded cloud and everything in it"
    else:
        ended = bench.cloud.clean(bench.project)
        done = (
            f"cleaned up behind a run that crashed: ended {len(ended)} process{'es' * (len(ended) != 1)}"
            if ended
            else "nothing was running"
        )
    state = bench.project / ".modelstacks"
    if purge and state.exists():
        try:
            shutil.rmtree(state)
        except OSError as error:
            raise EnvironmentFault(f"cannot delete {relative(state)}: {error.strerror}") from None
        done += f"; deleted {relative(state)}"
    if as_json:
        bench.terminal.json({"stopped": session is not None, "ended_pids": list(ended), "purged": purge})
    else:
        bench.terminal.data(done)
