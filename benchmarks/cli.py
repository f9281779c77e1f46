"""How long `modelstacks --help` and `modelstacks validate` take, beside what they cannot do without.

    python -m benchmarks.cli [--rounds 15] [--against OTHER_CHECKOUT]

Each round starts every command once in a fresh process, interleaved, so that other load affects all of
them alike; medians are shown. "Floor" starts the interpreter and imports what the command is made of.
With --against, the same commands of another checkout run in the same rounds, and the ratios are shown.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
SPEC = "deployments/churn.yaml"
AIMS_MS = {"modelstacks --help": 250, "modelstacks validate": 300}
#: An installation has compiled modules.
COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
OURS = ("modelstacks --help", "modelstacks validate", "modelstacks plan")
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "floor of --help: import typer": ["-c", "import typer"],
    "modelstacks --help": ["-m", "modelstacks", "--help"],
    "floor of validate: import typer, pydantic, yaml": [
        "-c",
        "import typer, yaml; from pydantic import BaseModel, TypeAdapter",
    ],
    "modelstacks validate": ["-m", "modelstacks", "validate", SPEC],
    "modelstacks plan": ["-m", "modelstacks", "plan", SPEC],
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cli", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--against", type=Path, help="another checkout, run with this interpreter")
    options = parser.parse_args()
    runs = {name: (ROOT, arguments) for name, arguments in COMMANDS.items()}
    if options.against:
        runs |= {f"{name}, other": (options.against.resolve(), COMMANDS[name]) for name in OURS}
    times = measure(runs, options.rounds)
    print(f"medians of {options.rounds} rounds, after one that warms the page cache\n")
    print("| | ms | fastest | CPU ms | aim |\n|---|---:|---:|---:|---:|")
    for name, (clock, cpu) in times.items():
        aim = AIMS_MS.get(name, "")
        print(f"| `{name}` | {median(clock):.0f} | {min(clock):.0f} | {median(cpu):.0f} | {aim} |")
    if options.against:
        print("\n| this / other | median | fastest | CPU median | CPU least |\n|---|---:|---:|---:|---:|")
        for name in OURS:
            this, other = times[name], times[f"{name}, other"]
            ratios = [
                f"{summary(mine) / summary(its):.2f}"
                for mine, its in zip(this, other, strict=True)
                for summary in (median, min)
            ]
            print(f"| `{name}` | {' | '.join(ratios)} |")
    return 0


def measure(
    runs: dict[str, tuple[Path, list[str]]], rounds: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Milliseconds on the clock and of the CPU, of each command in each round but the first."""
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in runs}
    for number in range(rounds + 1):
        for name, (folder, arguments) in runs.items():
            clock, cpu = run_once(folder, arguments)
            if number:
                times[name][0].append(clock)
                times[name][1].append(cpu)
    return times


def run_once(folder: Path, arguments: list[str]) -> tuple[float, float]:
    """Start Python in a checkout; `-m` imports from there before the installed package."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=COMPILED, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, arguments
    process.returncode = status
    return (time.perf_counter() - started) * 1000, (used.ru_utime + used.ru_stime) * 1000


if __name__ == "__main__":
    sys.exit(main())
