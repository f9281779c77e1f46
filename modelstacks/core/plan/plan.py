"""The Plan: one frozen description of one deployment, from which stacks, forecasts and cards are made.

A Plan is made from spec + lock alone, offline; `plan.model_dump_json()` is all there is to it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializeAsAny

from modelstacks.core.base import Frozen
from modelstacks.core.contract import (
    SERVER_ENVIRONMENT_PREFIX,
    answer_bytes,
    answer_seconds,
    image_arguments,
)
from modelstacks.core.lock import Lock
from modelstacks.core.signature import Signature
from modelstacks.core.spec import Api, Architecture, Aws, Logs, Network, Scaling, Spec, TargetSpec

__all__ = ["Plan", "PlannedModel", "Selection", "make_plan"]

Selection = Literal[
    "spec", "both", "self-hosted", "managed"
]  # which architectures to plan; "spec" is the spec's word


class PlannedModel(Frozen):
    """The model, as far as a deployment needs to know it."""

    source: str
    revision: str
    engine: str
    framework: str
    framework_version: str
    framework_series: str  # the older series that the spec chose; "" is the image's own
    task: str
    signature: Signature
    license: str
    archive_sha256: str
    archive_bytes: int
    package_command: tuple[
        str, ...
    ]  # prints the path of the archive; run when assets are published, never in synth
    aws_images: dict[str, str]

    @property
    def image_arguments(self) -> dict[str, str]:
        """What the serving image is built with."""
        return image_arguments(
            self.engine,
            torch=self.framework == "transformers",
            framework_version=self.framework_series,
        )


class Plan(Frozen):
    """One spec on one architecture."""

    name: str
    description: str
    architecture: Architecture
    stack_name: str
    model: PlannedModel
    target: SerializeAsAny[TargetSpec]
    api: Api
    network: Network
    scaling: Scaling
    server_environment: dict[
        str, str
    ]  # the model server's settings, without what only the stack knows (model URI)
    max_body_bytes: int
    logs: Logs
    tags: dict[str, str]
    aws: Aws | None


def make_plan(spec: Spec, lock: Lock, lock_file: str, architecture: Architecture) -> Plan:
    """Join spec and lock.

    `lock_file` is the lock's path as it should stand in the template: relative to the project.
    """
    model = lock.model
    return Plan(
        name=spec.name,
        description=spec.description,
        architecture=architecture,
        stack_name=f"{spec.name}-{architecture}",
        model=PlannedModel(
            source=model.source,
            revision=model.revision,
            engine=model.engine,
            framework=model.framework,
            framework_version=model.framework_version,
            framework_series=spec.model.framework_version or "",
            task=model.task,
            signature=model.signature,
            license=model.license,
            archive_sha256=model.archive.sha256,
            archive_bytes=model.archive.size,
            package_command=("python3", "-m", "modelstacks", "package", lock_file),
            aws_images=lock.aws_images,
        ),
        target=spec.target(architecture),
        api=spec.api,
        network=spec.network,
        scaling=spec.scaling,
        server_environment=_server_environment(spec, lock, architecture),
        max_body_bytes=spec.server.max_body_bytes,
        logs=spec.logs,
        tags={"modelstacks:deployment": spec.name, "modelstacks:architecture": architecture, **spec.tags},
        aws=spec.aws,
    )


def _server_environment(spec: Spec, lock: Lock, architecture: Architecture) -> dict[str, str]:
    server = spec.server
    settings: dict[str, Any] = {
        "MODEL_NAME": spec.name,
        "ENGINE": lock.model.engine,
        "MAX_BATCH_SIZE": server.max_batch_size,
        "MAX_QUEUE": server.max_queue,
        "MAX_BODY_BYTES": server.max_body_bytes,
        "MAX_LATENCY_MS": server.max_latency_ms,
        "TARGET_WAIT_MS": server.target_wait_ms,
        "DEADLINE_SECONDS": answer_seconds(spec.api.timeout_seconds, architecture),
        "NAN": server.nan,
        "MAX_ANSWER_BYTES": answer_bytes(server.max_body_bytes),
        "API_AUTH": spec.api.auth,
    }
    if architecture == "managed":  # SageMaker forwards one route: the others travel inside it
        settings["TUNNEL"] = "true"
    if server.workers is not None:
        settings["WORKERS"] = server.workers
    if lock.model.trust_code:
        settings["TRUST_CODE"] = "true"
    return {SERVER_ENVIRONMENT_PREFIX + key: str(value) for key, value in sorted(settings.items())}
