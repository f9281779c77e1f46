"""Ten faults on each architecture, under load, counted by a client that checks every answer.

    python -m benchmarks.faults [--json FILE] [--architecture managed] [--only NAME ...] [--against REVISION]

A script on two replicas answers a steady open loop; the fault happens; the loop goes on until the platform
has recovered. Nothing is sent twice. A request counts as refused if it was answered with 429 or 503 and
Retry-After (it never ran), as wrong if a 200 is not the right answer, and as lost in every other case.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.deployed import ARCHITECTURES, Answer, Deployment, deployed, offer, one_by_one
from benchmarks.serve import machine, markdown

CALL_SECONDS = 0.02
RATE = 25.0  # requests a second: an eighth of what the replicas can take
BEFORE, AFTER, LONGEST = 2.0, 3.0, 240.0  # seconds of load before the fault, after the recovery, and in all
LATE = 1.0
STOPPED = 35.0
HEADER = ["", "requests", "right", "late", "refused", "lost", "wrong", "lost as", "recovered after s"]

# Does it, and returns the id of the replica that has to be replaced, if one has.
Fault = Callable[[Deployment, str], str]


# -------------------------------------------------------------------------------------------- the faults


def _processes(deployment: Deployment, architecture: str) -> tuple[str, list[psutil.Process]]:
    """One replica, and its processes: the supervisor first, then its workers."""
    replica = deployment.workload(architecture)["replicas"][0]
    root = psutil.Process(replica["pid"])
    everything = [root, *root.children(recursive=True)]
    # The sandbox, where there is one, is the process that the embedded cloud knows.
    servers = [one for one in everything if "model_server" in one.cmdline() and "serve" in one.cmdline()]
    pids = {one.pid for one in servers if "python" in Path(one.exe()).name}
    servers = [one for one in servers if one.pid in pids]
    first = next(one for one in servers if one.ppid() not in pids)
    return replica["id"], [first, *(one for one in servers if one.ppid() == first.pid)]


def kill_replica(deployment: Deployment, architecture: str) -> str:
    replica: str = deployment.workload(architecture)["replicas"][0]["id"]
    deployment.session(f"session.inject(api.KillReplica(replica={replica!r}))")
    return replica


def kill_worker(deployment: Deployment, architecture: str) -> str:
    _, processes = _processes(deployment, architecture)
    processes[1].send_signal(signal.SIGKILL)
    return ""


def stop_worker(deployment: Deployment, architecture: str) -> str:
    """For good: the supervisor replaces it. In the end it is continued, if it is still there."""
    _, processes = _processes(deployment, architecture)
    processes[1].send_signal(signal.SIGSTOP)
    time.sleep(STOPPED)
    with contextlib.suppress(psutil.NoSuchProcess):
        processes[1].send_signal(signal.SIGCONT)
    return ""


def kill_supervisor(deployment: Deployment, architecture: str) -> str:
    replica, processes = _processes(deployment, architecture)
    processes[0].send_signal(signal.SIGKILL)
    return replica


def stop_replica(deployment: Deployment, architecture: str) -> str:
    """For longer than the API waits. ECS has replaced it by then; a SageMaker endpoint only goes round it."""
    _, processes = _processes(deployment, architecture)
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    time.sleep(STOPPED)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)
    return ""


def add_latency(deployment: Deployment, architecture: str) -> str:
    name = deployment.workload(architecture)["name"]
    deployment.session(f"session.inject(api.Latency(workload={name!r}, seconds=0.5))")
    time.sleep(3)
    deployment.session("session.clear_faults()")
    return ""


def fail_health_checks(deployment: Deployment, architecture: str) -> str:
    replica = deployment.workload(architecture)["replicas"][0]["id"]
    deployment.session(f"session.inject(api.FailHealthChecks(replica={replica!r}))")
    time.sleep(5)
    deployment.session("session.clear_faults()")
    return ""


def deploy(deployment: Deployment, architecture: str) -> str:
    _change(deployment)
    deployment.run("up", deployment.name, "--architecture", architecture, "--detach", "--json")
    return ""


def deploy_poisoned(deployment: Deployment, architecture: str) -> str:
    name = deployment.workload(architecture)["name"]
    deployment.session(f"session.inject(api.PoisonDeploys(workload={name!r}))")
    _change(deployment)
    with contextlib.suppress(SystemExit):  # it has to fail
        deployment.run("up", deployment.name, "--architecture", architecture, "--detach", "--json")
    deployment.session("session.clear_faults()")
    return ""


def scale_in(deployment: Deployment, architecture: str) -> str:
    """One target of the load balancer is taken away; it is back at the end."""
    spec = deployment.project / "deployments" / f"{deployment.name}.yaml"
    text = spec.read_text(encoding="utf-8")
    for replicas in ("1", "2"):
        spec.write_text(
            re.sub(r"(min|max)_replicas: \d", rf"\1_replicas: {replicas}", text), encoding="utf-8"
        )
        deployment.run("up", deployment.name, "--architecture", architecture, "--detach", "--json")
    return ""


def kill_function(deployment: Deployment, architecture: str) -> str:
    environments = deployment.workload(architecture, "lambda-function")["replicas"]
    psutil.Process(environments[0]["pid"]).send_signal(signal.SIGKILL)
    return ""


def _change(deployment: Deployment) -> None:
    """Another revision: the same answers from another environment."""
    spec = deployment.project / "deployments" / f"{deployment.name}.yaml"
    text = spec.read_text(encoding="utf-8")
    found = re.search(r"max_queue: (\d+)", text)
    number = int(found[1]) + 1 if found else 256
    text = text.replace(f", max_queue: {number - 1}", "")
    spec.write_text(text.replace("{workers: 2", f"{{workers: 2, max_queue: {number}"), encoding="utf-8")


FAULTS: dict[str, dict[str, Fault]] = {
    "self-hosted": {
        "kill -9 of a replica": kill_replica,
        "kill -9 of a worker": kill_worker,
        "kill -9 of a supervisor": kill_supervisor,
        "SIGSTOP of a worker": stop_worker,
        "SIGSTOP of a replica": stop_replica,
        "latency of 0.5 s": add_latency,
        "health checks fail": fail_health_checks,
        "rolling deploy": deploy,
        "poisoned deploy": deploy_poisoned,
        "scale in, and out": scale_in,
    },
    "managed": {
        "kill -9 of a replica": kill_replica,
        "kill -9 of a worker": kill_worker,
        "kill -9 of a supervisor": kill_supervisor,
        "SIGSTOP of a worker": stop_worker,
        "SIGSTOP of a replica": stop_replica,
        "latency of 0.5 s": add_latency,
        "health checks fail": fail_health_checks,
        "deploy": deploy,
        "poisoned deploy": deploy_poisoned,
        "kill -9 of a Lambda environment": kill_function,
    },
}

# ------------------------------------------------------------------------------------------- the measurement


@dataclass
class Outcome:
    """What the callers saw of one fault."""

    answers: list[Answer]
    recovered: float | None  # seconds until every replica was healthy again

    def figures(self, name: str) -> Figures:
        """What the answers come to."""
        right = [one for one in self.answers if one.right]
        refused = [one for one in self.answers if one.status in (429, 503) and one.retry_after]
        wrong = [one for one in self.answers if one.status == 200 and not one.right]
        lost = [one for one in self.answers if not one.right and one not in refused and one not in wrong]
        kinds = Counter("no answer" if one.status == 0 else str(one.status) for one in lost)
        return Figures(
            name,
            len(self.answers),
            len(right),
            sum(one.seconds > LATE for one in right),
            len(refused),
            len(lost),
            len(wrong),
            dict(sorted(kinds.items())),
            self.recovered,
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """One fault's row."""

    fault: str
    requests: int
    right: int
    late: int
    refused: int
    lost: int
    wrong: int
    lost_as: dict[str, int]
    recovered_after_seconds: float | None

    def cells(self) -> list[str]:
        """A row of the table."""
        after = self.recovered_after_seconds
        return [
            self.fault,
            *map(str, (self.requests, self.right, self.late, self.refused, self.lost, self.wrong)),
            ", ".join(f"{count} x {kind}" for kind, count in self.lost_as.items()) or "-",
            f"{after:.0f}" if after is not None else f"not within {LONGEST:.0f}",
        ]


