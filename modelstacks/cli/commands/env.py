"""`modelstacks env`: the variables that direct plain `cdk`, or any AWS SDK, to the embedded cloud."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import typer

from modelstacks.cli.command import Command, Section
from modelstacks.cli.options import JsonOption

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext

#: The user's own settings: with these, an SDK would use other keys than ours, or sign with a token.
UNSET = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")


def env(ctx: typer.Context, json: JsonOption = False) -> None:
    """Print export lines for plain `cdk` and AWS SDKs.

    With them, `cdk deploy --all` and boto3 use the embedded cloud.
    """
    from modelstacks.cli.running import attached

    context: CommandContext = ctx.obj
    with attached(context) as session:
        variables = dict(context.cdk.environment(session.status()))
    if json:
        context.terminal.json({"environment": variables, "unset": list(UNSET)})
        return
    context.terminal.data(f"unset {' '.join(UNSET)}")
    for name, value in sorted(variables.items()):
        context.terminal.data(f"export {name}={shlex.quote(value)}")
    context.terminal.say('# eval "$(modelstacks env)", then for example: cdk deploy --all')


COMMAND = Command(env, Section.HERE, order=70, examples=('eval "$(modelstacks env)" && cdk deploy --all',))
