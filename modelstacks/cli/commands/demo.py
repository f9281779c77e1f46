"""`modelstacks demo`: one spec, both architectures, real predictions, compared with the trainer's.

The rows are those that the trainer held out; predictions.json beside the model has the trainer's own answers.
The two APIs are called as any caller would call them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from modelstacks.cli.command import Command, Section
from modelstacks.core.errors import EnvironmentFault, InvocationFailed, UsageError, relative

if TYPE_CHECKING:
    from modelstacks.adapters.deployed_api import Answer
    from modelstacks.cli.context import CommandContext
    from modelstacks.cli.deploying import Deployment, Running

#: The example of a project from `modelstacks new`, and of a checkout.
SPEC = "deployments/churn.yaml"
REPEATS = 20
#: Of float32 probabilities that were printed and parsed again.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Measured:
    """What one architecture answered, and how fast.

    Args:
        predictions: all numbers of all rows, in order.
    """

    deployment: Deployment
    predictions: Sequence[float]
    first_ms: float
    median_ms: float


def demo(
    ctx: typer.Context,
    once: Annotated[bool, Option("--once", help="stop after the predictions")] = False,
) -> None:
    """Deploy one spec as both architectures and compare answers.

    Held-out rows are sent to both APIs, and the answers are compared with the trainer's own predictions.
    """
    from modelstacks.cli.deploying import deployed_here
    from modelstacks.cli.serving import watch

    context: CommandContext = ctx.obj
    rows, expected = _held_out(context)
    spec = context.project / SPEC
    context.terminal.say(
        f"{SPEC} as both architectures, deployed by the real CDK CLI into the embedded cloud"
    )
    with deployed_here(context, [spec], architecture="both") as running:
        measured = [_measure(one, running, rows) for one in running.deployments]
        _show(context, running, measured, rows, expected)
        if not once:
            context.terminal.say("serving; Ctrl-C stops everything")
            watch(context, running.session)


def _held_out(context: CommandContext) -> tuple[list[list[float]], Sequence[float]]:
    """Return the held-out rows (n x features), and the trainer's predictions of them, flattened."""
    from modelstacks.core.spec.validation import read_spec
    from modelstacks.verification.rows import read_rows, values

    spec = context.project / SPEC
    if not spec.is_file():
        raise UsageError(
            f"the demo deploys {SPEC}, which this project does not have",
            got=str(context.project),
            fix="run it in a project that `modelstacks new` wrote, or `modelstacks up` a spec of your own",
        )
    model = context.project / str(getattr(read_spec(spec).model, "path", ""))
    rows = read_rows(model, None)
    if rows is None or rows.expected is None:
        raise EnvironmentFault(
            f"{relative(model)} has no held-out rows with predictions",
            fix="restore holdout.csv and predictions.json there",
        )
    return rows.body["instances"], values(rows.expected).numbers


def _measure(one: Deployment, running: Running, rows: Sequence[Sequence[float]]) -> Measured:
    """Send all rows in one request, then the first row repeatedly, one request at a time."""
    import statistics

    from modelstacks.verification.rows import values

    first = _predict(one, running, {"instances": rows})
    single = [_predict(one, running, {"instances": rows[:1]}).seconds for _ in range(REPEATS)]
    return Measured(
        one,
        values(json.loads(first.body)["predictions"]).numbers,
        first.seconds * 1000,
        statistics.median(single) * 1000,
    )


def _predict(one: Deployment, running: Running, body: dict[str, Any]) -> Answer:
    from modelstacks.cli.embedded_api import callable_api, explanation

    answer = callable_api(one.api, running.status).send(
        "POST",
        "/invocations",
        body=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    if not answer.ok:
        raise InvocationFailed(f"{one.plan.stack_name} answered {answer.status}: {explanation(answer)}")
    return answer


def _difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the largest absolute difference; infinite if the answers differ in length."""
    if len(one) != len(other):
        return float("inf")
    return max((abs(a - b) for a, b in zip(one, other, strict=True)), default=0.0)


def _show(
    context: CommandContext,
    running: Running,
    measured: Sequence[Measured],
    rows: Sequence[Sequence[float]],
    expected: Sequence[float],
) -> None:
    terminal = context.terminal
    terminal.data("")
    terminal.table(
        ("architecture", "target", "rows", "differs from the trainer", "first call", "then, one row"),
        [
            (
                f"[bold]{one.deployment.plan.architecture}[/bold]",
                str(one.deployment.plan.target.model_dump()["target"]),
                str(len(rows)),
                f"{_difference(one.predictions, expected):.1e}",
                f"{one.first_ms:.0f} ms",
                f"{one.median_ms:.1f} ms",
            )
            for one in measured
        ],
    )
    between = _difference(measured[0].predictions, measured[1].predictions)
    worst = max(between, *(_difference(one.predictions, expected) for one in measured))
    terminal.data(f"\nlargest difference between the two architectures: {between:.1e}")
    if worst > TOLERANCE:
        raise InvocationFailed(
            "the answers do not agree", got=f"a difference of {worst:.1e}", allowed=f"{TOLERANCE:.0e}"
        )
    terminal.data(f"both agree with the trainer; up in {running.seconds:.1f} s\n")
    _show_requests(context, running, measured, {"instances": [rows[0]]})


def _show_requests(
    context: CommandContext, running: Running, measured: Sequence[Measured], body: dict[str, Any]
) -> None:
    from modelstacks.cli.sample_requests import curl_lines

    status = running.status
    folder = context.project / ".modelstacks" / "requests"
    for one in measured:
        api, plan = one.deployment.api, one.deployment.plan
        context.terminal.data(f"{plan.stack_name}   {api.url}")
        for line in curl_lines(api, plan, status.credentials, status.region, folder=folder, body=body):
            context.terminal.data(f"  {line}")


COMMAND = Command(demo, Section.START, order=30, examples=("modelstacks demo --once",))
