"""Plans made by hand: what spec and lock would have given, without either."""

from __future__ import annotations

from typing import Any

from modelstacks.core.lock import Lock
from modelstacks.core.model import Archive, ArtifactModel, LockedFile
from modelstacks.core.plan import Plan, make_plan
from modelstacks.core.signature import Signature, Tensor
from modelstacks.core.spec import Architecture, SourceSpec, Spec
from modelstacks.targets.ecs_fargate import EcsFargate
from modelstacks.targets.sagemaker_endpoint import SagemakerEndpoint

__all__ = ["make", "make_lock"]


def make_lock() -> Lock:
    """A lock for an XGBoost classifier with three columns."""
    return Lock(
        spec="churn.yaml",
        model_digest="0" * 64,
        model=ArtifactModel(
            source="artifact",
            revision="sha256:" + "1" * 64,
            origin={"path": "model_artifacts/churn-xgboost"},
            files=(LockedFile(path="model.ubj", size=10, sha256="2" * 64),),
            archive=Archive(sha256="a" * 64, size=2048),
            framework="xgboost",
            framework_version="3.1.0",
            engine="xgboost",
            task="classification",
            signature=Signature(
                inputs=(Tensor(name="features", datatype="FP32", shape=(-1, 3), columns=("a", "b", "c")),),
                outputs=(Tensor(name="probabilities", datatype="FP32", shape=(-1, 2)),),
            ),
            license="Apache-2.0",
            license_from="spec",
            gated=False,
            trust_code=False,
        ),
    )


def make(architecture: Architecture, **changes: Any) -> Plan:
    """The plan of a small model; `changes` are fields of its spec."""
    fields: dict[str, Any] = {
        "name": "churn",
        "description": "who will leave",
        "model": SourceSpec(source="artifact", license="Apache-2.0"),
        "architecture": architecture,
        "self-hosted": EcsFargate(),
        "managed": SagemakerEndpoint(),
        **changes,
    }
    return make_plan(Spec(**fields), make_lock(), "deployments/churn.lock.json", architecture)
