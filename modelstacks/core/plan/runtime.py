"""The runtime: what answers inside a replica. This file alone decides it, and with it the image.

The model server with one engine, whose image is built from serving/, or an image that a vendor publishes.
A model that its provider hosts has no runtime here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from modelstacks.core.base import Frozen
from modelstacks.core.contract import (
    SERVER_ENVIRONMENT_PREFIX,
    answer_bytes,
    answer_seconds,
)
from modelstacks.core.engines import engine_facts
from modelstacks.core.model import ArtifactModel, Model, RemoteModel, Strings, VendorImage
from modelstacks.core.plan.contracts import contracts
from modelstacks.core.spec import Architecture, Spec

__all__ = ["ModelServer", "Runtime", "VendorImage", "decide", "image_arguments"]


class ModelServer(Frozen):
    """The project's own image: the model server with one engine."""

    kind: Literal["model-server"] = "model-server"
    engine: str
    # The build arguments of serving/Dockerfile. Whoever builds or installs this image uses exactly these.
    image_arguments: Strings
    # The model server's settings, without what only the stack knows (where the model is).
    environment: Strings

    @property
    def name(self) -> str:
        """How people call it: the engine, and its release series where that is not the image's own."""
        return " ".join(
            value for key, value in self.image_arguments.items() if key in ("ENGINE", "FRAMEWORK_VERSION")
        ) + (" with PyTorch" if "TORCH" in self.image_arguments else "")


Runtime = Annotated[ModelServer | VendorImage, Field(discriminator="kind")]


def decide(spec: Spec, model: Model, architecture: Architecture) -> ModelServer | VendorImage | None:
    """What answers for a model; None where its provider does."""
    match model:
        case RemoteModel():
            return None
        case ArtifactModel(image=VendorImage() as image):
            return image
        case ArtifactModel():
            return ModelServer(
                engine=model.engine,
                image_arguments=image_arguments(
                    model.engine, [file.path for file in model.files], model.framework_series
                ),
                environment=_environment(spec, model, architecture),
            )


def image_arguments(engine: str, paths: Iterable[str], series: str = "") -> dict[str, str]:
    """The build arguments of the serving image for a model with these files.

    `series` is an older release series of the engine's library; "" takes the image's own.

    PyTorch is larger than the rest of the image together: it comes only where the engine needs it for these
    files.

    Examples:
        >>> image_arguments("transformers", ["onnx/model.onnx", "config.json"])
        {'ENGINE': 'transformers'}
    """
    arguments = {"ENGINE": engine}
    facts = engine_facts(engine)
    if facts.torch is not None and facts.needs_torch(paths):
        arguments["TORCH"] = facts.torch.version
    if series:
        arguments["FRAMEWORK_VERSION"] = series
    return arguments


def _environment(spec: Spec, model: ArtifactModel, architecture: Architecture) -> dict[str, str]:
    server = spec.server
    settings: dict[str, Any] = {
        "MODEL_NAME": spec.name,
        "ENGINE": model.engine,
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
    # SageMaker forwards one route: the others travel inside it.
    if architecture == "managed":
        settings["TUNNEL"] = "true"
    if (chosen := contracts(model)) != ("predictive",):
        settings["CONTRACTS"] = ",".join(chosen)
    if server.workers is not None:
        settings["WORKERS"] = server.workers
    if model.trust_code:
        settings["TRUST_CODE"] = "true"
    return {SERVER_ENVIRONMENT_PREFIX + key: str(value) for key, value in sorted(settings.items())}
