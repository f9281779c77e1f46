"""`modelstacks up`: the specs, deployed by the real CDK CLI into the embedded cloud, answering here.

What need not wait runs side by side: the templates are synthesized and the serving images installed while the
embedded account starts and is bootstrapped.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelstacks.cli.commands.logs import root_causes
from modelstacks.cli.console.progress import Progress
from modelstacks.cli.project import require_app, spec_paths
from modelstacks.cli.requests import curl_lines
from modelstacks.cli.running import destroy_command, superseded
from modelstacks.core.artifact.packaging import package
from modelstacks.core.errors import DeploymentFailed, EnvironmentFault, ModelstacksError
from modelstacks.core.plan.deployments import load_plans

if TYPE_CHECKING:
    from types import FrameType

    from modelstacks.cli.bench import Bench, CloudSession
    from modelstacks.cloud.api import Api, Status, Workload
    from modelstacks.core.plan import Plan, Selection

WATCH_SECONDS = 1.0


@dataclass(frozen=True)
class Deployment:
    """One Plan that answers: its API in the embedded cloud."""

    plan: Plan
    api: Api


@dataclass(frozen=True)
class Running:
    """What `bring_up` made."""

    session: CloudSession
    status: Status
    deployments: tuple[Deployment, ...]
    seconds: float


def run(
    bench: Bench,
    words: Sequence[str],
    *,
    architecture: Selection,
    detach: bool,
    port: int | None,
    as_json: bool,
) -> None:
    """Deploy, report, and serve until Ctrl-C; with `detach`, return and leave it running."""
    paths = spec_paths(bench.project, words)
    with serving(bench, paths, architecture=architecture, port=port, detach=detach) as running:
        report(bench, running, as_json=as_json)
        if detach:
            bench.terminal.say("left running; `modelstacks status` shows it, `modelstacks down` stops it")
        else:
            bench.terminal.say("serving; Ctrl-C stops everything")
            watch(bench, running.session)


@contextmanager
def serving(
    bench: Bench,
    paths: Sequence[Path],
    *,
    architecture: Selection,
    port: int | None = None,
    detach: bool = False,
) -> Iterator[Running]:
    """Everything up while the block runs, and down after it, however it ends; `detach` leaves it running.

    Raises DeploymentFailed with the root cause where a stack or a workload of these specs does not come up.
    """
    require_app(bench.project)
    bench.warn_without_sandbox()
    started_at = time.perf_counter()
    with only_one(bench.project), _terminates_like_an_interrupt():
        session: CloudSession | None = None

        def opened(value: CloudSession) -> None:
            nonlocal session
            session = value

        try:
            with Progress(bench.terminal) as progress:
                plans = _checked(bench, progress, paths, architecture)
                context = {"deployment": ",".join(map(str, paths)), "architecture": architecture}
                status = _bring_up(bench, progress, plans, context, port, opened)
            assert session is not None
            yield Running(session, status, _deployments(plans, status), time.perf_counter() - started_at)
        except BaseException as error:
            bench.cdk.stop()
            if session is not None and detach:
                if isinstance(error, ModelstacksError | KeyboardInterrupt):
                    bench.terminal.say("the embedded cloud keeps running; `modelstacks down` stops it")
                session.close()
                session = None
            raise
        finally:
            if session is not None:
                _close(bench, session, detach=detach)


def _close(bench: Bench, session: CloudSession, *, detach: bool) -> None:
    if detach:
        session.close()
        return
    with _deaf_to_interrupts():  # a second, impatient Ctrl-C must not leave half of it behind
        bench.terminal.say("stopping")
        try:
            session.shutdown()
        except EnvironmentFault:  # it died before us: clean up behind it
            bench.cloud.clean(bench.project)


# deploying ---------------------------------------------------------------------------------


def _checked(bench: Bench, progress: Progress, paths: Sequence[Path], architecture: Selection) -> list[Plan]:
    with progress.step("check specs and locks") as step:
        plans = load_plans(paths, architecture, bench.project)
        step.result(", ".join(plan.stack_name for plan in plans))
    return plans


def _bring_up(
    bench: Bench,
    progress: Progress,
    plans: Sequence[Plan],
    context: dict[str, str],
    port: int | None,
    opened: Callable[[CloudSession], None],
) -> Status:
    assembly = bench.project / ".modelstacks" / "cdk.out"

    def synthesize() -> None:
        with progress.step("synthesize") as step:
            stacks = bench.cdk.synth(context, assembly, step.note)
            step.result(", ".join(stacks))

    def install() -> None:
        with progress.step("install serving images") as step:
            images = {
                f"{plan.model.engine} {plan.model.framework_series}".strip(): plan.model.image_arguments
                for plan in plans
            }
            bench.cdk.prepare([images[name] for name in sorted(images)], step.note)
            step.result(", ".join(sorted(images)))

    def pack() -> None:
        # Not left to the CDK CLI, which runs with the address of the embedded account: a model that was
        # locked in the user's own S3 is to be found there.
        with progress.step("package models") as step:
            for lock in sorted({plan.model.package_command[-1] for plan in plans}):
                package(bench.project / lock, bench.project, bench.ports)
            step.result(", ".join(sorted({plan.name for plan in plans})))

    def start() -> tuple[CloudSession, Status]:
        with progress.step("start the embedded cloud") as step:
            session = bench.cloud.start(bench.project, port=port, cancelled=cancelled)
            opened(session)
            status = session.status()
            if status.problem is not None:  # what is left of one whose control plane was killed
                step.note("cleaning up after a crash")
                session.shutdown()
                session = bench.cloud.start(bench.project, port=port, cancelled=cancelled)
                opened(session)
                status = session.status()
            bench.cdk.bootstrap(status, step.note)
            step.result(f"{'on' if session.started else 'already on'} {status.endpoint_url}")
        return session, status

    cancelled = threading.Event()

    def stop() -> None:
        cancelled.set()
        bench.cdk.stop()

    pool = ThreadPoolExecutor(4, thread_name_prefix="up")
    try:
        cloud = pool.submit(start)
        others = [pool.submit(work) for work in (synthesize, install, pack)]
        _all_or_first_error([cloud, *others], stop)
        session, status = cloud.result()
        with progress.step("cdk deploy") as step:
            bench.cdk.deploy(assembly, status, step.note)
            step.result(", ".join(plan.stack_name for plan in plans))
        return _settled(progress, session, {plan.stack_name for plan in plans})
    except BaseException:
        stop()
        raise
    finally:
        pool.shutdown(wait=True)


def _all_or_first_error(futures: Sequence[Future[Any]], stop: Callable[[], None]) -> None:
    """Wait for all; where one fails, stop the others and raise what it raised."""
    done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
    failed = [error for future in done if (error := future.exception()) is not None]
    if failed:
        if waiting:
            stop()
            wait(waiting)
        raise failed[0]


def _settled(progress: Progress, session: CloudSession, stacks: set[str]) -> Status:
    with progress.step("start replicas") as step:
        status: Status | None = None
        for status in session.reconcile():
            ours = [workload for workload in status.workloads if workload.stack in stacks]
            step.note(", ".join(_readiness(workload) for workload in ours if workload.desired))
        if status is None:
            raise EnvironmentFault("the embedded cloud said nothing about its workloads")
        causes = root_causes(
            [one for one in status.workloads if one.stack in stacks and one.state == "failed"]
        )
        if causes:
            raise DeploymentFailed("; ".join(causes))
    return status


def _readiness(workload: Workload) -> str:
    ready = sum(replica.state == "healthy" for replica in workload.replicas)
    return f"{workload.stack} {ready}/{workload.desired}"


def _deployments(plans: Sequence[Plan], status: Status) -> tuple[Deployment, ...]:
    apis = {api.stack: api for api in status.apis}
    missing = [plan.stack_name for plan in plans if plan.stack_name not in apis]
    if missing:
        raise DeploymentFailed(f"the embedded cloud found no REST API in {', '.join(missing)}")
    return tuple(Deployment(plan, apis[plan.stack_name]) for plan in plans)


# reporting ---------------------------------------------------------------------------------


def report(bench: Bench, running: Running, *, as_json: bool) -> None:
    """URLs, keys, curl lines, and what was accepted without being emulated."""
    status = running.status
    lines = {
        one.plan.stack_name: curl_lines(
            one.api,
            one.plan,
            status.credentials,
            status.region,
            folder=bench.project / ".modelstacks" / "requests",
        )
        for one in running.deployments
    }
    unemulated = [
        {"stack": stack.name, "type": resource.type, "logical_id": resource.logical_id}
        for stack in status.stacks
        if stack.name in lines
        for resource in stack.unemulated
    ]
    left = superseded((stack.name for stack in status.stacks), [one.plan for one in running.deployments])
    if as_json:
        bench.terminal.json(
            {
                "endpoint_url": status.endpoint_url,
                "deployments": [
                    {
                        "name": one.plan.name,
                        "architecture": one.plan.architecture,
                        "stack": one.plan.stack_name,
                        "url": one.api.url,
                        "api_key": one.api.api_keys[0].value if one.api.api_keys else None,
                        "curl": lines[one.plan.stack_name],
                    }
                    for one in running.deployments
                ],
                "accepted_not_emulated": unemulated,
                "superseded": [{"stack": stack, "command": destroy_command(stack)} for stack in left],
                "seconds": round(running.seconds, 3),
            }
        )
        return
    terminal = bench.terminal
    terminal.say(f"up in {running.seconds:.1f} s")
    for one in running.deployments:
        key = f"   x-api-key: {one.api.api_keys[0].value}" if one.api.api_keys else ""
        terminal.data(f"\n{one.plan.stack_name}   {one.api.url}{key}")
        for line in lines[one.plan.stack_name]:
            terminal.data(f"  {line}")
    terminal.data("")
    for stack in left:
        terminal.say(
            f"{stack} is still running beside it; in AWS it would still cost; "
            f"to remove it: {destroy_command(stack)}"
        )
    if unemulated:
        terminal.say("accepted, not emulated: " + ", ".join(_counted(unemulated)))


def _counted(unemulated: Sequence[dict[str, str]]) -> list[str]:
    """One entry a type, with the logical ids behind it."""
    by_type: dict[str, list[str]] = {}
    for one in unemulated:
        by_type.setdefault(one["type"], []).append(one["logical_id"])
    return [f"{kind} ({', '.join(dict.fromkeys(ids))})" for kind, ids in sorted(by_type.items())]


# serving -----------------------------------------------------------------------------------


def watch(bench: Bench, session: CloudSession) -> None:
    """Return when another command stops the embedded cloud; name each replica's death; Ctrl-C interrupts.

    Raises EnvironmentFault where the embedded cloud dies.
    """
    told: set[str] = set()
    while True:
        try:
            status = session.status()
        except EnvironmentFault:
            if not (bench.project / ".modelstacks" / "state.json").exists():
                bench.terminal.say("another command has stopped the embedded cloud")
                return
            raise
        if status.problem is not None:
            raise EnvironmentFault(status.problem)
        for cause in root_causes(status.workloads):
            if cause not in told:
                told.add(cause)
                bench.terminal.fault(cause)
        time.sleep(WATCH_SECONDS)


@contextmanager
def only_one(project: Path) -> Iterator[None]:
    """Hold the project's `up` for this process. Raises EnvironmentFault naming another holder."""
    path = project / ".modelstacks" / "up.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise EnvironmentFault(
                f"another `modelstacks up` is at work in this project (pid {holder or 'unknown'})",
                fix="end it with Ctrl-C, or `modelstacks down`; with --detach, more can follow it",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def _terminates_like_an_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP (a closed terminal) end the command as Ctrl-C does, so that nothing stays behind."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handlers({signal.SIGTERM: interrupt, signal.SIGHUP: interrupt}):
        yield


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    with _handlers(dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN)):
        yield


@contextmanager
def _handlers(chosen: dict[signal.Signals, Any]) -> Iterator[None]:
    try:
        before = {number: signal.signal(number, handler) for number, handler in chosen.items()}
    except ValueError:  # not in the main thread, as under a test's own thread: signals are not ours to take
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
