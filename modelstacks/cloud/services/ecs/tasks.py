"""ECS tasks: the containers of a task definition as processes, behind the service's target groups.

A task is started as the Fargate agent would start it: the execution role pulls the images, reads the secrets
and opens the log streams through the task's own network; then the containers run with the task role's
credentials. A read-only root file system and resource limits are not enforced: a process has no file system
of its own. The containers of a task do not reach each other: each has a port of its own on this machine.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from botocore.exceptions import BotoCoreError, ClientError

from modelstacks.cloud.context import Context
from modelstacks.cloud.host.containers import run_container
from modelstacks.cloud.host.replicas import Replica
from modelstacks.cloud.network import policies
from modelstacks.cloud.network.calls import ApiCall, Caller, may_call
from modelstacks.cloud.network.gateway import Gateway
from modelstacks.cloud.runtime import Runtimes
from modelstacks.cloud.services.ec2.snapshot import Ec2Snapshot, NetworkInterface
from modelstacks.cloud.services.ecr.calls import image_pull
from modelstacks.cloud.services.ecs.snapshot import ClusterService, Container, EcsSnapshot, TaskDefinition
from modelstacks.cloud.services.elbv2.runtime import LoadBalancers, Target
from modelstacks.cloud.services.iam.snapshot import IamSnapshot
from modelstacks.cloud.snapshot import Account
from modelstacks.cloud.workloads.kind import GivenUp, Sick, StartFailedError

__all__ = ["Task", "Tasks", "blueprint"]


def blueprint(account: Account, service: ClusterService) -> object:
    """What a service's tasks are made from."""
    definition = account[EcsSnapshot].task_definitions[service.task_definition_arn]
    return repr((definition, service.network, service.bindings))


@dataclass(eq=False)
class Task:
    """A running task: the processes of its containers, and its places in target groups."""

    balancers: LoadBalancers
    processes: list[tuple[Container, Replica]] = field(default_factory=list)
    targets: list[tuple[str, Target]] = field(default_factory=list)
    subnet: str = ""

    @property
    def replicas(self) -> Sequence[Replica]:
        """The processes of its containers."""
        return [replica for _, replica in self.processes]

    @property
    def alive(self) -> bool:
        """Whether each essential container runs: the end of another one does not stop the task."""
        return all(replica.alive for container, replica in self.processes if container.essential)

    @property
    def healthy(self) -> bool:
        """Whether every target group that it is in sends it requests; without one, whether it runs."""
        return self.alive and all(target.state == "healthy" for _, target in self.targets)

    @property
    def sick(self) -> Sick | None:
        """ECS stops a task that a load balancer calls unhealthy."""
        target = next((one for _, one in self.targets if one.state == "unhealthy"), None)
        if target is None:
            return None
        why = f"task failed its load balancer's health checks: {target.why}"
        return Sick(why, lasting=target.lasting)

    @property
    def cause(self) -> str:
        """Why an essential container ended, or what its last health check found."""
        essential = [replica for container, replica in self.processes if container.essential]
        ended = [one for one in essential if not one.alive]
        return next((one.reason for one in (*ended, *essential) if one.reason), "")

    async def withdraw(self) -> None:
        """Deregister it; returns when its requests are answered or the deregistration delay is over."""
        await asyncio.gather(*(self.balancers.deregister(group, target) for group, target in self.targets))

    async def stop(self) -> None:
        """End its containers, each with its own stop timeout."""
        await asyncio.gather(*(replica.stop(container.stop_timeout) for container, replica in self.processes))


