"""The model, as `lock` pins it: a closed union by `kind`, which the Plan takes over from the lock as it is.

An ArtifactModel is files that this project hosts. A RemoteModel is hosted by its provider: there is nothing
to package, to store in S3 or to build an image for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, StringConstraints

from modelstacks.core.artifact.model_files import name_fault
from modelstacks.core.base import Frozen
from modelstacks.core.signature import Signature

__all__ = [
    "MODEL_KINDS",
    "Archive",
    "ArtifactModel",
    "LockedFile",
    "Model",
    "ModelKind",
    "RemoteModel",
    "Sha256",
    "Strings",
    "VendorImage",
    "files_revision",
]

ModelKind = Literal["artifact", "remote"]
MODEL_KINDS: tuple[ModelKind, ...] = get_args(ModelKind)

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Strings = dict[str, str]


def _plain_path(path: str) -> str:
    """A lock is a file in a repository: one that was edited must not name files outside the model."""
    if fault := name_fault(path):
        raise ValueError(f"{path!a} {fault}")
    return path


class LockedFile(Frozen):
    """One file of the model, at its path in /opt/ml/model.

    `origin` is how its source finds these bytes again.
    """

    path: Annotated[str, AfterValidator(_plain_path)]
    size: int = Field(ge=0)
    sha256: Sha256
    origin: Strings = Field(default_factory=dict)


class Archive(Frozen):
    """The model.tar.gz that is made of the files: the same bytes on every machine."""

    sha256: Sha256
    size: int


class VendorImage(Frozen):
    """A container that a vendor publishes, which serves a model by itself: nothing of ours is in it."""

    kind: Literal["vendor-image"] = "vendor-image"
    # What the vendor calls it, such as "tensorflow-inference 2.19".
    name: str
    # AWS region -> the image's URI there.
    uris: Annotated[Strings, Field(min_length=1)]
    environment: Strings = Field(default_factory=dict)
    port: int = Field(8080, ge=1, le=65_535)
    # The path that answers 200 once the container is ready.
    health_path: str = "/ping"


class ArtifactModel(Frozen):
    """A model that is hosted here: its files, what loads it, what it takes and gives."""

    kind: Literal["artifact"] = "artifact"
    source: str
    # The source's own immutable name: a commit, or "sha256:..." over the files.
    revision: str
    # The source's own words for where the files come from.
    origin: Strings
    files: Annotated[tuple[LockedFile, ...], Field(strict=False, min_length=1)]
    archive: Archive
    framework: str
    framework_version: str
    # The older release series that the spec chose; "" is the image's own.
    framework_series: str = ""
    # What loads it: an engine of the model server, or the name of the server in the vendor's image.
    engine: str
    # The vendor's image that serves it; None is the model server's own.
    image: VendorImage | None = None
    task: str
    signature: Signature
    license: str
    license_from: Literal["spec", "model card"]
    gated: bool
    trust_code: bool


class RemoteModel(Frozen):
    """A model that its provider hosts: whom to call, for which model, with which key."""

    kind: Literal["remote"] = "remote"
    source: str
    provider: str
    # The provider's own name for the model, its version included.
    model_id: str = Field(min_length=1)
    # The AWS region that the provider is called in; None where the provider is outside AWS.
    region: str | None = None
    # The name of the secret in AWS Secrets Manager that holds the key; None where IAM is the key.
    secret: str | None = None
    # The source's own words for what else a call needs, such as an address.
    origin: Strings = Field(default_factory=dict)
    task: str
    # The groups of routes that the provider's API can answer.
    contracts: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    license: str | None = None


Model = Annotated[ArtifactModel | RemoteModel, Field(discriminator="kind")]


def files_revision(files: Iterable[LockedFile]) -> str:
    """A revision for a source that has no name of its own for one: sha256 over every path and content."""
    listing = "".join(f"{file.sha256}  {file.path}\n" for file in files)
    return "sha256:" + hashlib.sha256(listing.encode()).hexdigest()
