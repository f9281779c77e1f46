"""`modelstacks demo`: one spec, both architectures, real predictions, compared with the trainer's.

The rows are the ones that the trainer held out; predictions.json beside the model is what the trainer itself
said of them. Nothing here knows how the model server computes: it calls the two APIs as anybody would.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelstacks.adapters.deployed_api import Answer
from modelstacks.cli.commands.invoke import explanation
from modelstacks.cli.commands.up import Deployment, Running, serving, watch
from modelstacks.cli.http import callable_api
from modelstacks.cli.requests import curl_lines
from modelstacks.core.errors import EnvironmentFault, InvocationFailed
from modelstacks.verification.rows import read_rows, values

if TYPE_CHECKING:
    from modelstacks.cli.bench import Bench

SPEC = "deployments/churn.yaml"
MODEL = "model_artifacts/churn-xgboost"
REPEATS = 20
TOLERANCE = 1e-5  # float32 probabilities, printed and read again


@dataclass(frozen=True)
class Measured:
    """What one architecture answered, and how fast."""

    deployment: Deployment
    predictions: Sequence[float]  # all numbers of all rows, in order
    first_ms: float
    median_ms: float


def run(bench: Bench, *, once: bool) -> None:
    """Deploy, predict, compare, show; then serve until Ctrl-C, or return where `once`."""
    rows, expected = _held_out(bench)
    spec = bench.project / SPEC
    bench.terminal.say(f"{SPEC} as both architectures, deployed by the real CDK CLI into the embedded cloud")
    with serving(bench, [spec], architecture="both") as running:
        measured = [_measure(one, running, rows) for one in running.deployments]
        _show(bench, running, measured, rows, expected)
        if not once:
            bench.terminal.say("serving; Ctrl-C stops everything")
            watch(bench, running.session)


def _held_out(bench: Bench) -> tuple[list[list[float]], Sequence[float]]:
    """The held-out rows (n x features), and the trainer's predictions of them, flattened."""
    rows = read_rows(bench.project / MODEL, None)
    if rows is None or rows.expected is None:
        raise EnvironmentFault(
            f"{MODEL} has no held-out rows with predictions",
            fix="git checkout model_artifacts, or train them again: python model_artifacts/train.py",
        )
    return rows.body["instances"], values(rows.expected).numbers


def _measure(one: Deployment, running: Running, rows: Sequence[Sequence[float]]) -> Measured:
    """All rows in one request, then the first row again and again, one request at a time."""
    first = _predict(one, running, {"instances": rows})
    single = [_predict(one, running, {"instances": rows[:1]}).seconds for _ in range(REPEATS)]
    return Measured(
        one,
        values(json.loads(first.body)["predictions"]).numbers,
        first.seconds * 1000,
        statistics.median(single) * 1000,
    )


def _predict(one: Deployment, running: Running, body: dict[str, Any]) -> Answer:
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
    """The largest absolute difference; infinite where the answers do not even have the same length."""
    if len(one) != len(other):
        return float("inf")
    return max((abs(a - b) for a, b in zip(one, other, strict=True)), default=0.0)


def _show(
    bench: Bench,
    running: Running,
    measured: Sequence[Measured],
    rows: Sequence[Sequence[float]],
    expected: Sequence[float],
) -> None:
    terminal = bench.terminal
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
    body = {"instances": [rows[0]]}
    for one in measured:
        api, plan = one.deployment.api, one.deployment.plan
        terminal.data(f"{plan.stack_name}   {api.url}")
        lines = curl_lines(
            api,
            plan,
            running.status.credentials,
            running.status.region,
            folder=bench.project / ".modelstacks" / "requests",
            body=body,
        )
        for line in lines:
            terminal.data(f"  {line}")
