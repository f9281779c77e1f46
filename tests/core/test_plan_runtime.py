"""One place decides what answers inside a replica, and with which image."""

from __future__ import annotations

import pytest
from support.plans import make, make_lock

from modelstacks.core.engines import engine_facts
from modelstacks.core.model import ArtifactModel, LockedFile, Model, RemoteModel, VendorImage
from modelstacks.core.plan import ModelServer, Plan, make_plan
from modelstacks.core.plan.runtime import image_arguments
from modelstacks.core.spec import SourceSpec, Spec
from modelstacks.targets.ecs_fargate import EcsFargate
from modelstacks.targets.sagemaker_endpoint import SagemakerEndpoint

REMOTE = RemoteModel(
    source="provider",
    provider="models.example",
    model_id="small-1",
    task="classification",
    contracts=("predictive",),
)


def planned(model: Model) -> Plan:
    spec = Spec(
        name="churn",
        model=SourceSpec(source="artifact"),
        architecture="managed",
        **{"self-hosted": EcsFargate(), "managed": SagemakerEndpoint()},
    )
    lock = make_lock().model_copy(update={"model": model})
    return make_plan(spec, lock, "deployments/churn.lock.json", "managed")


def artifact(**changes: object) -> ArtifactModel:
    model = make_lock().model
    assert isinstance(model, ArtifactModel)
    return model.model_copy(update=changes)


def files(*paths: str) -> tuple[LockedFile, ...]:
    return tuple(LockedFile(path=path, size=1, sha256="0" * 64) for path in paths)


@pytest.mark.parametrize(
    ("paths", "torch"),
    [
        (("config.json", "model.onnx"), False),
        (("config.json", "onnx/model.onnx"), False),
        (("config.json", "model.safetensors"), True),
        (("config.json", "pytorch_model.bin"), True),
    ],
)
def test_pytorch_is_in_the_image_for_weights_that_need_it(paths: tuple[str, ...], torch: bool) -> None:
    runtime = planned(artifact(engine="transformers", files=files(*paths))).runtime
    assert isinstance(runtime, ModelServer)
    facts = engine_facts("transformers").torch
    assert facts is not None
    assert runtime.image_arguments.get("TORCH") == (facts.version if torch else None)
    assert runtime.name == ("transformers with PyTorch" if torch else "transformers")


def test_the_series_that_the_lock_names_is_the_images() -> None:
    runtime = planned(artifact(engine="sklearn", framework_series="1.5")).runtime
    assert isinstance(runtime, ModelServer)
    assert runtime.image_arguments == {"ENGINE": "sklearn", "FRAMEWORK_VERSION": "1.5"}
    assert runtime.name == "sklearn 1.5"


def test_an_engine_that_nobody_declares_gets_its_name_alone() -> None:
    assert image_arguments("nearest", ["model.bin"]) == {"ENGINE": "nearest"}


def test_a_vendors_image_is_the_runtime_of_a_model_that_names_one() -> None:
    image = VendorImage(name="server 1", uris={"eu-west-1": "1.dkr.ecr/server:1"}, port=8501)
    assert planned(artifact(engine="server", image=image)).runtime == image


def test_a_model_that_its_provider_hosts_has_no_runtime_no_archive_and_no_signature() -> None:
    plan = planned(REMOTE)
    assert (plan.runtime, plan.signature) == (None, None)
    assert "archive" not in plan.model_dump()["model"]
    assert plan.contracts == ("predictive",)


def test_a_predictive_model_needs_no_word_about_contracts() -> None:
    runtime = planned(artifact()).runtime
    assert isinstance(runtime, ModelServer)
    assert "MODEL_SERVER_CONTRACTS" not in runtime.environment


@pytest.mark.parametrize("architecture", ["self-hosted", "managed"])
def test_only_the_managed_architecture_tunnels_routes(architecture: str) -> None:
    runtime = make(architecture).runtime  # type: ignore[arg-type]
    assert isinstance(runtime, ModelServer)
    assert ("MODEL_SERVER_TUNNEL" in runtime.environment) == (architecture == "managed")


@pytest.mark.parametrize(
    "model",
    [artifact(), artifact(image=VendorImage(name="s", uris={"eu-west-1": "u"})), REMOTE],
    ids=["model server", "vendor's image", "remote"],
)
def test_a_plan_is_the_same_after_a_round_trip_through_json(model: Model) -> None:
    plan = planned(model)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
