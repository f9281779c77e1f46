"""What becomes of requests when more arrive than the replicas can take, on both architectures.

    python -m benchmarks.overload [--quick] [--architecture managed] [--against REVISION]

A script whose call takes 150 ms, on two replicas with two workers each, so that the capacity is known: 26.7
requests a second. One caller alone gives the unloaded times; then an open loop with Poisson arrivals offers
multiples of the capacity. Each answer is compared with the right one. `--against` measures another commit in
the same run, after this one.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Sequence

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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overload", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--architecture", choices=ARCHITECTURES, action="append")
    parser.add_argument("--loads", type=float, nargs="+", default=[1.0, 2.0, 3.0], help="times the capacity")
    parser.add_argument("--seconds", type=float, default=20.0, help="that each load is measured for")
    parser.add_argument("--lead", type=float, default=5.0, help="seconds of a load before it is measured")
    parser.add_argument("--alone", type=int, default=100, help="requests of the one caller")
    parser.add_argument("--quick", action="store_true", help="a tenth of the time: for a look")
    parser.add_argument("--against", default="", metavar="REVISION", help="measure another commit, too")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped then, too
    if options.quick:
        options.seconds, options.lead, options.alone = 6.0, 2.0, 20
    print(
        f"`python -m benchmarks.overload {' '.join(sys.argv[1:] if arguments is None else arguments)}`",
        end="",
    )
    print(f" on {machine()}\n")
    for revision in ("", options.against) if options.against else ("",):
        with deployed(CALL_SECONDS, workers=WORKERS, revision=revision) as deployment:
            for architecture in options.architecture or ARCHITECTURES:
                address = deployment.address(architecture)
                rows = asyncio.run(measure(address, options))
                print(f"**{architecture}{f', {revision}' if revision else ''}**\n")
                print(markdown(HEADER, rows), flush=True)
    return 0


async def measure(address: Address, options: argparse.Namespace) -> list[list[str]]:
    """A row for one caller alone, and one for each load."""
    await one_by_one(address, 8)  # cold starts, and the workers' first calls
    alone = await one_by_one(address, options.alone)
    unloaded = percentile(sorted(one.seconds for one in alone if one.status == 200), 0.99)
    rows = [_row("one caller", 0.0, alone, unloaded, 0.0)]
    for load in options.loads:
        rate = load * CAPACITY
        answers = await offer(address, rate, options.lead + options.seconds, seed=int(1000 * load))
        answers = answers[int(rate * options.lead) :]
        rows.append(_row(f"{load:g} x capacity", rate, answers, unloaded, options.seconds))
    return rows


def _row(name: str, rate: float, answers: list[Answer], unloaded: float, seconds: float) -> list[str]:
    good = sorted(one.seconds for one in answers if one.right)
    counts = Counter(one.status for one in answers)
    other = {status: count for status, count in sorted(counts.items()) if status not in (200, 429)}
    waits = sorted({one.retry_after for one in answers if one.status == 429})
    return [
        name,
        f"{rate:.0f}" if rate else "",
        f"{counts[200]} of {len(answers)}",
        str(counts[429]),
        ", ".join(f"{count} x {status or 'lost'}" for status, count in other.items()) or "0",
        str(counts[200] - len(good)),
        f"{1000 * percentile(good, 0.5):.0f}",
        f"{1000 * percentile(good, 0.99):.0f}",
        f"{percentile(good, 0.99) / unloaded:.2f}",
        f"{len(good) / seconds / CAPACITY:.2f}" if seconds else "",
        " to ".join(dict.fromkeys((waits[0], waits[-1]))) if waits else "",
    ]


if __name__ == "__main__":
    raise SystemExit(main())
