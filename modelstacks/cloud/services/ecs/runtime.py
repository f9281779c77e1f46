"""ECS services: each is a workload of the rollout machine, whose replicas are tasks (tasks.py)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from botocore.exceptions import BotoCoreError, ClientError

from modelstacks.cloud import api
from modelstacks.cloud.account.channel import Report
from modelstacks.cloud.context import Context
from modelstacks.cloud.runtime import Runtime, Runtimes
from modelstacks.cloud.services.application_autoscaling.snapshot import ScalingSnapshot
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.ecs.snapshot import ClusterService, EcsSnapshot
from modelstacks.cloud.services.ecs.tasks import Tasks, blueprint
from modelstacks.cloud.services.elbv2.runtime import LoadBalancers
from modelstacks.cloud.workloads.departures import Departures
from modelstacks.cloud.workloads.kind import Budget, Goal, Outcome, Share, Terms, Unit
from modelstacks.cloud.workloads.machine import Workload
from modelstacks.cloud.workloads.policies import Bounds, Counters, Policy
from modelstacks.cloud.workloads.processor import ProcessorTime

__all__ = ["Services"]

TASKS = "tasks"  # the one group of a service's replicas


class Services(Runtime):
    """Every ECS service of the account."""

    needs = (LoadBalancers,)

    def __init__(self, context: Context, runtimes: Runtimes) -> None:
        super().__init__(context, runtimes)
        self._services: dict[str, _Service] = {}
        self._departures = Departures()

    async def reconcile(self) -> None:
        """Deploy what is new or changed; stop what is gone."""
        wanted = {service.arn: service for service in self._context.account[EcsSnapshot].services}
        for arn in [arn for arn in self._services if arn not in wanted]:
            self._departures.begin(self._services.pop(arn))
        for arn, service in wanted.items():
            if arn not in self._services:
                self._services[arn] = _Service(self._context, self._runtimes, service)
            await self._services[arn].follow(service)

    async def close(self) -> None:
        """Stop every task."""
        for one in self._services.values():
            self._departures.begin(one)
        self._services.clear()
        await self._departures.finish()

    def workloads(self) -> list[api.Workload]:
        """For `status`."""
        return [one.describe() for one in self._services.values()]


class _Service:
    """One service: what the machine asks about it, and what it tells."""

    def __init__(self, context: Context, runtimes: Runtimes, service: ClusterService) -> None:
        self._context, self._runtimes, self._service = context, runtimes, service
        self._balancers = runtimes[LoadBalancers]
        self._workload = Workload(service.name, self, runtimes.following)
        self._processor = ProcessorTime()

    async def follow(self, service: ClusterService) -> None:
        """Make the machine follow what the account says of the service."""
        self._service = service
        bounds = self.bounds(TASKS)
        desired = bounds.clamp(service.desired) if bounds else service.desired
        breaker = service.breaker
        budget = Budget(breaker.threshold(desired) if breaker.enabled else None, resets=breaker.resets)
        goal = Goal(
            generation=service.deployment,
            blueprint=blueprint(self._context.account, service),
            groups={TASKS: Share(service.desired, budget)},
            terms=Terms(
                limits=(service.minimum_percent, service.maximum_percent),
                grace=service.grace_seconds,
                rollback=breaker.rollback,
            ),
        )
        await self._workload.follow(goal, lambda: Tasks(self._context, self._runtimes, service))

    def hurry(self) -> None:
        """Wait for no request any more."""
        self._workload.hurry()

    async def close(self) -> None:
        """Stop its tasks."""
        await self._workload.close()
        self._balancers.explain_absence(self._groups(), self._service.name, "")

    def describe(self) -> api.Workload:
        """For `status`."""
        workload, service = self._workload, self._service
        return api.Workload(
            kind="ecs-service",
            name=service.name,
            stack=self._context.account[CloudFormationSnapshot].owner(service.arn, service.name),
            desired=workload.wanted(),
            state=workload.state,
            reason=workload.reason,
            unemulated=workload.unemulated(),
            replicas=tuple(one.describe() for one in workload.replicas()),
        )

    def _vcpus(self) -> float:
        active = self._workload.active
        return active.maker.definition.vcpus if active and isinstance(active.maker, Tasks) else 0.0

    def _groups(self) -> list[str]:
        return [binding.target_group_arn for binding in self._service.bindings]

    # --- what the machine tells and asks ----------------------------------------------------------

    def changed(self) -> None:
        """Say why its target groups are empty, where a failure is the reason."""
        reason, name = self._workload.reason, self._service.name
        why = f"service {name} has no tasks: {reason}" if reason else ""
        self._balancers.explain_absence(self._groups(), name, why)
        self._context.changed()

    def report(self, outcome: Outcome) -> None:
        """Report how the primary deployment is doing to the account."""
        back = outcome.restored.definition.arn if isinstance(outcome.restored, Tasks) else ""
        report = Report(
            "ecs-service",
            self._service.arn,
            outcome.generation,
            outcome.state,
            outcome.running,
            outcome.reason,
            back,
        )
        self._context.report(report)

    @property
    def _resource_id(self) -> str:
        return f"service/{self._service.cluster}/{self._service.name}"

    def bounds(self, group: str) -> Bounds | None:
        """Those of its scalable target."""
        del group
        return self._context.account[ScalingSnapshot].bounds_of("ecs", self._resource_id)

    def policies(self, group: str) -> Sequence[Policy]:
        """Those of its scalable target."""
        del group
        return self._context.account[ScalingSnapshot].policies_of("ecs", self._resource_id)

    def counters(self, group: str, healthy: Sequence[Unit]) -> Counters:
        """What its load balancers counted, and the processor time of its tasks."""
        del group
        requests, seconds = self._balancers.seen(self._groups())
        replicas = [replica for unit in healthy for replica in unit.replicas]
        return Counters(
            at=asyncio.get_running_loop().time(),
            healthy=len(healthy),
            requests=requests,
            seconds=seconds,
            cpu=self._processor.of(replicas),
            vcpus=self._vcpus(),
        )

    async def set_desired(self, group: str, count: int) -> None:
        """UpdateService, as Application Auto Scaling calls it."""
        del group
        ecs = self._context.clients.client("ecs")
        service = self._service
        with contextlib.suppress(ClientError, BotoCoreError):  # the service is being deleted
            await self._context.blocking(
                ecs.update_service, cluster=service.cluster, service=service.name, desiredCount=count
            )
