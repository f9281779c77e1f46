"""The `modelstacks` command: its sub-commands, their options, and what every failure looks like.

A command's work lives in a module of its own that is imported when the command runs: `modelstacks --help` and
`modelstacks validate` must be instant, so this file imports typer, the errors, and nothing heavier.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer import Argument, Context, Option, Typer

from modelstacks import __version__
from modelstacks.cli.bench import Bench, missing_package
from modelstacks.cli.console.terminal import one_line
from modelstacks.cli.project import deployment_names, find_project
from modelstacks.core.errors import EnvironmentFault, ModelstacksError, UsageError

__all__ = ["app", "main", "run"]

# pydantic looks through every installed package for plugins before it builds a model: a tenth of `validate`.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

EXIT_INTERNAL = 1
EXIT_INTERRUPTED = 130

app = Typer(
    name="modelstacks",
    help="Put a machine-learning model behind a production HTTP API on AWS; run the same on this machine.",
    epilog="Exit codes: 0 fine, 2 spec or usage, 3 lock missing or stale, 4 environment, 5 deployment, "
    "6 invocation, 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would double the time of --help
    pretty_exceptions_enable=False,
)


class ArchitectureChoice(StrEnum):
    """Which architectures of a spec: the one that it names, one of the two, or both side by side."""

    spec = "spec"
    both = "both"
    self_hosted = "self-hosted"
    managed = "managed"


class OneArchitecture(StrEnum):
    """One of the two architectures."""

    self_hosted = "self-hosted"
    managed = "managed"


def _complete_deployment(ctx: Context, incomplete: str) -> list[str]:
    project = (ctx.find_root().params or {}).get("project") or find_project(Path.cwd())
    return [name for name in deployment_names(Path(project)) if name.startswith(incomplete)]


def _complete_source(incomplete: str) -> list[str]:
    from modelstacks.core.registry import sources

    return [name for name in sources() if name.startswith(incomplete)]


SpecsArgument = Annotated[
    list[str] | None,
    Argument(
        metavar="[SPEC]...",
        help="specs: paths, or names of deployments/*.yaml; default: all of deployments/",
        show_default=False,
        autocompletion=_complete_deployment,
    ),
]
NameArgument = Annotated[
    str, Argument(metavar="NAME", help="a deployment's name", autocompletion=_complete_deployment)
]
ArchitectureOption = Annotated[
    ArchitectureChoice,
    Option(
        "--architecture", "-a", help="deploy as the spec says, as one architecture, or as both side by side"
    ),
]
JsonOption = Annotated[bool, Option("--json", help="report as JSON on stdout")]


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
            help="the project's folder; default: the nearest one with a cdk.json",
        ),
    ] = None,
    debug: Annotated[bool, Option("--debug", help="show the traceback of an unexpected error")] = False,
    _: Annotated[
        bool | None, Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = None,
) -> None:
    bench: Bench = ctx.obj
    bench.debug = bench.debug or debug
    if project is not None:
        if not project.is_dir():
            raise UsageError("the project's folder does not exist", got=str(project))
        bench.project = project.resolve()


@app.command()
def init(
    ctx: Context,
    name: Annotated[str | None, Option("--name", "-n", help="the deployment's name")] = None,
    source: Annotated[
        str, Option("--source", "-s", help="where the model comes from", autocompletion=_complete_source)
    ] = "artifact",
    architecture: Annotated[OneArchitecture, Option("--architecture", "-a")] = OneArchitecture.self_hosted,
) -> None:
    """Write a commented spec to start from."""
    from modelstacks.cli.commands import init as command

    command.run(ctx.obj, source=source, name=name, architecture=architecture.value)


@app.command()
def validate(ctx: Context, specs: SpecsArgument = None, json: JsonOption = False) -> int:
    """Find every fault of the specs at once.

    Each with file, line, field, what it got, what is allowed, and a suggestion.
    """
    from modelstacks.cli.commands import validate as command

    return command.run(ctx.obj, specs or [], as_json=json)


@app.command()
def lock(ctx: Context, specs: SpecsArgument = None, json: JsonOption = False) -> None:
    """Pin everything that can move into a lock file.

    Revisions, checksums, framework, signature, licence, images: NAME.lock.json, to be committed.
    """
    from modelstacks.cli.commands import lock as command

    command.run(ctx.obj, specs or [], as_json=json)


@app.command()
def plan(
    ctx: Context,
    specs: SpecsArgument = None,
    architecture: ArchitectureOption = ArchitectureChoice.spec,
    json: JsonOption = False,
) -> int:
    """Show what would be deployed."""
    from modelstacks.cli.commands import plan as command

    return command.run(ctx.obj, specs or [], architecture=architecture.value, as_json=json)


@app.command()
def up(
    ctx: Context,
    specs: SpecsArgument = None,
    architecture: ArchitectureOption = ArchitectureChoice.spec,
    detach: Annotated[
        bool, Option("--detach", "-d", help="leave the embedded cloud running and return")
    ] = False,
    port: Annotated[
        int | None,
        Option(
            "--port",
            "-p",
            min=1024,
            max=65535,
            help="where the embedded account listens; default: a free port",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Deploy into the embedded cloud on this machine and serve.

    The real CDK CLI deploys the very template that AWS would get; Ctrl-C stops everything.
    """
    from modelstacks.cli.commands import up as command

    command.run(ctx.obj, specs or [], architecture=architecture.value, detach=detach, port=port, as_json=json)


