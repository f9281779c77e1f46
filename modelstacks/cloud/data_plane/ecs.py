"""ECS services: tasks as processes, rolling deployments, a circuit breaker, target tracking.

A task is started as the Fargate agent would start it: the execution role pulls the image, reads the secrets
and opens the log stream through the task's own network; then the container runs with the task role's
credentials. A read-only root file system and resource limits are not enforced: a process has no file system
of its own.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from botocore.exceptions import BotoCoreError, ClientError

from modelstacks.cloud import api
from modelstacks.cloud.data_plane.containers import run_container
from modelstacks.cloud.data_plane.context import SPEEDUP, Context
from modelstacks.cloud.data_plane.gateway import Gateway
from modelstacks.cloud.data_plane.hops import policies
from modelstacks.cloud.data_plane.hops.calls import ApiCall, Caller, image_pull, may_call
from modelstacks.cloud.data_plane.load_balancer import LoadBalancers, Target
from modelstacks.cloud.data_plane.replicas import Replica
from modelstacks.cloud.data_plane.scaling import Readings, measure
from modelstacks.cloud.data_plane.topology import ClusterService, Container, TaskDefinition
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
    tasks: list[_Task] = field(default_factory=list)
    failures: int = 0  # tasks that died or never became healthy since the last one that did
    cause: str = ""
    steady: bool = False  # it has been fully healthy once
    index: int = 0
    closing: bool = False


class _ServiceState:
    def __init__(self, service: ClusterService) -> None:
        self.service = service
        self.active: _Deployment | None = None
        self.coming: _Deployment | None = None
        self.failed: object = None  # the blueprint that failed, and the world in which it did
        self.state = "starting"
        self.reason: str | None = None
        self.desired = service.desired
        self.looked_at = 0.0  # when scaling last read the load balancer's counters, and what it read
        self.requests, self.seconds = 0, 0.0
        self.quiet_periods = 0
        self.loop: asyncio.Task[None] | None = None


class Services:
    """Every ECS service of the account."""

    def __init__(self, context: Context, balancers: LoadBalancers) -> None:
        self._context, self._balancers = context, balancers
        self._states: dict[str, _ServiceState] = {}
        balancers.absence = self._absence

    async def reconcile(self) -> None:
        """Deploy what is new or changed; stop what is gone."""
        wanted = {service.arn: service for service in self._context.topology.services}
        for arn in [arn for arn in self._states if arn not in wanted]:
            await self._remove(self._states.pop(arn))
        for arn, service in wanted.items():
            if not self._context.topology.unfinished(arn, service.name):
                await self._update(arn, service)

    async def _update(self, arn: str, service: ClusterService) -> None:
        state = self._states.setdefault(arn, _ServiceState(service))
        lowest, highest = self._bounds(service)
        if service.desired != state.service.desired or state.loop is None:
            state.desired = service.desired
        state.desired = min(max(state.desired, lowest), highest)
        state.service = service
        blueprint = self._blueprint(service)
        current = state.coming or state.active
        if state.failed == (blueprint, self._world(service)):
            return  # it failed, and nothing that could have been the reason has changed
        if current is not None and current.blueprint == blueprint:
            if state.failed is not None:  # back to what the failed deployment was to replace
                state.state, state.reason, state.failed = "starting", None, None
            return
        if state.coming is not None:
            await self._stop(state.coming)
            state.coming = None
        definition = self._context.topology.task_definitions[service.task_definition_arn]
        gateway = Gateway(
            self._context,
            Caller(
                f"service {service.name}",
                definition.task_role_arn,
                service.network,
                public_address=service.public_address,
            ),
        )
        state.state, state.reason, state.failed = "starting", None, None
        state.coming = _Deployment(service, definition, blueprint, gateway)
        try:
            await gateway.open()
        except (ClientError, BotoCoreError) as error:
            state.coming.cause, state.coming.failures = f"no credentials for the task role: {error}", 1_000
        if state.loop is None:
            state.loop = asyncio.create_task(self._run(state), name=f"service {service.name}")

    def _blueprint(self, service: ClusterService) -> object:
        """What a deployment is made from: another one is another deployment."""
        definition = self._context.topology.task_definitions[service.task_definition_arn]
        return repr((definition, service.network, service.bindings))

    def _world(self, service: ClusterService) -> object:
        """What else decides whether a deployment succeeds: mending it is worth a new try."""
        topology = self._context.topology
        definition = topology.task_definitions[service.task_definition_arn]
        roles = [topology.roles.get(arn) for arn in (definition.task_role_arn, definition.execution_role_arn)]
        groups = [topology.target_groups.get(binding.target_group_arn) for binding in service.bindings]
        network = (
            topology.security_groups,
            topology.route_tables,
            topology.vpc_endpoints,
            topology.listeners,
        )
        return repr((roles, groups, network, topology.buckets, self._context.faults.active))

    def _bounds(self, service: ClusterService) -> tuple[int, int]:
        name = f"service/{service.cluster}/{service.name}"
        for target in self._context.topology.scalable_targets:
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
                        "stack": self._context.topology.owner(state.service.arn, state.service.name),
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
            await asyncio.sleep(POLL_SECONDS)

    async def _step(self, state: _ServiceState) -> None:
        self._scale(state)
        deployment = state.coming or state.active
        if deployment is None:
            return
        if state.coming is not None and deployment.failures >= self._threshold(state.desired):
            await self._break_circuit(state, deployment)
            return
        self._bury(deployment)
        self._replace_unhealthy(deployment)
        running = [task for task in deployment.tasks if not task.stopping]
        for _ in range(state.desired - len(running)):
            if deployment.failures and not self._backoff_over(deployment):
                break
            await self._start_one(deployment)
        for task in running[state.desired :]:
            self._retire(deployment, task)
        healthy = sum(task.healthy() for task in running)
        if healthy >= state.desired and len(running) <= state.desired:
            await self._settle(state, deployment)

    async def _settle(self, state: _ServiceState, deployment: _Deployment) -> None:
        """Every task is healthy: the deployment is the service's, and what it replaces goes away."""
        deployment.failures, deployment.steady = 0, True
        before = state.active if state.coming is deployment else None
        if state.coming is deployment:
            state.active, state.coming = deployment, None
        if state.state != "stable" and state.failed is None:
            state.state, state.reason = "stable", None
            self._context.changed()
        if before is not None:
            await self._stop(before)

    def _threshold(self, desired: int) -> int:
        """ECS's circuit breaker: half the desired count, but at least 3 and at most 200."""
        return min(200, max(3, math.ceil(desired / 2)))

    async def _break_circuit(self, state: _ServiceState, deployment: _Deployment) -> None:
        rolled_back = state.active is not None and state.service.rollback
        after = "; rolled back to the last steady deployment" if rolled_back else ""
        count = (
            f"{deployment.failures} tasks failed"
            if deployment.failures < 1_000
            else "tasks cannot be started"
        )
        state.failed = (deployment.blueprint, self._world(deployment.service))
        await self._stop(deployment)
        if state.coming is not deployment:
            return  # another deployment has taken its place in the meantime
        state.coming = None
        if state.active is not None and not state.service.rollback:
            await self._stop(state.active)
            state.active = None
        self._fail(state, f"ECS deployment circuit breaker: {count}: {deployment.cause}{after}")

    def _fail(self, state: _ServiceState, reason: str) -> None:
        state.state, state.reason = "failed", reason
        self._context.changed()

    def _bury(self, deployment: _Deployment) -> None:
        """Count and forget the tasks whose process has ended."""
        for task in [one for one in deployment.tasks if not one.replica.alive and not one.stopping]:
            deployment.failures += 1
            deployment.cause = task.replica.reason or deployment.cause
            self._retire(deployment, task)

    def _replace_unhealthy(self, deployment: _Deployment) -> None:
        """ECS stops a task that its load balancer calls unhealthy."""
        for task in [one for one in deployment.tasks if not one.stopping]:
            sick = next((target for _, target in task.targets if target.state == "unhealthy"), None)
            if sick is not None:
                deployment.failures += 1
                deployment.cause = f"task failed its load balancer's health checks: {sick.why}"
                self._retire(deployment, task)

    def _backoff_over(self, deployment: _Deployment) -> bool:
        last = max((task.started for task in deployment.tasks), default=0.0)
        pause: float = min(5.0, 0.1 * 2 ** min(deployment.failures, 6))
        return time.monotonic() - last > pause

    def _retire(self, deployment: _Deployment, task: _Task) -> None:
        task.stopping = True
        task.ending = asyncio.create_task(self._end(deployment, task))

    async def _end(self, deployment: _Deployment, task: _Task) -> None:
        """Deregister first, so that requests in flight are answered, then stop the process."""
        task.stopping = True
        await asyncio.gather(*(self._balancers.deregister(group, target) for group, target in task.targets))
        grace = max((container.stop_timeout for container in deployment.definition.containers), default=30.0)
        await task.replica.stop(grace)
        if task in deployment.tasks:
            deployment.tasks.remove(task)

    async def _stop(self, deployment: _Deployment) -> None:
        deployment.closing = True
        await asyncio.gather(*(self._end(deployment, task) for task in list(deployment.tasks)))
        await deployment.gateway.close()

    async def _remove(self, state: _ServiceState) -> None:
        if state.loop is not None:
            state.loop.cancel()
            await asyncio.gather(state.loop, return_exceptions=True)
        for deployment in (state.active, state.coming):
            if deployment is not None:
                await self._stop(deployment)

    # --- a task -----------------------------------------------------------------------------------

    async def _start_one(self, deployment: _Deployment) -> None:
        try:
            await self._start_task(deployment)
        except (TaskFailedError, ModelstacksError) as error:
            deployment.failures += 1
            deployment.cause = str(error)
        self._context.changed()

    async def _start_task(self, deployment: _Deployment) -> None:
        service, definition = deployment.service, deployment.definition
        if len(definition.containers) != 1:
            names = ", ".join(one.name for one in definition.containers)
            raise TaskFailedError(
                f"the embedded cloud runs tasks of one container, {definition.family} has {names}"
            )
        if service.network is None:
            kind = definition.network_mode
            raise TaskFailedError(f"the embedded cloud runs awsvpc tasks, {definition.family} is {kind}")
        container = definition.containers[0]
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
        interface = self._context.topology.interface(
            service.network.what,
            [subnets[deployment.index % len(subnets)]],
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
        topology, definition = self._context.topology, deployment.definition
        service = deployment.service
        roles = [definition.task_role_arn, definition.execution_role_arn]
        task = f"arn:aws:ecs:{topology.region}:{topology.account}:task/{service.cluster}/{service.name}"
        for arn in filter(None, roles):
            role = topology.roles.get(arn)
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
        region, account = topology.region, topology.account
        if container.log_driver == "awslogs":
            group = container.log_options.get("awslogs-group", "")
            arn = f"arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:"
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
            if refused := may_call(topology, agent, call):
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
            found = self._context.account.client("ssm").get_parameter(Name=name, WithDecryption=True)
            return str(found["Parameter"]["Value"])
        arn = _secret_arn(reference)
        text = str(
            self._context.account.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
        )
        key = reference.removeprefix(arn).strip(":").split(":")[0]
        return str(json.loads(text)[key]) if key else text

    # --- scaling ----------------------------------------------------------------------------------

    def _scale(self, state: _ServiceState) -> None:
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
        policies_here = [one for one in self._context.topology.scaling_policies if one.resource_id == name]
        measured = [(measure(policy, readings), policy.target) for policy in policies_here]
        asked = [math.ceil(state.desired * value / goal) for value, goal in measured if value is not None]
        if first_look or not asked:
            return
        lowest, highest = self._bounds(state.service)
        needed = min(max([*asked, lowest]), highest, max(lowest, MOST_SCALED_TASKS))
        state.quiet_periods = state.quiet_periods + 1 if needed < state.desired else 0
        if needed > state.desired:
            state.desired = needed
            self._context.changed()
        elif state.quiet_periods >= SCALE_IN_PERIODS:
            state.desired, state.quiet_periods = state.desired - 1, 0
            self._context.changed()


def _secret_arn(reference: str) -> str:
    """The secret's ARN out of valueFrom, which may go on with a JSON key, a version stage and id."""
    return ":".join(reference.split(":")[:7]) if ":secret:" in reference else reference
