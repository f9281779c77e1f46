"""How long `modelstacks up` takes, from warm caches to the first prediction from both architectures.

    python -m benchmarks.up [--rounds 3]

Each round starts from nothing that runs: `modelstacks up churn -a both --detach`, one prediction from each
API, and `modelstacks down`. Installed serving images and packaged models are kept, as on any second day.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
AIM_SECONDS = 20
ROWS = ROOT / "model_artifacts" / "churn-xgboost" / "holdout.csv"
ARCHITECTURES = ("self-hosted", "managed")


def modelstacks(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modelstacks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def measure() -> tuple[float, str]:
    """Seconds until both architectures have answered, and what `up` said of its steps."""
    started = time.perf_counter()
    up = modelstacks("up", "churn", "--architecture", "both", "--detach", "--json")
    if up.returncode:
        raise SystemExit(up.stderr)
    for architecture in ARCHITECTURES:
        answer = modelstacks(
            "invoke", "churn", "-a", architecture, "--data", str(ROWS), "--accept", "application/json"
        )
        if answer.returncode:
            raise SystemExit(answer.stderr)
        assert len(json.loads(answer.stdout)["predictions"]) == 40
    return time.perf_counter() - started, up.stderr


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.up", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    modelstacks("down")
    times: list[float] = []
    steps = ""
    try:
        for number in range(rounds + 1):
            seconds, steps = measure()
            modelstacks("down")
            sys.stderr.write(f"round {number}{' (warms the caches)' * (number == 0)}: {seconds:.1f} s\n")
            times.append(seconds)
    finally:
        modelstacks("down")
    kept = times[1:]
    print(
        f"`up` to the first prediction of both: {median(kept):.1f} s"
        f" (median of {rounds}; aim {AIM_SECONDS} s)\n"
    )
    print("The last round's steps; the first three ran side by side:\n")
    print("\n".join(f"    {line}" for line in steps.splitlines() if line.startswith("ok")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