@app.command()
def status(ctx: Context, json: JsonOption = False) -> None:
    """Show what runs: APIs, keys, replicas and their health."""
    from modelstacks.cli.commands import status as command

    command.run(ctx.obj, as_json=json)


@app.command()
def invoke(
    ctx: Context,
    name: NameArgument,
    data: Annotated[
        str | None, Option("--data", metavar="FILE|-", help="the request's body: a file, or - for stdin")
    ] = None,
    architecture: Annotated[
        OneArchitecture | None, Option("--architecture", "-a", help="which one, where both run")
    ] = None,
    content_type: Annotated[
        str | None, Option("--content-type", help="of the body; default: by the file's name, else JSON")
    ] = None,
    accept: Annotated[str | None, Option("--accept", help="the content type to answer in")] = None,
    route: Annotated[
        str, Option("--route", help='method and path, such as "GET /v2/models/churn"')
    ] = "POST /invocations",
    json: JsonOption = False,
) -> None:
    """Send one request to a deployment and print its answer."""
    from modelstacks.cli.commands import invoke as command

    command.run(
        ctx.obj,
        name,
        data=data,
        architecture=architecture.value if architecture else None,
        content_type=content_type,
        accept=accept,
        route=route,
        as_json=json,
    )


@app.command()
def verify(
    ctx: Context,
    name: NameArgument,
    aws: Annotated[bool, Option("--aws", help="the deployment in AWS, with your own credentials")] = False,
    architecture: Annotated[
        OneArchitecture | None, Option("--architecture", "-a", help="only this one, where both run")
    ] = None,
    data: Annotated[
        Path | None,
        Option("--data", metavar="FILE", help="rows to send (CSV or JSON); default: those beside the model"),
    ] = None,
    record: Annotated[
        Path | None, Option("--record", metavar="FILE", help="keep verdicts and answers as evidence")
    ] = None,
    overload: Annotated[
        bool, Option("--overload/--no-overload", help="also send many requests at once")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Ask a deployed API what it must answer; a verdict a line.

    Predictions, content types, protocol, limits, access, overload: the same questions here and in AWS.
    """
    from modelstacks.cli.commands import verify as command

    chosen = architecture.value if architecture else None
    command.run(ctx.obj, name, command.Options(aws, chosen, data, record, overload, json))


@app.command()
def logs(
    ctx: Context,
    name: NameArgument,
    architecture: Annotated[
        OneArchitecture | None, Option("--architecture", "-a", help="only this one, where both run")
    ] = None,
    replica: Annotated[
        str | None, Option("--replica", help="one replica, by the id that status shows")
    ] = None,
    follow: Annotated[bool, Option("--follow", "-f", help="keep printing new lines until Ctrl-C")] = False,
    tail: Annotated[int, Option("--tail", min=1, help="how many of the last lines of each replica")] = 100,
    json: JsonOption = False,
) -> None:
    """Print the replicas' own lines, and why one died."""
    from modelstacks.cli.commands import logs as command

    command.run(
        ctx.obj,
        name,
        architecture=architecture.value if architecture else None,
        replica=replica,
        follow=follow,
        tail=tail,
        as_json=json,
    )


@app.command()
def down(
    ctx: Context,
    purge: Annotated[
        bool, Option("--purge", help="also delete .modelstacks/: logs, packaged models, installed images")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Stop the embedded cloud, and clean up after a crash."""
    from modelstacks.cli.commands import down as command

    command.run(ctx.obj, purge=purge, as_json=json)


@app.command()
def deploy(
    ctx: Context,
    specs: SpecsArgument = None,
    architecture: ArchitectureOption = ArchitectureChoice.spec,
) -> None:
    """Check specs and locks, then `cdk deploy` into AWS.

    Arguments after -- go to the CDK CLI as they are.
    """
    from modelstacks.cli.commands import deploy as command

    command.run(ctx.obj, specs or [], architecture=architecture.value)


@app.command()
def destroy(
    ctx: Context,
    specs: Annotated[
        list[str],
        Argument(metavar="SPEC...", help="specs: paths or names", autocompletion=_complete_deployment),
    ],
    architecture: ArchitectureOption = ArchitectureChoice.spec,
    aws: Annotated[bool, Option("--aws", help="from AWS, with your own credentials")] = False,
) -> None:
    """Remove a deployment's stacks, here or with --aws from AWS.

    With --aws, arguments after -- go to the CDK CLI as they are.
    """
    from modelstacks.cli.commands import destroy as command

    command.run(ctx.obj, specs, architecture=architecture.value, aws=aws)


@app.command()
def doctor(
    ctx: Context,
    aws: Annotated[
        bool, Option("--aws", help="also check the AWS account, with your own credentials; changes nothing")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Check what this machine lacks, and how to fix it."""
    from modelstacks.cli.commands import doctor as command

    command.run(ctx.obj, aws=aws, as_json=json)


@app.command()
def env(ctx: Context, json: JsonOption = False) -> None:
    """Print export lines for plain `cdk` and AWS SDKs.

    With them, `cdk deploy --all` and boto3 meet the embedded cloud.
    """
    from modelstacks.cli.commands import env as command

    command.run(ctx.obj, as_json=json)


@app.command()
def demo(
    ctx: Context,
    once: Annotated[bool, Option("--once", help="stop after the predictions")] = False,
) -> None:
    """Deploy one spec as both architectures and compare answers.

    Held-out rows go through both APIs; what comes back is compared with the trainer's own predictions.
    """
    from modelstacks.cli.commands import demo as command

    command.run(ctx.obj, once=once)


@app.command(hidden=True)
def package(
    ctx: Context, lock_file: Annotated[Path, Argument(metavar="LOCKFILE", help="a .lock.json file")]
) -> None:
    """Print the path of a locked model's archive. CDK's asset publishing runs this."""
    from modelstacks.cli.commands import package as command

    command.run(ctx.obj, lock_file)


def run() -> NoReturn:
    """The entry point of the `modelstacks` command."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str], bench: Bench | None = None) -> int:
    """Run one command and return its exit code; every failure has become a message on stderr."""
    bench = bench or Bench.real()
    arguments = list(arguments)
    if "--" in arguments and {"deploy", "destroy"} & set(
        arguments
    ):  # what follows is the CDK CLI's, not ours
        cut = arguments.index("--")
        arguments, bench.cdk_arguments = arguments[:cut], tuple(arguments[cut + 1 :])
    try:
        returned = app(args=arguments, prog_name="modelstacks", standalone_mode=False, obj=bench)
        code = returned if isinstance(returned, int) else 0
        if code == EXIT_INTERRUPTED:
            bench.terminal.fault("interrupted")
        return code
    except ModelstacksError as error:
        bench.terminal.error(error)
        return error.exit_code
    except typer.exceptions.TyperException as error:
        bench.terminal.fault(_usage(error.format_message()))
        return UsageError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        bench.terminal.fault("interrupted")
        return EXIT_INTERRUPTED
    except ModuleNotFoundError as error:
        try:
            fault = missing_package(error)
        except ModuleNotFoundError:
            return _unexpected(error, bench)
        bench.terminal.error(fault)
        return fault.exit_code
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            where = f": cannot write {error.filename}" if error.filename else ""
            bench.terminal.error(
                EnvironmentFault(
                    f"the disk is full{where}", fix="free some space, then run the command again"
                )
            )
            return EnvironmentFault.exit_code
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            place = error.filename or bench.project
            bench.terminal.error(
                EnvironmentFault(
                    f"this user cannot open or write {place}: {(error.strerror or 'refused').lower()}",
                    fix="run the command in a copy of the project that this user can write to",
                )
            )
            return EnvironmentFault.exit_code
        return _unexpected(error, bench)
    except Exception as error:  # the edge: nothing may reach the user as a traceback
        return _unexpected(error, bench)


def _unexpected(error: Exception, bench: Bench) -> int:
    if bench.debug:
        import traceback

        bench.terminal.say("".join(traceback.format_exception(error)).rstrip())
    bench.terminal.fault(
        f"an unexpected error in modelstacks itself: {one_line(error)}"
        + ("" if bench.debug else "; fix: MODELSTACKS_DEBUG=1 shows where; please report it")
    )
    return EXIT_INTERNAL


def _usage(text: str) -> str:
    """typer's sentence in our manner: lower case, no full stop."""
    text = text.strip().rstrip(".")
    return f"{text[:1].lower()}{text[1:]}; fix: see `modelstacks --help`, `modelstacks COMMAND --help`"