async def measure(deployment: Deployment, architecture: str, fault: Fault, seed: int) -> Outcome:
    """The load, and the fault in it."""
    address = deployment.address(architecture)
    await one_by_one(address, 4)
    over = asyncio.Event()
    load = asyncio.create_task(offer(address, RATE, LONGEST, seed, over))
    await asyncio.sleep(BEFORE)
    began = time.monotonic()
    victim = await asyncio.to_thread(fault, deployment, architecture)
    recovered = await asyncio.to_thread(_recover, deployment, architecture, victim, began)
    await asyncio.sleep(AFTER)
    over.set()
    return Outcome(await load, recovered)


def _recover(deployment: Deployment, architecture: str, victim: str, began: float) -> float | None:
    """When all replicas but the victim have been healthy for a second; None where that takes too long."""
    healthy_since = None
    while time.monotonic() - began < LONGEST - BEFORE - AFTER:
        workload = deployment.workload(architecture)
        states = [one["state"] for one in workload["replicas"] if one["id"] != victim]
        if (
            workload["state"] == "stable"
            and states.count("healthy") == len(workload["replicas"]) == workload["desired"]
        ):
            healthy_since = healthy_since or time.monotonic()
            if time.monotonic() - healthy_since > 1:
                return healthy_since - began
        else:
            healthy_since = None
        time.sleep(0.3)
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", choices=ARCHITECTURES, action="append")
    parser.add_argument("--only", nargs="+", help="faults whose name contains so")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    parser.add_argument("--against", default="", metavar="REVISION", help="measure another commit, too")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped then, too
    command = " ".join(["python -m benchmarks.faults", *arguments])
    print(f"`{command}` on {machine()}\n")
    tables: list[dict[str, Any]] = []
    for revision in ("", options.against) if options.against else ("",):
        with deployed(CALL_SECONDS, workers=2, revision=revision) as deployment:
            for architecture in options.architecture or ARCHITECTURES:
                rows = inflict(deployment, architecture, options.only or [""])
                print(f"**{architecture}{f', {revision}' if revision else ''}**\n")
                print(markdown(HEADER, [row.cells() for row in rows]), flush=True)
                faults = [asdict(row) for row in rows]
                tables.append({"architecture": architecture, "revision": revision or None, "rows": faults})
    if options.json:
        document = {"command": command, "machine": machine(), "tables": tables}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 1 if any(row["wrong"] for table in tables for row in table["rows"]) else 0


def inflict(deployment: Deployment, architecture: str, words: Sequence[str]) -> list[Figures]:
    """One after another, the faults whose name contains one of the words."""
    rows = []
    for seed, (name, fault) in enumerate(FAULTS[architecture].items()):
        if any(word in name for word in words):
            rows.append(asyncio.run(measure(deployment, architecture, fault, seed)).figures(name))
            sys.stderr.write(f"{architecture}: {' | '.join(rows[-1].cells())}\n")
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
