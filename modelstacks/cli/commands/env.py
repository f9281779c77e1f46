"""`modelstacks env`: what to export so that plain `cdk`, or any AWS SDK, meets the embedded cloud."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from modelstacks.cli.running import attached

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench

#: Of the user's own accounts: with these, an SDK would take other keys than ours, or sign with a token.
UNSET = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")


def run(bench: Bench, *, as_json: bool) -> None:
    """Print the variables, for `eval "$(modelstacks env)"`. Raises EnvironmentFault where nothing runs."""
    with attached(bench) as session:
        variables = dict(bench.cdk.environment(session.status()))
    if as_json:
        bench.terminal.json({"environment": variables, "unset": list(UNSET)})
        return
    bench.terminal.data(f"unset {' '.join(UNSET)}")
    for name, value in sorted(variables.items()):
        bench.terminal.data(f"export {name}={shlex.quote(value)}")
    bench.terminal.say('# eval "$(modelstacks env)", then for example: cdk deploy --all')
