"""How long `modelstacks --help` and `modelstacks validate` take, beside what they cannot do without.

    python -m benchmarks.cli [--rounds 15] [--against OTHER_CHECKOUT]

Each round starts every command once in a fresh process, interleaved, so that other load affects all of
them alike; medians are shown. "Floor" starts the interpreter and imports what the command is made of.
With --against, the same commands of another checkout run in the same rounds, and the ratios are shown.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
SPEC = "deployments/churn.yaml"
AIMS_MS = {"modelstacks --help": 250, "modelstacks validate": 300}
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
    print("| | ms | fastest | aim |\n|---|---:|---:|---:|")
    for name, measured in times.items():
        print(f"| `{name}` | {median(measured):.0f} | {min(measured):.0f} | {AIMS_MS.get(name, '')} |")
    if options.against:
        print("\n| | median, this / other | fastest, this / other |\n|---|---:|---:|")
        for name in OURS:
            this, other = times[name], times[f"{name}, other"]
            print(f"| `{name}` | {median(this) / median(other):.2f} | {min(this) / min(other):.2f} |")
    return 0


def measure(runs: dict[str, tuple[Path, list[str]]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each command in each round but the first."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, (folder, arguments) in runs.items():
            # `python -m` imports from the working directory before the installed package.
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, check=True)
            times[name].append((time.perf_counter() - started) * 1000)
    return {name: measured[1:] for name, measured in times.items()}


if __name__ == "__main__":
    sys.exit(main())
