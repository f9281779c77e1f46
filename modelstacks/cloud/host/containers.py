"""Runs a container as a process with the image's program, the template's environment and its own folder.

Each replica listens on its own port, and the data plane records the port on which the container would listen.
A target group or an endpoint that uses another port is refused, as the connection would be in AWS. If the
sandbox has network namespaces, the port is on the replica's own 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from modelstacks.adapters.sandbox import Policy, interpreter_paths, package_paths
from modelstacks.cloud.daemon.state import StateDirectory, disk_fault
from modelstacks.cloud.host.pool import Pool
from modelstacks.cloud.host.replicas import (
    REPLICA_LIMITS,
    ImageEnvironment,
    Registry,
    Replica,
    command_of,
    log_path,
    reserved_port,
)
from modelstacks.cloud.host.wire import ConnectionLost
from modelstacks.cloud.workloads.faults import Faults

__all__ = ["DEFAULT_MODEL_DIR", "Machine", "run_container"]

DEFAULT_PORT = 8080
DEFAULT_MODEL_DIR = "/opt/ml/model"
POISON = "poisoned by an injected fault"


class Machine(Protocol):
    """What a container needs from this machine."""

    state: StateDirectory
    registry: Registry
    pool: Pool
    faults: Faults


async def run_container(
    machine: Machine,
    *,
    kind: str,
    workload: str,
    image: ImageEnvironment,
    entrypoint: Sequence[str],
    arguments: Sequence[str],
    environment: Mapping[str, str],
    log_group: str,
    log_stream: str,
    on_end: Callable[[Replica], None],
    model_directory: Path | None = None,
) -> Replica:
    """Start a container. `{id}` in the log stream is replaced by the replica's id.

    `model_directory` is the model that is mounted. Without it, MODEL_SERVER_MODEL_DIR names an empty folder
    of the container. Raises EnvironmentFault if the disk is full.
    """
    reserved = reserved_port()
    replica = Replica(
        kind=kind,
        workload=workload,
        log_group=log_group,
        log_stream=log_stream,
        log=Path(),
        port=reserved.getsockname()[1],
        container_port=_listens_on(image, environment),
    )
    replica.log = log_path(machine.state.logs, log_group, replica.log_stream)
    files = machine.state.work / "replicas" / replica.id
    named = (variables.get("MODEL_SERVER_MODEL_DIR") for variables in (environment, image.env))
    inside = next(filter(None, named), DEFAULT_MODEL_DIR)
    model = model_directory or files / inside.lstrip("/")
    try:
        model.mkdir(parents=True, exist_ok=True)
        files.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_fault(error, files) from error

    if not machine.registry.sandbox.private_network:
        # The replica will listen on it.
        reserved.close()

    def ended(one: Replica) -> None:
        reserved.close()
        machine.pool.forget(one.port or 0)
        shutil.rmtree(files, ignore_errors=True)
        on_end(one)

    variables = {
        **environment,
        "MODEL_SERVER_HOST": "127.0.0.1",
        "MODEL_SERVER_PORT": str(replica.port),
        "MODEL_SERVER_MODEL_DIR": str(model),
    }
    if "SAGEMAKER_BIND_TO_PORT" in variables:
        variables["SAGEMAKER_BIND_TO_PORT"] = str(replica.port)
    if machine.faults.poisoned(workload):
        entrypoint, arguments = ("sh", "-c"), (f"echo {POISON} >&2; exit 1",)
    command = command_of(
        image,
        entrypoint=entrypoint,
        arguments=arguments,
        environment=variables,
        directory=files,
        policy=Policy(
            readable=_visible(image, model_directory),
            writable=(files,),
            network="private",
            listen=(replica.port or 0,),
            connect=_gateway_ports(environment),
            forks=True,
            limits=REPLICA_LIMITS,
        ),
    )
    await machine.registry.start(replica, command, ended)
    if replica.namespace is not None:
        machine.pool.reach(replica.port or 0, replica.namespace.connect)
        # Lost if the replica has ended already; its log has the reason.
        with contextlib.suppress(ConnectionLost):
            await replica.namespace.open()
    return replica


def _visible(image: ImageEnvironment, model: Path | None) -> tuple[Path, ...]:
    """The paths of the container's image and of the model that is mounted into it."""
    python = Path(image.python)
    found = [image.root, *interpreter_paths(python), *package_paths(python)]
    return tuple([*found, model] if model is not None else found)


def _gateway_ports(environment: Mapping[str, str]) -> tuple[int, ...]:
    """The port of the replica's own AWS endpoint, the only one that it may connect to."""
    port = urlsplit(environment.get("AWS_ENDPOINT_URL", "")).port
    return (port,) if port is not None else ()


def _listens_on(image: ImageEnvironment, environment: Mapping[str, str]) -> int:
    for variables in (environment, image.env):
        for name in ("SAGEMAKER_BIND_TO_PORT", "MODEL_SERVER_PORT"):
            if variables.get(name, "").isdigit():
                return int(variables[name])
    return image.exposed_port or DEFAULT_PORT
