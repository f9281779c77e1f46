"""SageMaker endpoints: instances as processes, and the runtime API that invokes them.

An endpoint's container is started with its model's image, environment and data, called on /ping until it is
ready, and called on /invocations, as SageMaker does. A new endpoint config is started beside the old one
and takes over when it is healthy; one that does not become healthy leaves the old one in service.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import secrets
import shutil
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from botocore.exceptions import BotoCoreError, ClientError

from modelstacks.cloud import api
from modelstacks.cloud.account.aws_errors import refusal
from modelstacks.cloud.account.channel import Report
from modelstacks.cloud.context import Context
from modelstacks.cloud.daemon.state import disk_fault
from modelstacks.cloud.host.containers import run_container
from modelstacks.cloud.host.replicas import Replica, State
from modelstacks.cloud.host.wire import ConnectionLost, Headers, Request, Response
from modelstacks.cloud.network import policies
from modelstacks.cloud.network.calls import ApiCall, Caller, decrypt_call, image_pull, may_call
from modelstacks.cloud.network.gateway import Gateway
from modelstacks.cloud.services.application_autoscaling.snapshot import ScalingSnapshot
from modelstacks.cloud.services.cloudformation.snapshot import CloudFormationSnapshot
from modelstacks.cloud.services.iam.snapshot import IamSnapshot
from modelstacks.cloud.services.sagemaker.snapshot import Endpoint, Model, SageMakerSnapshot, Variant
from modelstacks.cloud.snapshot import Account
from modelstacks.core.artifact.unpacking import unpack
from modelstacks.core.errors import ModelstacksError, UsageError

__all__ = ["Endpoints"]

CONTAINER_PORT = 8080  # SageMaker calls this port and no other
INVOCATION_SECONDS = 60.0
TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency "
    "metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
)
BODY_LIMIT = 25 * 1024 * 1024
FAILURES = 3  # replicas of one variant that may die before it is in service
PING_SECONDS = 0.1
STOP_SECONDS = 30.0
FORWARDED = {
    "content-type": "Content-Type",
    "accept": "Accept",
    "x-amzn-sagemaker-custom-attributes": "X-Amzn-SageMaker-Custom-Attributes",
    "x-amzn-sagemaker-inference-id": "X-Amzn-SageMaker-Inference-Id",
}
PING = Request("GET", "/ping", headers=[("Host", "localhost:8080")])
ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"


class StartFailedError(Exception):
    """An endpoint did not come into service; the message is its failure reason."""


@dataclass
class _Instances:
    """The instances of one variant."""

    variant: Variant
    model: Model
    wanted: int
    gateway: Gateway
    directory: Path | None = None
    replicas: list[Replica] = field(default_factory=list)
    busy: dict[str, int] = field(default_factory=dict)  # replica id -> invocations in flight
    deaths: int = 0
    cause: str = ""
    death: asyncio.Event = field(default_factory=asyncio.Event)

    def healthy(self) -> list[Replica]:
        return [one for one in self.replicas if one.state == "healthy" and one.alive]


@dataclass
class _Fleet:
    """An endpoint config in service, or on its way there."""

    endpoint: Endpoint
    blueprint: object  # what it was made from: another blueprint means another fleet
    variants: list[_Instances] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    in_service: bool = False
    closing: bool = False


class _EndpointState:
    def __init__(self, endpoint: Endpoint) -> None:
        self.name, self.arn = endpoint.name, endpoint.arn
        self.serving: _Fleet | None = None
        self.coming: _Fleet | None = None
        self.state: str = "starting"
        self.reason: str | None = None
        self.rollout: asyncio.Task[None] | None = None


class Endpoints:
    """Every endpoint of the account."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._states: dict[str, _EndpointState] = {}

    async def reconcile(self) -> None:
        """Start, replace and stop fleets until they are what the account's endpoints ask for."""
        account = self._context.account
        for name in [name for name in self._states if name not in account[SageMakerSnapshot].endpoints]:
            await self._remove(self._states.pop(name))
        for name, endpoint in account[SageMakerSnapshot].endpoints.items():
            state = self._states.setdefault(name, _EndpointState(endpoint))
            blueprint = _blueprint(account, endpoint)
            if state.coming is not None and state.coming.blueprint == blueprint:
                continue
            if state.rollout is not None:
                state.rollout.cancel()
                await asyncio.gather(state.rollout, return_exceptions=True)
                state.rollout = state.coming = None
            if state.serving is not None and state.serving.blueprint == blueprint:
                state.state, state.reason = "stable", None
                self._tell(endpoint, "stable")
                continue
            if endpoint.status == "Failed":  # SageMaker lets it be deleted and nothing else
                continue
            fleet = _Fleet(endpoint, blueprint)
            state.coming, state.state, state.reason = fleet, "starting", None
            state.rollout = asyncio.create_task(self._roll_out(state, fleet), name=f"endpoint {name}")

    async def close(self) -> None:
        """Stop every instance."""
        await asyncio.gather(*(self._remove(state) for state in self._states.values()))
        self._states.clear()

    def describe(self) -> list[api.Workload]:
        """For `status`."""
        return [self._describe(state) for state in self._states.values()]

    def _describe(self, state: _EndpointState) -> api.Workload:
        fleets = [fleet for fleet in (state.serving, state.coming) if fleet is not None]
        goal = state.coming or state.serving
        replicas = [replica for fleet in fleets for one in fleet.variants for replica in one.replicas]
        desired = sum(one.wanted for one in goal.variants) if goal else 0
        return api.Workload.model_validate(
            {
                "kind": "sagemaker-endpoint",
                "name": state.name,
                "stack": self._context.account[CloudFormationSnapshot].owner(state.name, state.arn),
                "desired": desired,
                "state": state.state,
                "reason": state.reason,
                "replicas": [replica.describe() for replica in replicas],
            }
        )

    # --- bringing an endpoint config into service -----------------------------------------------

    async def _roll_out(self, state: _EndpointState, fleet: _Fleet) -> None:
        try:
            await self._start(fleet)
        except asyncio.CancelledError:
            await self._stop(fleet)
            raise
        except (StartFailedError, ModelstacksError) as error:
            await self._stop(fleet)
            state.coming = None
            self._fail(state, fleet, str(error))
        except Exception as error:
            await self._stop(fleet)
            state.coming = None
            self._fail(state, fleet, f"internal error: {error!r}")
            raise
        else:
            before, state.serving, state.coming = state.serving, fleet, None
            state.state, state.reason = "stable", None
            self._tell(fleet.endpoint, "stable")
            if before is not None:
                await self._stop(before)
        finally:
            self._context.changed()

    def _fail(self, state: _EndpointState, fleet: _Fleet, reason: str) -> None:
        state.state, state.reason = "failed", reason
        self._tell(fleet.endpoint, "failed", reason)

    def _tell(self, endpoint: Endpoint, how: Literal["stable", "failed"], reason: str = "") -> None:
        """Report to the control plane, which waits where the endpoint is being created or updated."""
        self._context.report(Report("sagemaker-endpoint", endpoint.arn, endpoint.config, how, reason=reason))

    async def _start(self, fleet: _Fleet) -> None:
        account = self._context.account
        for variant in fleet.endpoint.variants:
            model = account[SageMakerSnapshot].models.get(variant.model)
            if variant.serverless:
                raise StartFailedError(
                    f"variant {variant.name}: the embedded cloud has no serverless variants yet"
                )
            if model is None:
                raise StartFailedError(f'variant {variant.name}: could not find model "{variant.model}"')
            caller = Caller(
                f"endpoint {fleet.endpoint.name}", model.role_arn, model.network, isolated=model.isolated
            )
            gateway = Gateway(self._context, caller)
            wanted = _wanted(account, fleet.endpoint, variant)
            instances = _Instances(variant, model, wanted, gateway)
            fleet.variants.append(instances)
            self._check_role(model)
            await gateway.open()
            instances.directory = await self._downloaded(variant, model)
        for instances in fleet.variants:
            for _ in range(instances.wanted):
                await self._launch(fleet, instances)
        await asyncio.gather(*(self._in_service(instances) for instances in fleet.variants))
        fleet.in_service = True

    def _check_role(self, model: Model) -> None:
        """What SageMaker itself does with the execution role before a container starts."""
        account = self._context.account
        role = account[IamSnapshot].roles.get(model.role_arn)
        if role is None:
            raise StartFailedError(f'could not assume role "{model.role_arn}": it does not exist')
        if refused := policies.trusts(role, "sagemaker.amazonaws.com", source=model.arn):
            raise StartFailedError(str(self._context.refuse(refused)))
        platform = Caller(f"model {model.name}", model.role_arn)  # the image is not pulled through the VPC
        for call in image_pull(model.image, "ecr.api"):
            if refused := may_call(account, platform, call):
                raise StartFailedError(str(self._context.refuse(refused)))

    async def _downloaded(self, variant: Variant, model: Model) -> Path | None:
        """The model's data, within the time that the variant gives its download."""
        try:
            async with asyncio.timeout(variant.download_timeout):
                return await self._model_data(model)
        except TimeoutError:
            raise StartFailedError(
                f"failed to download model data from {model.data_uri} within {variant.download_timeout:g} s "
                "(ModelDataDownloadTimeoutInSeconds)"
            ) from None

    async def _model_data(self, model: Model) -> Path | None:
        """The model's data, fetched from S3 with its role through its VPC, and unpacked.

        Its instances share it.
        """
        if not model.data_uri:
            return None
        bucket, _, key = model.data_uri.removeprefix("s3://").partition("/")
        # Network isolation does not hold the platform back: it fetches on the container's behalf.
        caller = Caller(f"model {model.name}", model.role_arn, model.network)
        call = ApiCall("s3", "s3", "s3:GetObject", f"arn:aws:s3:::{bucket}/{key}")
        account = self._context.account
        if refused := may_call(account, caller, call):
            self._context.refuse(refused)
            raise StartFailedError(f"failed to download model data from {model.data_uri}: {refused}")
        if model.data_type != "S3Object" or model.compression != "Gzip":
            raise StartFailedError(
                f"the embedded cloud fetches model data as one gzipped tar archive, got "
                f"S3DataType {model.data_type} and CompressionType {model.compression}"
            )
        s3 = self._context.clients.client("s3")
        try:
            head = await self._context.blocking(s3.head_object, Bucket=bucket, Key=key)
        except (ClientError, BotoCoreError) as error:
            raise StartFailedError(f"could not find model data at {model.data_uri}: {error}") from error
        if key_arn := head.get("SSEKMSKeyId"):
            decrypt = decrypt_call(account, key_arn)
            if refused := may_call(account, Caller(caller.what, model.role_arn), decrypt):
                raise StartFailedError(str(self._context.refuse(refused)))
        digest = hashlib.sha256(
            f"{model.data_uri} {head['ETag']} {head.get('VersionId')}".encode()
        ).hexdigest()
        directory = self._context.state.work / "models" / digest[:32]
        if not directory.exists():
            await self._context.blocking(_fetch_and_unpack, s3, bucket, key, directory)
        return directory

    async def _launch(self, fleet: _Fleet, instances: _Instances) -> None:
        model, variant = instances.model, instances.variant
        image = await self._context.blocking(self._context.images, model.image)
        if image.user.partition(":")[0] not in ("", "0", "root"):
            raise StartFailedError(
                f"the image of model {model.name} has USER {image.user}, and SageMaker runs hosting "
                "containers as root: leave USER out"
            )
        gateway = instances.gateway

        def ended(replica: Replica) -> None:
            instances.deaths += replica.state == "failed"
            instances.cause = replica.reason or instances.cause
            if replica in instances.replicas and replica.state == "stopped":
                instances.replicas.remove(replica)
            instances.death.set()

        keys = gateway.container_credentials()
        replica = await run_container(
            self._context,
            kind="sagemaker-instance",
            workload=fleet.endpoint.name,
            image=image,
            entrypoint=image.entrypoint,
            arguments=("serve",),
            environment={**model.environment, **gateway.environment(), **keys},
            log_group=f"/aws/sagemaker/Endpoints/{fleet.endpoint.name}",
            log_stream=f"{variant.name}/{{id}}",
            on_end=ended,
            model_directory=instances.directory,
        )
        instances.replicas.append(replica)
        self._spawn(fleet, self._keep(fleet, instances, replica))

    def _spawn(self, fleet: _Fleet, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        fleet.tasks.add(task)
        task.add_done_callback(fleet.tasks.discard)

    async def _in_service(self, instances: _Instances) -> None:
        """Wait until every instance answers its pings."""
        deadline = asyncio.get_running_loop().time() + instances.variant.startup_timeout
        while len(instances.healthy()) < instances.wanted:
            late = asyncio.get_running_loop().time() > deadline
            deaf = any(one.container_port != CONTAINER_PORT and one.reason for one in instances.replicas)
            if instances.deaths >= FAILURES or late or deaf:
                why = instances.cause or self._why_unhealthy(instances)
                raise StartFailedError(
                    f"The primary container for production variant {instances.variant.name} did not pass the "
                    f"ping health check. Please check CloudWatch logs for this endpoint. Cause: {why}"
                )
            await asyncio.sleep(PING_SECONDS / 4)
        instances.deaths = 0

    def _why_unhealthy(self, instances: _Instances) -> str:
        return next((one.reason for one in instances.replicas if one.reason), "no answer on /ping in time")

    async def _keep(self, fleet: _Fleet, instances: _Instances, replica: Replica) -> None:
        """Ping an instance for as long as it lives; put another in its place when it dies."""
        while replica.alive and not fleet.closing:
            healthy = await self._ping(replica)
            if replica.state in ("starting", "healthy", "unhealthy"):
                new: State = "healthy"
                if not healthy:
                    new = "starting" if replica.state == "starting" else "unhealthy"
                if new != replica.state:
                    replica.state = new
                    if fleet.in_service and healthy:
                        instances.deaths = 0
                    self._context.changed()
            pause = PING_SECONDS if replica.state != "healthy" else PING_SECONDS * 5
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(replica.ended.wait(), pause)
        if fleet.closing or replica not in instances.replicas:
            return
        instances.replicas.remove(replica)
        if fleet.in_service or instances.deaths < FAILURES:
            await asyncio.sleep(min(5.0, 0.2 * 2 ** min(instances.deaths, 5)))
            if not fleet.closing:
                await self._launch(fleet, instances)

    async def _ping(self, replica: Replica) -> bool:
        if self._context.faults.fails_health_checks(replica.id):
            replica.observed("an injected fault fails its health checks")
            return False
        if replica.container_port != CONTAINER_PORT:
            replica.observed(
                f"connection refused: SageMaker calls port {CONTAINER_PORT}, "
                f"the container listens on {replica.container_port}"
            )
            return False
        try:
            answer = await self._context.pool.send(PING, replica.port or 0, timeout=2)
            body = await answer.read()
        except (ConnectionLost, TimeoutError) as error:
            replica.observed(f"GET /ping: {error or 'no answer'}")
            return False
        healthy = answer.status == 200
        said = body[:200].decode("utf-8", "replace")
        replica.observed(None if healthy else f"GET /ping answered {answer.status}: {said}")
        return healthy

    async def _stop(self, fleet: _Fleet) -> None:
        fleet.closing = True
        replicas = [replica for one in fleet.variants for replica in one.replicas]
        await asyncio.gather(*(replica.stop(STOP_SECONDS) for replica in replicas))
        for task in list(fleet.tasks):
            task.cancel()
        await asyncio.gather(*fleet.tasks, return_exceptions=True)
        await asyncio.gather(*(one.gateway.close() for one in fleet.variants))

    async def _remove(self, state: _EndpointState) -> None:
        if state.rollout is not None:
            state.rollout.cancel()
            await asyncio.gather(state.rollout, return_exceptions=True)
        if state.serving is not None:
            await self._stop(state.serving)

    # --- the runtime API ------------------------------------------------------------------------

    async def invoke(self, request: Request, name: str) -> Response:
        """InvokeEndpoint."""
        with self._context.traffic.passing(f"endpoint {name}") as counter:
            response = await self._invoke(request, name)
            counter.errors += response.status >= 500
            return response

    async def _invoke(self, request: Request, name: str) -> Response:
        account = self._context.account.id
        state = self._states.get(name)
        if state is None or state.serving is None:
            return _validation(f"Endpoint {name} of account {account} not found.")
        if len(request.body) > BODY_LIMIT:
            return _validation(f"Request body must be at most {BODY_LIMIT} bytes.", 413)
        wanted = request.header("x-amzn-sagemaker-target-variant")
        variants = [one for one in state.serving.variants if wanted in (None, one.variant.name)]
        if not variants:
            return _validation(f"Variant {wanted} not found for endpoint {name} of account {account}.")
        instances = _by_weight(variants)
        healthy = instances.healthy()
        if not healthy:
            last = next((one.reason for one in instances.replicas if one.reason), instances.cause)
            return _error(503, "ServiceUnavailable", f"no healthy instance of endpoint {name}: {last}")
        replica = min(healthy, key=lambda one: instances.busy.get(one.id, 0))
        instances.busy[replica.id] = instances.busy.get(replica.id, 0) + 1
        try:
            return await self._call(request, state.serving.endpoint, instances, replica)
        finally:
            instances.busy[replica.id] -= 1
            if not replica.alive:
                instances.busy.pop(replica.id, None)

    async def _call(
        self, request: Request, endpoint: Endpoint, instances: _Instances, replica: Replica
    ) -> Response:
        # SageMaker passes on the headers that its API names, and nothing else.
        headers: Headers = [
            (FORWARDED[key.lower()], value) for key, value in request.headers if key.lower() in FORWARDED
        ]
        headers.append(("Host", "localhost:8080"))
        variant = instances.variant.name
        try:
            async with asyncio.timeout(INVOCATION_SECONDS):
                if delay := self._context.faults.latency(endpoint.name):
                    await asyncio.sleep(delay)
                answer = await self._context.pool.send(
                    Request("POST", "/invocations", headers=headers, body=request.body),
                    replica.port or 0,
                    timeout=INVOCATION_SECONDS,
                )
                body = await answer.read()
        except TimeoutError:
            return self._model_error(endpoint, replica, 0, TIMED_OUT, TIMED_OUT)
        except ConnectionLost as error:
            await asyncio.sleep(0)  # lets the replica's end be noticed, whose reason says more
            why = f"{error}; {replica.reason or 'the container closed it'}"
            return self._model_error(endpoint, replica, 500, why, why)
        if not 200 <= answer.status < 300:
            return self._model_error(endpoint, replica, answer.status, body.decode("utf-8", "replace"))
        passed = [("x-Amzn-Invoked-Production-Variant", variant), ("x-amzn-requestid", secrets.token_hex(16))]
        passed += [
            (key, value) for key, value in answer.headers if key.lower() in ("content-type", ATTRIBUTES)
        ]
        return Response(200, passed, body)

    def _model_error(
        self, endpoint: Endpoint, replica: Replica, status: int, message: str, reason: str = ""
    ) -> Response:
        """The container's error; `reason` where it is not the container that answered."""
        account = self._context.account
        kind = "client error" if 400 <= status < 500 else "server error"
        group = f"/aws/sagemaker/Endpoints/{endpoint.name}"
        body = {
            "ErrorCode": "CLIENT_ERROR_FROM_MODEL" if kind == "client error" else "SERVER_ERROR_FROM_MODEL",
            "LogStreamArn": f"arn:aws:logs:{account.region}:{account.id}:log-group:{group}",
            "Message": f'Received {kind} ({status}) from primary with message "{message}". See {replica.log} '
            f"in account {account.id} for more information.",
            "OriginalMessage": message,
            "OriginalStatusCode": status,
        }
        return _error(424, "ModelError", reason, body)


def _blueprint(account: Account, endpoint: Endpoint) -> object:
    endpoint = replace(endpoint, status="")
    models = tuple(account[SageMakerSnapshot].models.get(variant.model) for variant in endpoint.variants)
    counts = tuple(_wanted(account, endpoint, variant) for variant in endpoint.variants)
    return endpoint, repr(models), counts


def _wanted(account: Account, endpoint: Endpoint, variant: Variant) -> int:
    """Instances to run: the variant's own count, within the bounds of its autoscaling."""
    name = f"endpoint/{endpoint.name}/variant/{variant.name}"
    for target in account[ScalingSnapshot].targets:
        if target.namespace == "sagemaker" and target.resource_id == name:
            return min(max(variant.count, target.minimum), target.maximum)
    return variant.count


def _by_weight(variants: Sequence[_Instances]) -> _Instances:
    weights = [one.variant.weight for one in variants]
    if len(variants) == 1 or not any(weights):
        return variants[0]
    return random.choices(variants, weights)[0]  # noqa: S311  traffic splitting


def _fetch_and_unpack(s3: object, bucket: str, key: str, directory: Path) -> None:
    """Download a .tar.gz and unpack it, all or nothing. Raises StartFailedError, EnvironmentFault."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".unpacking-"))
        try:
            with tempfile.NamedTemporaryFile(dir=directory.parent, prefix=".archive-") as archive:
                s3.download_fileobj(bucket, key, archive)  # type: ignore[attr-defined]
                archive.flush()
                unpack(Path(archive.name), staging, where=f"model data s3://{bucket}/{key}")
            staging.rename(directory)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except UsageError as error:
        raise StartFailedError(str(error)) from error
    except (ClientError, BotoCoreError) as error:
        raise StartFailedError(f"failed to download model data from s3://{bucket}/{key}: {error}") from error
    except OSError as error:
        if directory.exists():  # another fleet was faster
            return
        raise disk_fault(error, directory) from error


def _validation(message: str, status: int = 400) -> Response:
    return _error(status, "ValidationError", message)


def _error(status: int, code: str, message: str, body: Mapping[str, object] | None = None) -> Response:
    response = refusal("sagemaker", code, message, status)
    response.body = json.dumps(body or {"Message": message}).encode()
    response.headers = [
        ("content-type", "application/json") if key == "content-type" else (key, value)
        for key, value in response.headers
    ]
    return response
