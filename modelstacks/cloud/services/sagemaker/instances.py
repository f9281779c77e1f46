"""The instances of an endpoint: processes that are called on /ping until they are ready, and from then on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from modelstacks.cloud.context import Context
from modelstacks.cloud.host.containers import run_container
from modelstacks.cloud.host.replicas import Replica, State
from modelstacks.cloud.host.wire import ConnectionLost, Request
from modelstacks.cloud.network import policies
from modelstacks.cloud.network.calls import Caller, may_call
from modelstacks.cloud.network.gateway import Gateway
from modelstacks.cloud.runtime import Runtimes
from modelstacks.cloud.services.ecr.calls import image_pull
from modelstacks.cloud.services.iam.snapshot import IamSnapshot
from modelstacks.cloud.services.sagemaker.model_data import download
from modelstacks.cloud.services.sagemaker.snapshot import Endpoint, Model, SageMakerSnapshot, Variant
from modelstacks.cloud.workloads.kind import GivenUp, Sick, StartFailedError

__all__ = ["Instance", "Instances"]

CONTAINER_PORT = 8080  # SageMaker calls this port and no other
PING_SECONDS = 0.1
PING_TIMEOUT = 2.0
STOP_SECONDS = 30.0
PING = Request("GET", "/ping", headers=[("Host", "localhost:8080")])


class Instance:
    """An instance of a production variant: its process, and what its pings found."""

    def __init__(self, context: Context, replica: Replica) -> None:
        self._context, self.replica = context, replica
        self._pinging = asyncio.create_task(self._ping_on(), name=f"ping {replica.id}")

    @property
    def replicas(self) -> Sequence[Replica]:
        """Its process."""
        return (self.replica,)

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.replica.alive

    @property
    def healthy(self) -> bool:
        """Whether its last ping was answered with 200."""
        return self.replica.state == "healthy"

    @property
    def sick(self) -> Sick | None:
        """Only a container that listens on another port is beyond hope; others may answer again."""
        listens = self.replica.container_port
        if listens == CONTAINER_PORT:
            return None
        why = f"connection refused: SageMaker calls port {CONTAINER_PORT}, the container listens on {listens}"
        return Sick(why, lasting=True)

    @property
    def cause(self) -> str:
        """What its last ping found, or its last words."""
        return self.replica.reason or ""

    async def withdraw(self) -> None:
        """No more pings; the machine waits for its invocations."""
        self._pinging.cancel()
        await asyncio.gather(self._pinging, return_exceptions=True)

    async def stop(self) -> None:
        """End its process."""
        await self.replica.stop(STOP_SECONDS)

    async def _ping_on(self) -> None:
        """Ping it for as long as it lives: often until it is ready, more seldom then."""
        replica = self.replica
        while replica.alive:
            answered = await self._ping()
            if replica.state in ("starting", "healthy", "unhealthy"):
                new: State = "healthy"
                if not answered:
                    new = "starting" if replica.state == "starting" else "unhealthy"
                if new != replica.state:
                    replica.state = new
                    self._context.changed()
            pause = PING_SECONDS if replica.state != "healthy" else PING_SECONDS * 5
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(replica.ended.wait(), pause)

    async def _ping(self) -> bool:
        replica = self.replica
        if self._context.faults.fails_health_checks(replica.id):
            replica.observed("an injected fault fails its health checks")
            return False
        if self.sick is not None:
            replica.observed(self.sick.why)
            return False
        try:
            answer = await self._context.pool.send(PING, replica.port or 0, timeout=PING_TIMEOUT)
            body = await answer.read()
        except (ConnectionLost, TimeoutError) as error:
            replica.observed(f"GET /ping: {error or 'no answer'}")
            return False
        said = body[:200].decode("utf-8", "replace")
        replica.observed(None if answer.status == 200 else f"GET /ping answered {answer.status}: {said}")
        return answer.status == 200


@dataclass(frozen=True, slots=True)
class _Ready:
    """What the instances of one variant are started from."""

    variant: Variant
    model: Model
    gateway: Gateway
    directory: Path | None


class Instances:
    """Makes the instances of one endpoint configuration; a group is a production variant."""

    def __init__(self, context: Context, runtimes: Runtimes, endpoint: Endpoint) -> None:
        self._context, self._runtimes, self.endpoint = context, runtimes, endpoint
        self.variants = {variant.name: variant for variant in endpoint.variants}
        self._models = dict(context.account[SageMakerSnapshot].models)
        self._gateways: dict[str, Gateway] = {}
        self._ready: dict[str, _Ready] = {}

    def gateway(self, variant: str) -> Gateway:
        """The way to AWS of a variant's containers."""
        return self._gateways[variant]

    async def open(self) -> None:
        """Check each variant's model and download its data. Raises StartFailedError."""
        for variant in self.endpoint.variants:
            await self._open(variant)

    async def _open(self, variant: Variant) -> None:
        if variant.serverless:
            raise StartFailedError(
                f"variant {variant.name}: the embedded cloud has no serverless variants yet"
            )
        model = self._models.get(variant.model)
        if model is None:
            raise StartFailedError(f'variant {variant.name}: could not find model "{variant.model}"')
        self._check_role(model)
        caller = Caller(
            f"endpoint {self.endpoint.name}", model.role_arn, model.network, isolated=model.isolated
        )
        gateway = self._gateways[variant.name] = Gateway(self._context, self._runtimes, caller)
        try:
            await gateway.open()
        except (ClientError, BotoCoreError) as error:
            raise StartFailedError(f"no credentials for the role of model {model.name}: {error}") from error
        directory = await download(self._context, model, variant.download_timeout)
        self._ready[variant.name] = _Ready(variant, model, gateway, directory)

    def _check_role(self, model: Model) -> None:
        """What SageMaker itself does with the execution role before a container starts."""
        account = self._context.account
        role = account[IamSnapshot].roles.get(model.role_arn)
        if role is None:
            raise StartFailedError(f'could not assume role "{model.role_arn}": it does not exist')
        if refused := policies.trusts(role, "sagemaker.amazonaws.com", source=model.arn):
            raise StartFailedError(str(self._context.refuse(refused)))
        # The platform pulls the image, not through the model's VPC.
        platform = Caller(f"model {model.name}", model.role_arn)
        for call in image_pull(model.image, "ecr.api"):
            if refused := may_call(account, platform, call):
                raise StartFailedError(str(self._context.refuse(refused)))

    async def start(self, group: str) -> Instance:
        """Start one instance of a variant. Raises StartFailedError."""
        ready = self._ready[group]
        model, gateway = ready.model, ready.gateway
        image = await self._context.blocking(self._context.images, model.image)
        if image.user.partition(":")[0] not in ("", "0", "root"):
            raise StartFailedError(
                f"the image of model {model.name} has USER {image.user}, and SageMaker runs hosting "
                "containers as root: leave USER out"
            )
        replica = await run_container(
            self._context,
            kind="sagemaker-instance",
            workload=self.endpoint.name,
            image=image,
            entrypoint=image.entrypoint,
            arguments=("serve",),
            environment={
                **model.environment,
                **gateway.environment(),
                **gateway.container_credentials(),
            },
            log_group=f"/aws/sagemaker/Endpoints/{self.endpoint.name}",
            log_stream=f"{ready.variant.name}/{{id}}",
            on_end=lambda _: None,
            model_directory=ready.directory,
        )
        return Instance(self._context, replica)

    async def close(self) -> None:
        """Close the containers' ways to AWS."""
        await asyncio.gather(*(gateway.close() for gateway in self._gateways.values()))

    def explain(self, given_up: GivenUp) -> str:
        """As SageMaker words it; the cause is what AWS would leave to the log."""
        return (
            f"The primary container for production variant {given_up.group} did not pass the ping health "
            "check. Please check CloudWatch logs for this endpoint. Cause: "
            f"{given_up.cause or 'no answer on /ping in time'}"
        )
