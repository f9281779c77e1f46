"""How long `modelstacks --help` and `modelstacks validate` take, beside what they cannot do without.

    python -m benchmarks.cli [--rounds 15]

Each round starts every command once in a fresh process, interleaved, so that what else the machine does
disturbs all alike; medians are shown. "Floor" starts the interpreter and imports what the command is made of.
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
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "floor of --help: import typer": ["-c", "import typer"],
    "modelstacks --help": ["-m", "modelstacks", "--help"],
    "floor of validate: import typer, pydantic, yaml": [
        "-c",
        "import typer, yaml; from pydantic import BaseModel, TypeAdapter",
    ],
    "modelstacks validate": ["-m", "modelstacks", "validate", SPEC],
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cli", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, arguments in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=True)
            times[name].append((time.perf_counter() - started) * 1000)
    print(f"medians of {rounds} rounds, after one that warms the page cache\n")
    print("| | ms | fastest | aim |\n|---|---:|---:|---:|")
    for name, measured in times.items():
        kept = measured[1:]
        print(f"| `{name}` | {median(kept):.0f} | {min(kept):.0f} | {AIMS_MS.get(name, '')} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
