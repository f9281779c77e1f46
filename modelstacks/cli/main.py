"""The `modelstacks` command: global options, discovery of the commands, errors turned into exit codes.

`modelstacks --help` and `modelstacks validate` must be instant, so this file imports typer, the errors, and
nothing heavier; the commands are in modelstacks/cli/commands/.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer import Context, Option, Typer

from modelstacks import __version__
from modelstacks.cli.command import CommandGroup, command_names, load
from modelstacks.cli.composition import real_context
from modelstacks.cli.console.terminal import one_line
from modelstacks.cli.context import CommandContext, missing_package
from modelstacks.core.errors import EnvironmentFault, ModelstacksError, UsageError

__all__ = ["app", "main", "run"]

# pydantic searches every installed package for plugins before it builds a model: a tenth of `validate`.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

EXIT_INTERNAL = 1
EXIT_INTERRUPTED = 130

app = Typer(
    name="modelstacks",
    cls=CommandGroup,
    help="Put a machine-learning model behind a production HTTP API on AWS. The same runs on this machine.",
    epilog="Exit codes: 0 success, 2 spec or usage, 3 lock missing or stale, 4 environment, 5 deployment, "
    "6 invocation, 130 interrupted.",
    no_args_is_help=True,
    # rich would double the time of --help.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"modelstacks {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    ctx: Context,
    project: Annotated[
        Path | None,
        Option(
            "--project",
            "-C",
            metavar="DIR",
            help="the project's folder; default: the nearest with a cdk.json",
        ),
    ] = None,
    debug: Annotated[bool, Option("--debug", help="show the traceback of an unexpected error")] = False,
    _: Annotated[
        bool | None, Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = None,
) -> None:
    context: CommandContext = ctx.obj
    context.debug = context.debug or debug
    if project is not None:
        if not project.is_dir():
            raise UsageError("the project's folder does not exist", got=str(project))
        context.project = project.resolve()


def run() -> NoReturn:
    """Run the command line of this process: the entry point of `modelstacks`."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str], context: CommandContext | None = None) -> int:
    """Run one command and return its exit code. Every failure becomes a message on stderr."""
    context = context or real_context()
    words = _split_off_cdk_arguments(arguments, context)
    try:
        returned = app(args=words, prog_name="modelstacks", standalone_mode=False, obj=context)
    except ModelstacksError as error:
        return _reported(error, context)
    except typer.exceptions.TyperException as error:
        context.terminal.fault(_usage(error.format_message()))
        return UsageError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        context.terminal.fault("interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:  # the edge: nothing may reach the user as a traceback
        explained = _explained(error, context)
        return _reported(explained, context) if explained else _unexpected(error, context)
    code = returned if isinstance(returned, int) else 0
    if code == EXIT_INTERRUPTED:
        context.terminal.fault("interrupted")
    return code


def _split_off_cdk_arguments(arguments: Sequence[str], context: CommandContext) -> list[str]:
    """Put what follows `--` into the context, for commands that pass it to the CDK CLI."""
    words = list(arguments)
    if "--" in words and any(load(name).passes_on for name in command_names() if name in words):
        cut = words.index("--")
        words, context.cdk_arguments = words[:cut], tuple(words[cut + 1 :])
    return words


def _reported(error: ModelstacksError, context: CommandContext) -> int:
    context.terminal.error(error)
    return error.exit_code


def _explained(error: Exception, context: CommandContext) -> EnvironmentFault | None:
    """Return what the user can do about an exception that this machine is the cause of."""
    if isinstance(error, ModuleNotFoundError):
        try:
            return missing_package(error)
        except ModuleNotFoundError:
            return None
    if not isinstance(error, OSError):
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = f": cannot write {error.filename}" if error.filename else ""
        return EnvironmentFault(f"the disk is full{where}", fix="free some space, then run the command again")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        place = error.filename or context.project
        return EnvironmentFault(
            f"this user cannot open or write {place}: {(error.strerror or 'refused').lower()}",
            fix="run the command in a copy of the project that this user can write to",
        )
    return None


def _unexpected(error: Exception, context: CommandContext) -> int:
    if context.debug:
        import traceback

        context.terminal.say("".join(traceback.format_exception(error)).rstrip())
    context.terminal.fault(
        f"an unexpected error in modelstacks itself: {one_line(error)}"
        + ("" if context.debug else "; fix: MODELSTACKS_DEBUG=1 shows where; please report it")
    )
    return EXIT_INTERNAL


def _usage(text: str) -> str:
    """Return typer's sentence in our form: lower case, no full stop."""
    text = text.strip().rstrip(".")
    return f"{text[:1].lower()}{text[1:]}; fix: see `modelstacks --help`, `modelstacks COMMAND --help`"
