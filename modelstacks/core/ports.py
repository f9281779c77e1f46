"""The interfaces to the outside world; adapters/ implements them, tests/support/ has in-memory ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelstacks.core.signature import Signature

__all__ = [
    "HubFile",
    "HubModel",
    "ImageCatalog",
    "Inspection",
    "ModelHub",
    "ModelInspector",
    "ObjectStore",
    "ObjectVersion",
    "Ports",
    "Scanner",
    "SecretStore",
]


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a hub repository at one commit. `sha256` is None where the hub does not state it."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class HubModel:
    """A hub repository at one commit."""

    id: str
    # 40 hex digits.
    commit: str
    files: tuple[HubFile, ...]
    # From the model card, as the hub writes it: "apache-2.0", "mit", "other", and so on.
    license: str | None
    gated: bool
    pipeline_tag: str | None


class ModelHub(Protocol):
    """A Hugging Face Hub, or anything that speaks its API."""

    def model(self, id: str, revision: str, token: str | None) -> HubModel:
        """Look a repository up. Raises UsageError / EnvironmentFault with the hub's reason."""

    def download(self, id: str, commit: str, path: str, destination: Path, token: str | None) -> None:
        """Fetch one file of one commit to `destination`."""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One object of a versioned bucket. `version_id` is None in a bucket without versions."""

    key: str
    version_id: str | None
    size: int


class ObjectStore(Protocol):
    """S3."""

    def list(self, bucket: str, prefix: str) -> Sequence[ObjectVersion]:
        """The current version of every object below a prefix, sorted by key."""

    def download(self, bucket: str, version: ObjectVersion, destination: Path) -> None:
        """Fetch one version of one object."""


class SecretStore(Protocol):
    """Secrets Manager: tokens by name."""

    def get(self, name: str) -> str:
        """The secret's current string value. Raises EnvironmentFault with the reason."""


class ImageCatalog(Protocol):
    """The container images that AWS publishes: for sources whose models a vendor's image serves."""

    def serving_images(self, framework: str, version: str) -> Mapping[str, str]:
        """Region -> image URI of AWS's inference image; empty where AWS has none for this framework."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the model server's engine says of a model that it has loaded."""

    engine: str
    framework: str
    framework_version: str
    task: str
    signature: Signature
    # The version of the framework that wrote the file, where the file says it.
    saved_with: str | None = None


class ModelInspector(Protocol):
    """Loads a model in the model server's own engine, in a process of its own."""

    def inspect(
        self, directory: Path, engine: str, *, image: Mapping[str, str], trust_code: bool
    ) -> Inspection:
        """Load, warm up, describe, in the serving image with the build arguments `image`.

        Raises UsageError with the engine's own reason when it cannot.
        """


class Scanner(Protocol):
    """A scanner for code hidden in artifacts."""

    def scan(self, directory: Path, paths: Sequence[str]) -> Sequence[str]:
        """One line for each import that no model needs, naming its file; empty when there is none."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Every interface that `lock` and `package` may use."""

    hub: ModelHub
    objects: ObjectStore
    secrets: SecretStore
    images: ImageCatalog
    inspector: ModelInspector
    scanner: Scanner
