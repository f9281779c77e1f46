"""Connects `lock` and `package` to the real hubs, stores and engines, each imported on first use."""

from __future__ import annotations

from pathlib import Path

from modelstacks.adapters.huggingface_hub import HuggingFaceHub
from modelstacks.adapters.inspector import ModelServerInspector
from modelstacks.adapters.s3 import S3ObjectStore
from modelstacks.adapters.sagemaker_images import SageMakerImages
from modelstacks.adapters.sandbox import choose, wish
from modelstacks.adapters.scanner import PickleScanner
from modelstacks.adapters.secrets import SecretsManager
from modelstacks.adapters.serving_environment import ImageStore, serving_python
from modelstacks.core import bundle
from modelstacks.core.ports import Ports

__all__ = ["image_store", "real_ports"]


def image_store(project: Path) -> ImageStore:
    """Return the store of the project's installed serving images."""
    return ImageStore(project / ".modelstacks" / "images")


def real_ports(project: Path) -> Ports:
    """Return the real Hub, S3, Secrets Manager, image tables, scanner and model inspector."""
    store = image_store(project)
    return Ports(
        hub=HuggingFaceHub(),
        objects=S3ObjectStore(),
        secrets=SecretsManager(),
        images=SageMakerImages(),
        inspector=ModelServerInspector(
            lambda wanted: serving_python(store, bundle.serving(), wanted), lambda: choose(wish())
        ),
        scanner=PickleScanner(),
    )
