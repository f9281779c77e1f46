"""Runs the checks of `modelstacks verify` against deployed stacks, and reports what they found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelstacks.adapters.aws_account import AwsAccount, Keys
from modelstacks.adapters.deployed_api import DeployedApi
from modelstacks.cli.embedded_api import callable_api
from modelstacks.cli.project import spec_paths
from modelstacks.cli.running import api_of, attached, stacks_of
from modelstacks.cli.sample_requests import example_body
from modelstacks.core.errors import InvocationFailed, UsageError
from modelstacks.core.plan.deployments import load_plans
from modelstacks.core.spec.validation import read_spec
from modelstacks.verification.checks import checks
from modelstacks.verification.evidence import Finding, report, write
from modelstacks.verification.rows import Rows, example_rows, read_rows
from modelstacks.verification.subject import Subject
from modelstacks.verification.verdict import Verdict

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext
    from modelstacks.core.plan import Plan

MARKS = {"passed": "[green]ok[/green]", "failed": "[red]FAILED[/red]", "skipped": "[yellow]skipped[/yellow]"}


@dataclass(frozen=True)
class Options:
    """The options of the command."""

    aws: bool
    architecture: str | None
    data: Path | None
    record: Path | None
    overload: bool
    as_json: bool


@dataclass
class Found:
    """A deployed stack and the findings about it."""

    plan: Plan
    api: DeployedApi
    account: AwsAccount
    place: dict[str, str]
    findings: list[Finding] = field(default_factory=list)


def run(context: CommandContext, name: str, options: Options) -> None:
    """Check every architecture that runs. Raises InvocationFailed if any answer is wrong."""
    (path,) = spec_paths(context.project, [name])
    rows = _rows(context, path, options)
    reports = []
    with _in_aws(context, path, options) if options.aws else _here(context, path, options) as stacks:
        for found in stacks:
            subject = Subject(found.plan, found.api, rows or _example(found.plan), options.overload)
            found.findings = _ask(context, subject, as_json=options.as_json)
            facts = found.account.facts(found.plan.stack_name) if options.record else {}
            reports.append(report(found.plan, found.place, found.findings, facts))
    if options.record is not None:
        write(options.record, reports, {found.place["account"] for found in stacks if options.aws})
    if options.as_json:
        context.terminal.json({"deployments": reports})
    _conclude(context, stacks)


def _ask(context: CommandContext, subject: Subject, *, as_json: bool) -> list[Finding]:
    findings: list[Finding] = []
    for check in checks():
        try:
            findings.extend((check, verdict) for verdict in check.run(subject))
        except InvocationFailed as error:
            # No answer at all; the other checks may still get one.
            findings.append((check, Verdict(check.name, "failed", str(error))))
    if not as_json:
        context.terminal.data("")
        context.terminal.table(
            (f"[bold]{subject.plan.stack_name}[/bold]", "", subject.api.url),
            [
                (verdict.question, MARKS[verdict.state], verdict.detail.replace("[", "\\["))
                for _, verdict in findings
            ],
        )
    return findings


def _conclude(context: CommandContext, stacks: Sequence[Found]) -> None:
    failed = [
        f"{found.plan.stack_name}: {verdict.question}"
        for found in stacks
        for _, verdict in found.findings
        if verdict.failed
    ]
    if failed:
        raise InvocationFailed(
            f"{len(failed)} check{'s' * (len(failed) != 1)} failed: {'; '.join(failed)}",
            fix="modelstacks logs NAME shows the replicas' own lines",
        )
    asked = sum(len(found.findings) for found in stacks)
    context.terminal.say(f"{asked} checks, all passed or skipped")


def _rows(context: CommandContext, path: Path, options: Options) -> Rows | None:
    """Return the rows of --data, or those beside the model if the source is a folder of the project."""
    place: object = getattr(read_spec(path).model, "path", None)
    folder = context.project / str(place) if place is not None else None
    return read_rows(folder if folder is not None and folder.is_dir() else None, options.data)


def _example(plan: Plan) -> Rows:
    if plan.signature is None:
        raise UsageError(f"{plan.name}: the lock does not say what it takes", fix="give rows with --data")
    return example_rows(example_body(plan.signature))


@contextmanager
def _here(context: CommandContext, path: Path, options: Options) -> Iterator[list[Found]]:
    """Yield the stacks of a deployment in the embedded cloud."""
    plans = {plan.stack_name: plan for plan in load_plans([path], "both", context.project)}
    name = next(iter(plans.values())).name
    with attached(context) as session:
        status = session.status()
        keys = Keys(
            status.endpoint_url, status.credentials.access_key_id, status.credentials.secret_access_key
        )
        place = {"cloud": "embedded", "region": status.region}
        yield [
            Found(
                plans[stack],
                callable_api(api_of(status, stack), status),
                AwsAccount(status.region, keys),
                place,
            )
            for stack in stacks_of(status, name, options.architecture)
        ]


@contextmanager
def _in_aws(context: CommandContext, path: Path, options: Options) -> Iterator[list[Found]]:
    """Yield the stacks of a deployment in the caller's AWS account."""
    found = []
    plans = load_plans([path], "both", context.project)
    for plan in plans:
        if options.architecture not in (None, plan.architecture):
            continue
        account = AwsAccount(plan.aws.region if plan.aws else None)
        outputs = account.outputs(plan.stack_name)
        if outputs is not None:
            found.append(Found(plan, _api_in_aws(account, plan, outputs), account, _place(account, plan)))
    if not found:
        raise UsageError(
            "AWS has no such stack",
            got=" or ".join(plan.stack_name for plan in plans),
            fix=f"modelstacks deploy {plans[0].name}, or check the profile and region",
        )
    yield found


def _api_in_aws(account: AwsAccount, plan: Plan, outputs: Any) -> DeployedApi:
    url = outputs["ApiUrl"].rstrip("/")
    if plan.api.auth == "iam":
        return DeployedApi(url, signer=account.signer())
    return DeployedApi(url, api_key=account.api_key(outputs["ApiKeyId"]))


def _place(account: AwsAccount, plan: Plan) -> dict[str, str]:
    region = {"region": plan.aws.region} if plan.aws else {}
    return {"cloud": "aws", "account": account.account_id(), **region}
