"""In-memory ports, which stand in for hubs, S3, Secrets Manager and engines in tests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelstacks.core.errors import EnvironmentFault, SignatureNeeded, UsageError
from modelstacks.core.ports import HubFile, HubModel, Inspection, ObjectVersion, Ports
from modelstacks.core.signature import Signature, Tensor

SIGNATURE = Signature(
    inputs=(Tensor(name="input", datatype="FP32", shape=(-1, 2)),),
    outputs=(Tensor(name="output", datatype="FP32", shape=(-1,)),),
)
CLASSIFIER = Inspection("xgboost", "xgboost", "3.2.0", "classification", SIGNATURE)


@dataclass
class MemoryHub:
    """Repositories by id: {commit: {path: content}}, the newest commit last; `main` is that one."""

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    licenses: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)  # id -> pipeline tag
    tokens: set[str] = field(default_factory=set)  # what opens gated repositories

    def model(self, id: str, revision: str, token: str | None) -> HubModel:
        commits = self.repositories.get(id)
        if commits is None:
            raise UsageError(f"{id} is not on the hub")
        commit = list(commits)[-1] if revision == "main" else revision
        if commit not in commits:
            raise UsageError(f"{id} has no revision {revision}")
        files = tuple(
            HubFile(path, len(content), hashlib.sha256(content).hexdigest())
            for path, content in sorted(commits[commit].items())
        )
        return HubModel(id, commit, files, self.licenses.get(id), id in self.gated, self.tags.get(id))

    def download(self, id: str, commit: str, path: str, destination: Path, token: str | None) -> None:
        if id in self.gated and token not in self.tokens:
            raise EnvironmentFault(f"{id} is gated")
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes(self.repositories[id][commit][path])


@dataclass
class MemoryObjects:
    """Versioned buckets: every `put` makes a version, and old ones can still be had."""

    versioned: bool = True
    downloaded: list[str] = field(default_factory=list)
    _objects: dict[tuple[str, str], list[bytes]] = field(default_factory=dict)

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self._objects.setdefault((bucket, key), []).append(content)

    def list(self, bucket: str, prefix: str) -> Sequence[ObjectVersion]:
        return [
            ObjectVersion(key, f"v{len(versions)}" if self.versioned else None, len(versions[-1]))
            for (place, key), versions in sorted(self._objects.items())
            if place == bucket and key.startswith(prefix)
        ]

    def download(self, bucket: str, version: ObjectVersion, destination: Path) -> None:
        self.downloaded.append(version.key)
        versions = self._objects.get((bucket, version.key))
        if not versions:
            raise EnvironmentFault(f"s3://{bucket}/{version.key} is gone")
        number = int(version.version_id[1:]) if version.version_id else len(versions)
        destination.write_bytes(versions[number - 1])


@dataclass
class MemorySecrets:
    secrets: dict[str, str] = field(default_factory=dict)

    def get(self, name: str) -> str:
        if name not in self.secrets:
            raise EnvironmentFault(f"there is no secret {name}")
        return self.secrets[name]


@dataclass
class FixedImages:
    images: dict[str, str] = field(
        default_factory=lambda: {"eu-west-1": "246618743249.dkr.ecr/xgboost:3.2-0"}
    )

    def serving_images(self, framework: str, version: str) -> Mapping[str, str]:
        return self.images


@dataclass
class SayingInspector:
    """Says what it is told to say of any model, and remembers what it was shown."""

    inspection: Inspection = CLASSIFIER
    refuses: str = ""
    skeleton: dict[str, object] | None = None  # refuses for want of a signature, and offers this one
    images: list[dict[str, str]] = field(default_factory=list)
    shown: list[tuple[str, tuple[str, ...], bool]] = field(default_factory=list)
    places: list[Path] = field(default_factory=list)

    def inspect(
        self, directory: Path, engine: str, *, image: Mapping[str, str], trust_code: bool
    ) -> Inspection:
        self.images.append(dict(image))
        files = tuple(
            sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())
        )
        self.places.append(directory)
        self.shown.append((engine, files, trust_code))
        if self.skeleton is not None:
            raise SignatureNeeded(self.refuses, self.skeleton)
        if self.refuses:
            raise UsageError(self.refuses)
        return replace(self.inspection, engine=engine)


@dataclass
class SayingScanner:
    findings: Sequence[str] = ()
    scanned: list[str] = field(default_factory=list)
    places: list[Path] = field(default_factory=list)

    def scan(self, directory: Path, paths: Sequence[str]) -> Sequence[str]:
        self.scanned += paths
        self.places.append(directory)
        return self.findings


@dataclass
class MemoryPorts:
    """All of them, in the shape that `Ports` wants: `MemoryPorts().ports()`."""

    hub: MemoryHub = field(default_factory=MemoryHub)
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    secrets: MemorySecrets = field(default_factory=MemorySecrets)
    images: FixedImages = field(default_factory=FixedImages)
    inspector: SayingInspector = field(default_factory=SayingInspector)
    scanner: SayingScanner = field(default_factory=SayingScanner)

    def ports(self) -> Ports:
        return Ports(self.hub, self.objects, self.secrets, self.images, self.inspector, self.scanner)