class Tasks:
    """Makes the tasks of one deployment."""

    def __init__(self, context: Context, runtimes: Runtimes, service: ClusterService) -> None:
        self._context, self._balancers, self._service = context, runtimes[LoadBalancers], service
        definitions = context.account[EcsSnapshot].task_definitions
        self.definition: TaskDefinition = definitions[service.task_definition_arn]
        caller = Caller(
            f"service {service.name}",
            self.definition.task_role_arn,
            service.network,
            public_address=service.public_address,
        )
        self._gateway = Gateway(context, runtimes, caller)
        self._is_open = False
        self._tasks: list[Task] = []
        self._addresses = 0

    async def open(self) -> None:
        """Everything is opened when the first task starts: what fails then counts as a failed task."""

    async def close(self) -> None:
        """Close the tasks' way to AWS."""
        await self._gateway.close()

    def explain(self, given_up: GivenUp) -> str:
        """As ECS words the end of a deployment."""
        after = "; rolled back to the last completed deployment" if given_up.rolled_back else ""
        return f"ECS deployment circuit breaker: {given_up.failures} tasks failed: {given_up.cause}{after}"

    async def start(self, group: str) -> Task:
        """Start one task. Raises StartFailedError with its stopped reason."""
        del group
        network = self._check()
        await self._open_gateway()
        task = Task(self._balancers)
        try:
            for container in self.definition.containers:
                task.processes.append((container, await self._run(container)))
        except BaseException:
            await task.stop()
            raise
        self._plug_in(task, network)
        return task

    # --- what has to be right before anything starts ------------------------------------------------

    def _check(self) -> NetworkInterface:
        """The network that the task is in. Raises StartFailedError for what ECS or Fargate would refuse."""
        service, definition = self._service, self.definition
        if service.unemulated:
            raise StartFailedError(
                f"the embedded cloud does not emulate {service.unemulated} of ECS services"
            )
        if service.network is None:
            kind = definition.network_mode
            raise StartFailedError(f"the embedded cloud runs awsvpc tasks, {definition.family} is {kind}")
        if not any(container.essential for container in definition.containers):
            raise StartFailedError(f"the task definition {definition.family} has no essential container")
        ports = {container.name: container.ports for container in definition.containers}
        for binding in service.bindings:
            if binding.port not in ports.get(binding.container, ()):
                raise StartFailedError(
                    f"the container {binding.container} did not have a container port {binding.port} defined"
                )
        self._check_roles()
        for container in definition.containers:
            self._check_agent(container)
        return service.network

    def _check_roles(self) -> None:
        """ECS assumes the task's roles."""
        account, service = self._context.account, self._service
        task = f"arn:aws:ecs:{account.region}:{account.id}:task/{service.cluster}/{service.name}"
        for arn in filter(None, (self.definition.task_role_arn, self.definition.execution_role_arn)):
            role = account[IamSnapshot].roles.get(arn)
            refused = role and policies.trusts(role, "ecs-tasks.amazonaws.com", source=task)
            if role is None or refused:
                raise StartFailedError(
                    f"ECS was unable to assume the role {arn}: {refused or 'it does not exist'}"
                )

    def _check_agent(self, container: Container) -> None:
        """What the agent needs before a container runs: image, secrets, logs, over the task's network."""
        service = self._service
        agent = Caller(
            f"service {service.name}",
            self.definition.execution_role_arn,
            service.network,
            public_address=service.public_address,
        )
        for kind, call in self._agent_calls(container):
            if refused := may_call(self._context.account, agent, call):
                self._context.refuse(refused)
                raise StartFailedError(f"{kind}: {refused}")

    def _agent_calls(self, container: Container) -> list[tuple[str, ApiCall]]:
        account = self._context.account
        pulls = [call for network in ("ecr.api", "ecr.dkr") for call in image_pull(container.image, network)]
        if pulls:
            # ECR keeps its layers in S3: the agent needs a route there, and no permission.
            pulls.append(ApiCall("s3", "s3", "", "*"))
        calls = [("CannotPullContainerError", call) for call in pulls]
        if container.log_driver == "awslogs":
            group = container.log_options.get("awslogs-group", "")
            arn = f"arn:aws:logs:{account.region}:{account.id}:log-group:{group}:log-stream:"
            calls += [
                ("ResourceInitializationError", ApiCall("logs", "logs", action, arn))
                for action in ("logs:CreateLogStream", "logs:PutLogEvents")
            ]
        for value in container.secrets.values():
            name, action = "ssm", "ssm:GetParameters"
            if ":secret:" in value:
                name, action = "secretsmanager", "secretsmanager:GetSecretValue"
            call = ApiCall(name, name, action, _secret_arn(value))
            calls.append(("ResourceInitializationError", call))
        return calls

    async def _open_gateway(self) -> None:
        if self._is_open:
            return
        try:
            await self._gateway.open()
        except (ClientError, BotoCoreError) as error:
            raise StartFailedError(f"no credentials for the task role: {error}") from error
        self._is_open = True

    # --- containers -------------------------------------------------------------------------------

    async def _run(self, container: Container) -> Replica:
        image = await self._context.blocking(self._context.images, container.image)
        secrets = await self._secrets(container)
        prefix = container.log_options.get("awslogs-stream-prefix", self._service.name)
        return await run_container(
            self._context,
            kind="ecs-task",
            workload=self._service.name,
            image=image,
            entrypoint=container.entrypoint or tuple(image.entrypoint),
            arguments=container.command or (() if container.entrypoint else tuple(image.cmd)),
            environment={
                **container.environment,
                **secrets,
                **self._gateway.environment(),
                **self._gateway.container_credentials(),
            },
            log_group=container.log_options.get("awslogs-group", f"/ecs/{self.definition.family}"),
            log_stream=f"{prefix}/{container.name}/{{id}}",
            on_end=lambda _: None,
        )

    async def _secrets(self, container: Container) -> Mapping[str, str]:
        values = {}
        for name, reference in container.secrets.items():
            try:
                values[name] = await self._context.blocking(self._secret, reference)
            except (ClientError, BotoCoreError, KeyError, ValueError) as error:
                raise StartFailedError(
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

    # --- network ----------------------------------------------------------------------------------

    def _plug_in(self, task: Task, network: NetworkInterface) -> None:
        """Give the task an address in the subnet with the fewest tasks, and put it into its target groups."""
        service = self._service
        self._tasks = [one for one in self._tasks if one.alive]
        crowd = Counter(one.subnet for one in self._tasks)
        task.subnet = min(network.subnet_ids, key=lambda one: crowd[one])
        self._tasks.append(task)
        subnet = self._context.account[Ec2Snapshot].subnets.get(task.subnet)
        for replica in task.replicas:
            replica.zone = subnet.zone if subnet else None
        self._addresses += 1
        interface = NetworkInterface(
            network.what, (task.subnet,), network.security_group_ids, index=10 + self._addresses
        )
        replicas = {container.name: replica for container, replica in task.processes}
        for binding in service.bindings:
            target = Target(
                replicas[binding.container],
                service.name,
                interface,
                binding.port,
                latency=lambda: self._context.faults.latency(service.name),
                grace=service.grace_seconds,
            )
            task.targets.append((binding.target_group_arn, target))
            self._balancers.register(binding.target_group_arn, target)
        bound = {id(target.replica) for _, target in task.targets}
        for replica in task.replicas:
            if id(replica) not in bound and replica.alive:
                replica.state = "healthy"


def _secret_arn(reference: str) -> str:
    """The secret's ARN out of valueFrom, which may go on with a JSON key, a version stage and id."""
    return ":".join(reference.split(":")[:7]) if ":secret:" in reference else reference
