"""The Plan: one frozen description of one deployment, from which stacks, forecasts and cards are made.

A Plan is made from spec + lock alone, offline; `plan.model_dump_json()` is all there is to it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, SerializeAsAny

from modelstacks.core.base import Frozen
from modelstacks.core.lock import Lock
from modelstacks.core.model import ArtifactModel, Model
from modelstacks.core.plan.contracts import contracts
from modelstacks.core.plan.runtime import Runtime, decide
from modelstacks.core.registry import targets
from modelstacks.core.signature import Signature
from modelstacks.core.spec import Api, Architecture, Aws, Logs, Network, Scaling, Spec, TargetSpec

__all__ = ["Plan", "Selection", "make_plan"]

# Which architectures to plan; "spec" is the one that the spec names.
Selection = Literal["spec", "both", "self-hosted", "managed"]


def _block(value: Any) -> Any:
    """A target's block as its own type, when a Plan is read back from JSON."""
    return targets()[value["target"]].spec.model_validate(value) if isinstance(value, dict) else value


class Plan(Frozen):
    """One spec on one architecture."""

    name: str
    description: str
    architecture: Architecture
    stack_name: str
    model: Model
    # The lock's path, relative to the project.
    lock_file: str
    # What answers inside a replica; None where the model's provider answers.
    runtime: Runtime | None
    # The groups of routes that the API has, beside those that every API has.
    contracts: tuple[str, ...]
    target: Annotated[SerializeAsAny[TargetSpec], BeforeValidator(_block)]
    api: Api
    network: Network
    scaling: Scaling
    max_body_bytes: int
    logs: Logs
    tags: dict[str, str]
    aws: Aws | None

    @property
    def signature(self) -> Signature | None:
        """What the model takes and gives; None where only its provider knows."""
        return self.model.signature if isinstance(self.model, ArtifactModel) else None

    @property
    def package_command(self) -> tuple[str, ...]:
        """Prints the path of the model's archive; run when assets are published, never in synth."""
        return ("python3", "-m", "modelstacks", "package", self.lock_file)


def make_plan(spec: Spec, lock: Lock, lock_file: str, architecture: Architecture) -> Plan:
    """Join spec and lock.

    `lock_file` is the lock's path as it is written into the template: relative to the project.
    """
    return Plan(
        name=spec.name,
        description=spec.description,
        architecture=architecture,
        stack_name=f"{spec.name}-{architecture}",
        model=lock.model,
        lock_file=lock_file,
        runtime=decide(spec, lock.model, architecture),
        contracts=contracts(lock.model),
        target=spec.target(architecture),
        api=spec.api,
        network=spec.network,
        scaling=spec.scaling,
        max_body_bytes=spec.server.max_body_bytes,
        logs=spec.logs,
        tags={"modelstacks:deployment": spec.name, "modelstacks:architecture": architecture, **spec.tags},
        aws=spec.aws,
    )
