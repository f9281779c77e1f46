"""Deploys specs into the embedded cloud with the real CDK CLI, and keeps them up for the length of a block.

Independent steps run side by side: the templates are synthesized and the serving images installed while the
embedded account starts and is bootstrapped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelstacks.cli.console.progress import Progress
from modelstacks.cli.project import require_app
from modelstacks.cli.running import root_causes
from modelstacks.cli.serving import close, only_one, terminates_like_an_interrupt
from modelstacks.core.artifact.packaging import package
from modelstacks.core.errors import DeploymentFailed, EnvironmentFault, ModelstacksError
from modelstacks.core.model import ArtifactModel
from modelstacks.core.plan import ModelServer
from modelstacks.core.plan.deployments import load_plans

if TYPE_CHECKING:
    from modelstacks.cli.context import CommandContext
    from modelstacks.cli.interfaces import CloudSession
    from modelstacks.cloud.api import Api, Status, Workload
    from modelstacks.core.plan import Plan, Selection

__all__ = ["Deployment", "Running", "deployed_here"]

WATCH_SECONDS = 0.5


@dataclass(frozen=True)
class Deployment:
    """A Plan that is deployed, and its API in the embedded cloud."""

    plan: Plan
    api: Api


@dataclass(frozen=True)
class Running:
    """The embedded cloud and what was deployed into it."""

    session: CloudSession
    status: Status
    deployments: tuple[Deployment, ...]
    seconds: float


@contextmanager
def deployed_here(
    context: CommandContext,
    paths: Sequence[Path],
    *,
    architecture: Selection,
    port: int | None = None,
    detach: bool = False,
) -> Iterator[Running]:
    """Deploy specs, and stop everything after the block, however it ends; `detach` leaves it running.

    Raises DeploymentFailed with the root cause if a stack or a workload of these specs does not come up.
    """
    require_app(context.project)
    context.warn_without_sandbox()
    started_at = time.perf_counter()
    with only_one(context.project), terminates_like_an_interrupt():
        rollout = _Rollout(context, paths, architecture, port)
        try:
            with Progress(context.terminal) as progress:
                plans, status = rollout.run(progress)
            assert rollout.session is not None
            seconds = time.perf_counter() - started_at
            yield Running(rollout.session, status, _deployments(plans, status), seconds)
        except BaseException as error:
            context.cdk.stop()
            if (
                rollout.session is not None
                and detach
                and rollout.session.alive
                and isinstance(error, ModelstacksError | KeyboardInterrupt)
            ):
                context.terminal.say("the embedded cloud keeps running; `modelstacks down` stops it")
            raise
        finally:
            if rollout.session is not None:
                close(context, rollout.session, detach=detach)


class _Rollout:
    """One deployment of specs into the embedded cloud, step by step.

    Args:
        port: where the embedded account listens; None means a free port.
    """

    def __init__(
        self, context: CommandContext, paths: Sequence[Path], architecture: Selection, port: int | None
    ) -> None:
        self.session: CloudSession | None = None
        self._context = context
        self._paths = paths
        self._architecture: Selection = architecture
        self._port = port
        self._cancelled = threading.Event()
        self._assembly = context.project / ".modelstacks" / "cdk.out"

    def run(self, progress: Progress) -> tuple[list[Plan], Status]:
        """Return the Plans and the status in which all of their replicas are ready."""
        plans = self._check(progress)
        pool = ThreadPoolExecutor(4, thread_name_prefix="up")
        try:
            cloud = pool.submit(self._start, progress)
            others = [
                pool.submit(self._synthesize, progress),
                pool.submit(self._install_images, progress, plans),
                pool.submit(self._package_models, progress, plans),
            ]
            _all_or_first_error([cloud, *others], self._stop)
            session, status = cloud.result()
            self._deploy(progress, plans, session, status)
            return plans, _settled(progress, session, {plan.stack_name for plan in plans})
        except BaseException:
            self._stop()
            raise
        finally:
            pool.shutdown(wait=True)

    def _stop(self) -> None:
        self._cancelled.set()
        self._context.cdk.stop()

    def _check(self, progress: Progress) -> list[Plan]:
        with progress.step("check specs and locks") as step:
            plans = load_plans(self._paths, self._architecture, self._context.project)
            step.result(", ".join(plan.stack_name for plan in plans))
        return plans

    def _start(self, progress: Progress) -> tuple[CloudSession, Status]:
        with progress.step("start the embedded cloud") as step:
            session, status = self._open()
            if status.problem is not None:
                # The remains of one whose control plane was killed.
                step.note("cleaning up after a crash")
                session.shutdown()
                session, status = self._open()
            self._context.cdk.bootstrap(status, step.note)
            step.result(f"{'on' if session.started else 'already on'} {status.endpoint_url}")
        return session, status

    def _open(self) -> tuple[CloudSession, Status]:
        project = self._context.project
        session = self._context.cloud.start(project, port=self._port, cancelled=self._cancelled)
        self.session = session
        return session, session.status()

    def _synthesize(self, progress: Progress) -> None:
        chosen = {"deployment": ",".join(map(str, self._paths)), "architecture": self._architecture}
        with progress.step("synthesize") as step:
            stacks = self._context.cdk.synth(chosen, self._assembly, step.note)
            step.result(", ".join(stacks))

    def _install_images(self, progress: Progress, plans: Sequence[Plan]) -> None:
        with progress.step("install serving images") as step:
            servers = [plan.runtime for plan in plans if isinstance(plan.runtime, ModelServer)]
            images = {server.name: server.image_arguments for server in servers}
            self._context.cdk.prepare([images[name] for name in sorted(images)], step.note)
            step.result(", ".join(sorted(images)))

    def _package_models(self, progress: Progress, plans: Sequence[Plan]) -> None:
        # Not left to the CDK CLI, which runs with the address of the embedded account: a model that was
        # locked in the user's own S3 must be read from there.
        project = self._context.project
        with progress.step("package models") as step:
            hosted = [plan for plan in plans if isinstance(plan.model, ArtifactModel)]
            for lock in sorted({plan.lock_file for plan in hosted}):
                package(project / lock, project, self._context.ports)
            step.result(", ".join(sorted({plan.name for plan in hosted})))

    def _deploy(
        self, progress: Progress, plans: Sequence[Plan], session: CloudSession, status: Status
    ) -> None:
        with progress.step("cdk deploy") as step, _while_alive(session, self._context.cdk.stop):
            self._context.cdk.deploy(self._assembly, status, step.note)
            step.result(", ".join(plan.stack_name for plan in plans))


@contextmanager
def _while_alive(session: CloudSession, stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` if the embedded cloud is stopped or breaks during the block.

    The CDK CLI would wait for a long time. Raises EnvironmentFault in place of what the block raises then.
    """
    over = threading.Event()
    broken: list[EnvironmentFault] = []

    def watch() -> None:
        while not over.wait(WATCH_SECONDS):
            if fault := _broken(session):
                broken.append(fault)
                stop()
                return

    watching = threading.Thread(target=watch, name="watch the embedded cloud", daemon=True)
    watching.start()
    try:
        yield
    except ModelstacksError as error:
        if not broken:
            raise
        raise broken[0] from error
    finally:
        over.set()
        watching.join()


def _broken(session: CloudSession) -> EnvironmentFault | None:
    """Why the stacks that are being deployed will not become stable, if that is so."""
    stopped = EnvironmentFault(
        "the embedded cloud was stopped while stacks were being deployed", fix="`modelstacks up` again"
    )
    if not session.alive:
        return stopped
    try:
        problem = session.status().problem
    except EnvironmentFault:
        # It may be busy; if it has ended, the next look finds that out.
        return None
    return EnvironmentFault(problem) if problem else None


def _all_or_first_error(futures: Sequence[Future[Any]], stop: Callable[[], None]) -> None:
    """Wait for all; if one fails, stop the others and raise its error."""
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
            raise EnvironmentFault("the embedded cloud reported nothing about its workloads")
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
