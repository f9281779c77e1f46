"""`modelstacks env`: what to export so that plain `cdk`, or any AWS SDK, meets the embedded cloud."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from modelstacks.cli.running import attached

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench


def run(bench: Bench, *, as_json: bool) -> None:
    """Print the variables, for `eval "$(modelstacks env)"`. Raises EnvironmentFault where nothing runs."""
    with attached(bench) as session:
        variables = dict(bench.cdk.environment(session.status()))
    if as_json:
        bench.terminal.json({"environment": variables})
        return
    for name, value in sorted(variables.items()):
        bench.terminal.data(f"export {name}={shlex.quote(value)}")
    bench.terminal.say('# eval "$(modelstacks env)", then for example: cdk deploy --all')
