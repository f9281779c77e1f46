"""ECS services: tasks as processes, rolling deployments, a circuit breaker, target tracking.

A task is started as the Fargate agent would start it: the execution role pulls the image, reads the secrets
and opens the log stream through the task's own network; then the container runs with the task role's
credentials. A read-only root file system and resource limits are not enforced: a process has no file system
of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from botocore.exceptions import BotoCoreError, ClientError

from modelstacks.cloud import api
from modelstacks.cloud.account.channel import Report
from modelstacks.cloud.context import SPEEDUP, Context
from modelstacks.cloud.host.containers import run_container
from modelstacks.cloud.host.replicas import Replica
from modelstacks.cloud.network import policies
from modelstacks.cloud.network.calls import ApiCall, Caller, image_pull, may_call
from modelstacks.cloud.network.gateway import Gateway
from modelstacks.cloud.services.application_autoscaling.snapshot import ScalingSnapshot
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.ec2.snapshot import NetworkInterface
from modelstacks.cloud.services.ecs.snapshot import ClusterService, Container, EcsSnapshot, TaskDefinition
from modelstacks.cloud.services.elbv2.runtime import LoadBalancers, Target
from modelstacks.cloud.services.iam.snapshot import IamSnapshot
from modelstacks.cloud.workloads.rolling import Limits, Tasks, next_moves
from modelstacks.cloud.workloads.scaling import Readings, measure
from modelstacks.core.errors import ModelstacksError

__all__ = ["Services"]

POLL_SECONDS = 0.05
SCALING_PERIOD = 60.0 / SPEEDUP  # seconds: Application Auto Scaling looks once a minute
SCALE_IN_PERIODS = 15
# A cloud has room for a service's maximum, a laptop may not: scaling stops here, starting never does.
MOST_SCALED_TASKS = 4


class TaskFailedError(Exception):
    """A task could not be started; the message is its stopped reason."""


@dataclass(eq=False)
class _Task:
    """A running task: its replica, and its places in target groups."""

    replica: Replica
    targets: list[tuple[str, Target]]
    started: float
    stopping: bool = False
    ending: asyncio.Task[None] | None = None

    def healthy(self) -> bool:
        return self.replica.alive and all(target.state == "healthy" for _, target in self.targets)


@dataclass(eq=False)
class _Deployment:
    """One revision of a service, and the tasks that run it."""

    service: ClusterService
    definition: TaskDefinition
    blueprint: object
    gateway: Gateway
    wanted: int = 0  # tasks to keep running
    tasks: list[_Task] = field(default_factory=list)
    failures: int = 0  # tasks that died or never became healthy
    cause: str = ""
    unusable: str = ""  # why no task can be started at all
    attempted: float = 0.0  # when a start was last attempted
    proven: set[str] = field(default_factory=set)  # replicas that have been healthy
    index: int = 0
    closing: bool = False

    def running(self) -> list[_Task]:
        """The tasks that are not being stopped."""
        return [task for task in self.tasks if not task.stopping]

    def count(self) -> Tasks:
        """How many run, and how many of them are healthy."""
        running = self.running()
        return Tasks(len(running), sum(task.healthy() for task in running))

    def fail(self, cause: str) -> None:
        """One more task has failed."""
        self.failures += 1
        self.cause = cause or self.cause


class _ServiceState:
    def __init__(self, service: ClusterService) -> None:
        self.service = service
        self.active: _Deployment | None = None  # the last one that was completed
        self.coming: _Deployment | None = None  # the one that replaces it
        self.id: str | None = None  # of the deployment that ECS regards as the primary one
        self.state = "starting"
        self.reason: str | None = None
        self.desired = service.desired
        self.looked_at = 0.0  # when scaling last read the load balancer's counters, and what it read
        self.requests, self.seconds = 0, 0.0
        self.quiet_periods = 0
        self.loop: asyncio.Task[None] | None = None
        self.leaving: set[asyncio.Task[None]] = set()  # revisions that are being stopped


class Services:
    """Every ECS service of the account.

    `account` is held while the account is read and followed: what is written to a service between the two
    would be undone by the older reading.
    """

    def __init__(self, context: Context, balancers: LoadBalancers, account: asyncio.Lock) -> None:
        self._context, self._balancers, self._account = context, balancers, account
        self._states: dict[str, _ServiceState] = {}
        balancers.absence = self._absence

    async def reconcile(self) -> None:
        """Deploy what is new or changed; stop what is gone."""
        wanted = {service.arn: service for service in self._context.account[EcsSnapshot].services}
        for arn in [arn for arn in self._states if arn not in wanted]:
            await self._remove(self._states.pop(arn))
        for arn, service in wanted.items():
            await self._update(arn, service)

    async def _update(self, arn: str, service: ClusterService) -> None:
        state = self._states.setdefault(arn, _ServiceState(service))
        if service.desired != state.service.desired or state.loop is None:
            state.desired = service.desired
        state.service = service
        await self._keep_within_bounds(state)
        if service.deployment != state.id:
            state.id = service.deployment
            await self._deploy(state)
        if state.loop is None:
            state.loop = asyncio.create_task(self._run(state), name=f"service {service.name}")

    async def _deploy(self, state: _ServiceState) -> None:
        """Follow a new primary deployment: roll it out, or return to the revision that it was to replace."""
        service = state.service
        blueprint = self._blueprint(service)
        interrupted = state.coming is not None or state.state == "failed"
        if state.coming is not None:
            self._leave(state, state.coming)
            state.coming = None
        state.state, state.reason = "starting", None
        if interrupted and state.active is not None and state.active.blueprint == blueprint:
            return
        definition = self._context.account[EcsSnapshot].task_definitions[service.task_definition_arn]
        gateway = Gateway(
            self._context,
            Caller(
                f"service {service.name}",
                definition.task_role_arn,
                service.network,
                public_address=service.public_address,
            ),
        )
        state.coming = _Deployment(service, definition, blueprint, gateway)
        try:
            await gateway.open()
        except (ClientError, BotoCoreError) as error:
            state.coming.unusable = f"no credentials for the task role: {error}"

    def _blueprint(self, service: ClusterService) -> object:
        """What a deployment is made from."""
        definition = self._context.account[EcsSnapshot].task_definitions[service.task_definition_arn]
        return repr((definition, service.network, service.bindings))

    async def _keep_within_bounds(self, state: _ServiceState) -> None:
        """Application Auto Scaling keeps the desired count between its minimum and maximum."""
        lowest, highest = self._bounds(state.service)
        within = min(max(state.desired, lowest), highest)
        if within == state.service.desired:
            return
        if within > state.desired and state.state == "stable":
            state.state = "starting"  # until the tasks that are missing have come up
        await self._set_desired(state, within)

    async def _set_desired(self, state: _ServiceState, count: int) -> None:
        """UpdateService, as Application Auto Scaling calls it."""
        service = state.service
        ecs = self._context.clients.client("ecs")
        with contextlib.suppress(ClientError):  # the service is being deleted
            await self._context.blocking(
                ecs.update_service, cluster=service.cluster, service=service.name, desiredCount=count
            )
        state.desired, state.service = count, replace(service, desired=count)
        self._context.changed()

    def _bounds(self, service: ClusterService) -> tuple[int, int]:
        name = f"service/{service.cluster}/{service.name}"
        for target in self._context.account[ScalingSnapshot].targets:
            if target.namespace == "ecs" and target.resource_id == name:
                return target.minimum, target.maximum
        return 0, max(service.desired, 0)

    async def close(self) -> None:
        """Stop every task."""
        await asyncio.gather(*(self._remove(state) for state in self._states.values()))
        self._states.clear()

    def describe(self) -> list[api.Workload]:
        """For `status`."""
        found = []
        for state in self._states.values():
            deployments = [one for one in (state.active, state.coming) if one is not None]
            found.append(
                api.Workload.model_validate(
                    {
                        "kind": "ecs-service",
                        "name": state.service.name,
                        "stack": self._context.account[CloudFormationSnapshot].owner(
                            state.service.arn, state.service.name
                        ),
                        "desired": state.desired,
                        "state": state.state,
                        "reason": state.reason,
                        "replicas": [task.replica.describe() for one in deployments for task in one.tasks],
                    }
                )
            )
        return found

    def _absence(self, group_arn: str) -> str:
        """Why a target group has no targets, where a failed service would have filled it."""
        for state in self._states.values():
            bound = any(binding.target_group_arn == group_arn for binding in state.service.bindings)
            if bound and state.reason:
                return f"service {state.service.name} has no tasks: {state.reason}"
        return ""

    # --- the deployment controller ----------------------------------------------------------------

    async def _run(self, state: _ServiceState) -> None:
        while True:
            try:
                await self._step(state)
            except (ModelstacksError, ClientError, BotoCoreError) as error:
                self._fail(state, str(error))
            self._report(state)
            await asyncio.sleep(POLL_SECONDS)

    async def _step(self, state: _ServiceState) -> None:
        await self._scale(state)
        for deployment in (state.active, state.coming):
            if deployment is not None:
                self._notice_health(state, deployment)
                self._bury(deployment)
                self._replace_unhealthy(state.service, deployment)
        if state.coming is None:
            await self._hold(state)
        elif self._gives_up(state, state.coming):
            self._break_circuit(state, state.coming)
        else:
            await self._roll(state, state.coming)

    async def _hold(self, state: _ServiceState) -> None:
        """Keep the desired count of the active revision running."""
        active = state.active
        if active is None:
            return
        if state.state != "failed":  # a failed deployment that was not rolled back keeps what is left
            active.wanted = state.desired
        await self._start_up_to(active, active.wanted)
        for task in active.running()[active.wanted :]:
            self._retire(active, task)
        if state.state == "starting" and active.count() == Tasks(state.desired, state.desired):
            state.state, state.reason = "stable", None
            self._context.changed()

    async def _roll(self, state: _ServiceState, new: _Deployment) -> None:
        """One step from the active revision to the new one, within the service's limits."""
        service, old = state.service, state.active
        if service.unemulated:
            new.unusable = f"the embedded cloud does not emulate {service.unemulated} of ECS services"
        limits = Limits.of(state.desired, service.minimum_percent, service.maximum_percent)
        moves = next_moves(limits, new.count(), old.count() if old else Tasks(0, 0))
        new.wanted = state.desired
        await self._start_up_to(new, len(new.running()) + moves.start_new)
        for task in new.running()[state.desired :]:
            self._retire(new, task)
        if old is not None:
            self._retire_some(old, moves.stop_old)
            still = max(0, state.desired - new.count().healthy)
            old.wanted = min(old.wanted - moves.stop_old, still)
            await self._start_up_to(old, min(old.wanted, limits.highest - len(new.running())))
        if new.count().healthy >= state.desired and (old is None or not old.running()):
            self._complete(state, new)

    async def _start_up_to(self, deployment: _Deployment, wanted: int) -> None:
        """Start tasks until `wanted` run; after failures, ever more slowly."""
        for _ in range(wanted - len(deployment.running())):
            if deployment.failures and not self._backoff_over(deployment):
                return
            await self._start_one(deployment)

    def _retire_some(self, deployment: _Deployment, count: int) -> None:
        """Stop `count` tasks, the unhealthy ones first."""
        for task in sorted(deployment.running(), key=lambda task: task.healthy())[:count]:
            self._retire(deployment, task)

    def _complete(self, state: _ServiceState, deployment: _Deployment) -> None:
        """Every task of the new revision is healthy: it is the service's."""
        before, state.active, state.coming = state.active, deployment, None
        state.state, state.reason = "stable", None
        self._context.changed()
        if before is not None:
            self._leave(state, before)

    def _gives_up(self, state: _ServiceState, deployment: _Deployment) -> bool:
        breaker = state.service.breaker
        return breaker.enabled and deployment.failures >= breaker.threshold(state.desired)

    def _break_circuit(self, state: _ServiceState, deployment: _Deployment) -> None:
        """Give a deployment up, and return to the last completed one where the service says so."""
        back = state.active if state.service.breaker.rollback else None
        after = "; rolled back to the last completed deployment" if back else ""
        cause = f"{deployment.failures} tasks failed: {deployment.cause}{after}"
        state.coming = None
        self._leave(state, deployment)
        self._fail(state, f"ECS deployment circuit breaker: {cause}")
        self._tell(state, "failed", 0, revision=back.definition.arn if back else "")

    def _fail(self, state: _ServiceState, reason: str) -> None:
        state.state, state.reason = "failed", reason
        self._context.changed()

    def _report(self, state: _ServiceState) -> None:
        """Tell the control plane how the primary deployment fares."""
        primary = state.coming or state.active
        if primary is None or state.state == "failed":
            return
        count = primary.count()
        stable = state.coming is None and count == Tasks(state.desired, state.desired)
        self._tell(state, "stable" if stable else "starting", count.healthy)

    def _tell(
        self,
        state: _ServiceState,
        how: Literal["starting", "stable", "failed"],
        running: int,
        revision: str = "",
    ) -> None:
        arn, reason = state.service.arn, state.reason or ""
        self._context.report(Report("ecs-service", arn, state.id or "", how, running, reason, revision))

    def _notice_health(self, state: _ServiceState, deployment: _Deployment) -> None:
        """A task that becomes healthy resets the count of failures, unless the service says otherwise."""
        fresh = {task.replica.id for task in deployment.running() if task.healthy()} - deployment.proven
        deployment.proven |= fresh
        if fresh and (state.service.breaker.resets or deployment is state.active):
            deployment.failures = 0

    def _bury(self, deployment: _Deployment) -> None:
        """Count and forget the tasks whose process has ended."""
        for task in [one for one in deployment.running() if not one.replica.alive]:
            deployment.fail(task.replica.reason or "")
            self._retire(deployment, task)

    def _replace_unhealthy(self, service: ClusterService, deployment: _Deployment) -> None:
        """ECS stops a task that its load balancer calls unhealthy, once its grace period is over."""
        for task in deployment.running():
            sick = next((target for _, target in task.targets if target.state == "unhealthy"), None)
            graced = time.monotonic() - task.started < service.grace_seconds
            if sick is not None and (sick.lasting or not graced):
                deployment.fail(f"task failed its load balancer's health checks: {sick.why}")
                self._retire(deployment, task)

    def _backoff_over(self, deployment: _Deployment) -> bool:
        pause: float = min(5.0, 0.1 * 2 ** min(deployment.failures, 6))
        return time.monotonic() - deployment.attempted > pause

    def _retire(self, deployment: _Deployment, task: _Task) -> None:
        task.stopping = True
        if task.replica.alive:
            task.replica.state = "draining"
        task.ending = asyncio.create_task(self._end(deployment, task))

    async def _end(self, deployment: _Deployment, task: _Task) -> None:
        """Deregister first, so that requests in flight are answered, then stop the process."""
        task.stopping = True
        await asyncio.gather(*(self._balancers.deregister(group, target) for group, target in task.targets))
        grace = max((container.stop_timeout for container in deployment.definition.containers), default=30.0)
        await task.replica.stop(grace)
        if task in deployment.tasks:
            deployment.tasks.remove(task)

    def _leave(self, state: _ServiceState, deployment: _Deployment) -> None:
        """Stop a revision without waiting for it."""
        task = asyncio.create_task(self._stop(deployment))
        state.leaving.add(task)
        task.add_done_callback(state.leaving.discard)

    async def _stop(self, deployment: _Deployment) -> None:
        deployment.closing = True
        ending = [
            task.ending or asyncio.create_task(self._end(deployment, task)) for task in deployment.tasks
        ]
        await asyncio.gather(*ending)
        await deployment.gateway.close()

    async def _remove(self, state: _ServiceState) -> None:
        if state.loop is not None:
            state.loop.cancel()
            await asyncio.gather(state.loop, return_exceptions=True)
        for deployment in (state.active, state.coming):
            if deployment is not None:
                await self._stop(deployment)
        await asyncio.gather(*state.leaving)

    # --- a task -----------------------------------------------------------------------------------

    async def _start_one(self, deployment: _Deployment) -> None:
        deployment.attempted = time.monotonic()
        try:
            await self._start_task(deployment)
        except (TaskFailedError, ModelstacksError) as error:
            deployment.fail(str(error))
        self._context.changed()

    async def _start_task(self, deployment: _Deployment) -> None:
        service, definition = deployment.service, deployment.definition
        if deployment.unusable:
            raise TaskFailedError(deployment.unusable)
        if len(definition.containers) != 1:
            names = ", ".join(one.name for one in definition.containers)
            raise TaskFailedError(
                f"the embedded cloud runs tasks of one container, {definition.family} has {names}"
            )
        if service.network is None:
            kind = definition.network_mode
            raise TaskFailedError(f"the embedded cloud runs awsvpc tasks, {definition.family} is {kind}")
        container = definition.containers[0]
        if not container.essential:
            raise TaskFailedError(f"the task definition {definition.family} has no essential container")
        for binding in service.bindings:
            if binding.container != container.name or binding.port not in container.ports:
                raise TaskFailedError(
                    f"the container {container.name} did not have a container port {binding.port} defined"
                )
        self._agent_checks(deployment, container)
        image = await self._context.blocking(self._context.images, container.image)
        secrets = await self._secrets(container)
        gateway = deployment.gateway
        prefix = container.log_options.get("awslogs-stream-prefix", service.name)
        replica = await run_container(
            self._context,
            kind="ecs-task",
            workload=service.name,
            image=image,
            entrypoint=container.entrypoint or tuple(image.entrypoint),
            arguments=container.command or (() if container.entrypoint else tuple(image.cmd)),
            environment={
                **container.environment,
                **secrets,
                **gateway.environment(),
                **gateway.container_credentials(),
            },
            log_group=container.log_options.get("awslogs-group", f"/ecs/{definition.family}"),
            log_stream=f"{prefix}/{container.name}/{{id}}",
            on_end=lambda _: None,
        )
        if deployment.closing:  # it was replaced while the task came up
            await replica.stop(0)
            return
        deployment.index += 1
        subnets = service.network.subnet_ids
        interface = NetworkInterface(
            service.network.what,
            (subnets[deployment.index % len(subnets)],),
            service.network.security_group_ids,
            index=10 + deployment.index,
        )
        task = _Task(replica, [], time.monotonic())
        for binding in service.bindings:
            target = Target(
                replica,
                service.name,
                interface,
                binding.port,
                latency=lambda: self._context.faults.latency(service.name),
                grace=service.grace_seconds,
            )
            task.targets.append((binding.target_group_arn, target))
            self._balancers.register(binding.target_group_arn, target)
        if not service.bindings:
            replica.state = "healthy"
        deployment.tasks.append(task)

    def _agent_checks(self, deployment: _Deployment, container: Container) -> None:
        """What the agent needs before the container runs: image, secrets, logs, over the task's network."""
        account, definition = self._context.account, deployment.definition
        service = deployment.service
        roles = [definition.task_role_arn, definition.execution_role_arn]
        task = f"arn:aws:ecs:{account.region}:{account.id}:task/{service.cluster}/{service.name}"
        for arn in filter(None, roles):
            role = account[IamSnapshot].roles.get(arn)
            refused = role and policies.trusts(role, "ecs-tasks.amazonaws.com", source=task)
            if role is None or refused:
                raise TaskFailedError(
                    f"ECS was unable to assume the role {arn}: {refused or 'it does not exist'}"
                )
        agent = Caller(
            f"service {service.name}",
            definition.execution_role_arn,
            service.network,
            public_address=service.public_address,
        )
        pulls = [call for network in ("ecr.api", "ecr.dkr") for call in image_pull(container.image, network)]
        if pulls:
            pulls.append(
                ApiCall("s3", "s3", "", "*")
            )  # ECR keeps its layers in S3: a route there, no permission
        checks = [("CannotPullContainerError", call) for call in pulls]
        prefix = f"arn:aws:logs:{account.region}:{account.id}"
        if container.log_driver == "awslogs":
            group = container.log_options.get("awslogs-group", "")
            arn = f"{prefix}:log-group:{group}:log-stream:"
            checks += [
                ("ResourceInitializationError", ApiCall("logs", "logs", action, arn))
                for action in ("logs:CreateLogStream", "logs:PutLogEvents")
            ]
        for value in container.secrets.values():
            service_name, action = ("ssm", "ssm:GetParameters") if ":secret:" not in value else (
                "secretsmanager", "secretsmanager:GetSecretValue")  # fmt: skip
            checks.append(
                (
                    "ResourceInitializationError",
                    ApiCall(service_name, service_name, action, _secret_arn(value)),
                )
            )
        for kind, call in checks:
            if refused := may_call(account, agent, call):
                self._context.refuse(refused)
                raise TaskFailedError(f"{kind}: {refused}")

    async def _secrets(self, container: Container) -> Mapping[str, str]:
        values = {}
        for name, reference in container.secrets.items():
            try:
                values[name] = await self._context.blocking(self._secret, reference)
            except (ClientError, BotoCoreError, KeyError, ValueError) as error:
                raise TaskFailedError(
                    f"ResourceInitializationError: secret {name} ({reference}): {error}"
                ) from error
        return values

    def _secret(self, reference: str) -> str:
        if ":secret:" not in reference:
            name = reference.partition(":parameter")[2] or reference
            found = self._context.clients.client("ssm").get_parameter(Name=name, WithDecryption=True)
            return str(found["Parameter"]["Value"])
        arn = _secret_arn(reference)
        text = str(
            self._context.clients.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
        )
        key = reference.removeprefix(arn).strip(":").split(":")[0]
        return str(json.loads(text)[key]) if key else text

    # --- scaling ----------------------------------------------------------------------------------

    async def _scale(self, state: _ServiceState) -> None:
        """Target tracking: out when a policy asks for more, in after fifteen periods that need fewer."""
        now = time.monotonic()
        elapsed = now - state.looked_at
        if state.state != "stable" or state.active is None or elapsed < SCALING_PERIOD:
            return
        requests, seconds = self._balancers.seen([one.target_group_arn for one in state.service.bindings])
        readings = Readings(
            period=elapsed,
            requests=requests - state.requests,
            seconds=seconds - state.seconds,
            healthy=sum(task.healthy() for task in state.active.tasks),
        )
        first_look = state.looked_at == 0.0
        state.looked_at, state.requests, state.seconds = now, requests, seconds
        name = f"service/{state.service.cluster}/{state.service.name}"
        policies_here = [
            one for one in self._context.account[ScalingSnapshot].policies if one.resource_id == name
        ]
        measured = [(measure(policy, readings), policy.target) for policy in policies_here]
        asked = [math.ceil(state.desired * value / goal) for value, goal in measured if value is not None]
        if first_look or not asked:
            return
        lowest, highest = self._bounds(state.service)
        needed = min(max([*asked, lowest]), highest, max(lowest, MOST_SCALED_TASKS))
        state.quiet_periods = state.quiet_periods + 1 if needed < state.desired else 0
        if state.quiet_periods >= SCALE_IN_PERIODS:
            state.quiet_periods, needed = 0, state.desired - 1
        elif needed <= state.desired:
            return
        async with self._account:
            await self._set_desired(state, needed)


def _secret_arn(reference: str) -> str:
    """The secret's ARN out of valueFrom, which may go on with a JSON key, a version stage and id."""
    return ":".join(reference.split(":")[:7]) if ":secret:" in reference else reference
