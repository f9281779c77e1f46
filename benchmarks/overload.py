"""What becomes of requests when more arrive than the replicas can take, on both architectures.

    python -m benchmarks.overload [--runs 3] [--json FILE] [--architecture managed] [--against REVISION]

A script whose call takes 150 ms, on two replicas with two workers each, so that the capacity is known: 26.7
requests a second. One caller alone gives the unloaded times; then an open loop with Poisson arrivals offers
multiples of the capacity. Each answer is compared with the right one. `--against` measures another commit in
the same run, after this one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.deployed import ARCHITECTURES, Address, Answer, deployed, offer, one_by_one
from benchmarks.load import percentile
from benchmarks.serve import machine, markdown

CALL_SECONDS = 0.15
REPLICAS, WORKERS = 2, 2
CAPACITY = REPLICAS * WORKERS / CALL_SECONDS
HEADER = [
    *("", "offered/s", "answered 200", "429", "other", "wrong", "p50 ms", "p99 ms"),
    *("p99 / unloaded", "goodput / capacity", "Retry-After s"),
]


@dataclass(frozen=True, slots=True)
class Row:
    """What the callers saw under one load. `load` 0: one caller alone."""

    run: int
    load: float
    offered_per_second: float
    requests: int
    answered: int
    refused: int
    other: dict[str, int]
    wrong: int
    p50_ms: float
    p99_ms: float
    p99_of_unloaded: float
    goodput_of_capacity: float
    retry_after: list[int]

    def cells(self, *, runs: int) -> list[str]:
        """A row of the table."""
        name = f"{self.load:g} x capacity" if self.load else "one caller"
        return [
            f"{name}, run {self.run}" if runs > 1 else name,
            f"{self.offered_per_second:.0f}" if self.load else "",
            f"{self.answered} of {self.requests}",
            str(self.refused),
            ", ".join(f"{count} x {status}" for status, count in self.other.items()) or "0",
            str(self.wrong),
            f"{self.p50_ms:.0f}",
            f"{self.p99_ms:.0f}",
            f"{self.p99_of_unloaded:.2f}",
            f"{self.goodput_of_capacity:.2f}" if self.load else "",
            " to ".join(dict.fromkeys(map(str, (self.retry_after[0], self.retry_after[-1]))))
            if self.retry_after
            else "",
        ]


class Limit(NamedTuple):
    """A bound that the worst run has to keep."""

    bound: float
    most: bool  # else it is the least


TARGETS: list[tuple[float, str, Callable[[Row], float], str, Limit]] = [
    (
        1.0,
        "refused at 1 x capacity: at most 5%",
        lambda row: row.refused / row.requests,
        "{:.1%}",
        Limit(0.05, most=True),
    ),
    (
        3.0,
        "p99 at 3 x capacity: at most twice the unloaded",
        lambda row: row.p99_of_unloaded,
        "{:.2f}",
        Limit(2.0, most=True),
    ),
    (
        3.0,
        "goodput at 3 x capacity: at least 0.9 of the capacity",
        lambda row: row.goodput_of_capacity,
        "{:.2f}",
        Limit(0.9, most=False),
    ),
]


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped then, too
    command = " ".join(["python -m benchmarks.overload", *arguments])
    print(f"`{command}` on {machine()}\n")
    tables: list[dict[str, Any]] = []
    for revision in ("", options.against) if options.against else ("",):
        with deployed(CALL_SECONDS, workers=WORKERS, revision=revision) as deployment:
            for architecture in options.architecture or ARCHITECTURES:
                address = deployment.address(architecture)
                rows = [
                    row
                    for run in range(1, options.runs + 1)
                    for row in asyncio.run(measure(address, options, run))
                ]
                print(f"**{architecture}{f', {revision}' if revision else ''}**\n")
                print(markdown(HEADER, [row.cells(runs=options.runs) for row in rows]))
                print(markdown(["target", "measured", "met"], targets(rows)), flush=True)
                tables.append(
                    {
                        "architecture": architecture,
                        "revision": revision or None,
                        "rows": [asdict(row) for row in rows],
                    }
                )
    if options.json:
        document = {"command": command, "machine": machine(), "tables": tables}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overload", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--architecture", choices=ARCHITECTURES, action="append")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.9, 1.0, 2.0, 3.0], help="times it")
    parser.add_argument("--seconds", type=float, default=20.0, help="that each load is measured for")
    parser.add_argument("--lead", type=float, default=10.0, help="seconds of a load before it is measured")
    parser.add_argument("--alone", type=int, default=100, help="requests of the one caller")
    parser.add_argument("--runs", type=int, default=1, help="how often all of it is measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    parser.add_argument("--quick", action="store_true", help="a third of the time: for a look")
    parser.add_argument("--against", default="", metavar="REVISION", help="measure another commit, too")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds, options.lead, options.alone = 6.0, 4.0, 20
    return options


async def measure(address: Address, options: argparse.Namespace, run: int) -> list[Row]:
    """One row for one caller alone, and one for each load."""
    await one_by_one(address, 8)  # cold starts, and the workers' first calls
    alone = await one_by_one(address, options.alone)
    unloaded = percentile(sorted(one.seconds for one in alone if one.status == 200), 0.99)
    rows = [row_of(alone, run, 0.0, unloaded, options.seconds)]
    for load in options.loads:
        rate = load * CAPACITY
        answers = await offer(address, rate, options.lead + options.seconds, seed=int(1000 * load) + run)
        rows.append(row_of(answers[int(rate * options.lead) :], run, load, unloaded, options.seconds))
    return rows


def row_of(answers: list[Answer], run: int, load: float, unloaded: float, seconds: float) -> Row:
    """The figures of one load."""
    good = sorted(one.seconds for one in answers if one.right)
    counts = Counter(one.status for one in answers)
    p99 = percentile(good, 0.99)
    return Row(
        run=run,
        load=load,
        offered_per_second=load * CAPACITY,
        requests=len(answers),
        answered=counts[200],
        refused=counts[429],
        other={
            str(status or "lost"): count
            for status, count in sorted(counts.items())
            if status not in (200, 429)
        },
        wrong=counts[200] - len(good),
        p50_ms=1000 * percentile(good, 0.5),
        p99_ms=1000 * p99,
        p99_of_unloaded=p99 / unloaded,
        goodput_of_capacity=len(good) / seconds / CAPACITY,
        retry_after=sorted(
            {int(one.retry_after) for one in answers if one.status == 429 and one.retry_after}
        ),
    )


def targets(rows: list[Row]) -> list[list[str]]:
    """Each target with every run's figure, judged by the worst."""
    found = []
    for load, what, value, form, limit in TARGETS:
        values = [value(row) for row in rows if row.load == load]
        if not values:
            continue
        worst = max(values) if limit.most else min(values)
        each = ", ".join(form.format(one) for one in values)
        measured = each if len(values) == 1 else f"{form.format(worst)} at worst ({each})"
        met = worst <= limit.bound if limit.most else worst >= limit.bound
        found.append([what, measured, "yes" if met else "no"])
    return found


if __name__ == "__main__":
    raise SystemExit(main())
