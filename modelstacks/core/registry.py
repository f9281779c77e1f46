"""The model sources and compute targets: whatever files are in sources/ and targets/.

A file there describes itself in one module-level `SOURCE` or `TARGET`; nothing lists it by hand.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from operator import or_
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, create_model

from modelstacks.core.spec import Architecture, SourceSpec, Spec, TargetSpec

if TYPE_CHECKING:
    from pathlib import Path

    from modelstacks.core.model import ArtifactModel, LockedFile, ModelKind, RemoteModel, VendorImage
    from modelstacks.core.plan import Plan
    from modelstacks.core.plan.capacity import Unit
    from modelstacks.core.ports import Inspection, Ports

__all__ = [
    "ArtifactSource",
    "Doubt",
    "Pinned",
    "Refusal",
    "RemoteSource",
    "Source",
    "Target",
    "Vendor",
    "Workplace",
    "default_target",
    "discover",
    "sources",
    "spec_type",
    "targets",
    "the_default",
]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A combination that the source or target which declares it cannot serve, and why.

    The parts that are given must all apply; a part that is left out applies to everything. At least one is
    given, or nothing could be deployed.
    """

    # Ends in what to do, after a semicolon: validate, synth and docs/features.md show it.
    reason: str
    # A name of core/plan/features.py.
    feature: str = ""
    # A group of routes.
    contract: str = ""
    source_kind: ModelKind | Literal[""] = ""
    # In a target's refusal: one source; in a source's: one target.
    source: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a source may read and write while it resolves or fetches."""

    # The folder of app.py; relative paths in a spec start here.
    project: Path
    # An empty folder of its own.
    work: Path
    ports: Ports

    def local(self, path: str) -> Path:
        """A path in a spec, made absolute."""
        return (self.project / path).resolve()


@dataclass(frozen=True, slots=True)
class Vendor:
    """A vendor's image that serves the model, and what the source knows of it: no engine here loads it."""

    image: VendorImage
    serving: Inspection


@dataclass(frozen=True, slots=True)
class Pinned:
    """A pinned model: every file with its digest, and the facts that only its source knows."""

    revision: str
    origin: Mapping[str, str]
    files: tuple[LockedFile, ...]
    # Holds the files at their paths.
    directory: Path
    # As the source's model card states it; the spec's own is compared with it.
    license: str | None = None
    gated: bool = False
    # A hint for engines that cannot tell.
    task: str | None = None
    # None: the model server serves it.
    vendor: Vendor | None = None


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is probably wrong with a valid spec: a warning of `validate`, never a refusal."""

    field: str  # dotted, as the user wrote it: "model.path"
    what: str
    got: str = ""
    fix: str = ""


def _no_doubts(_spec: Any, _project: Path) -> tuple[Doubt, ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model source: how it is written in a spec, and what it refuses. Each is one of the kinds below."""

    kind: ClassVar[ModelKind]

    name: str
    summary: str
    spec: type[SourceSpec]
    # A whole spec in YAML, as `modelstacks init --source NAME` writes it.
    example: str
    # What looks wrong about a valid `model` block in this project, judged offline.
    doubts: Callable[[Any, Path], Sequence[Doubt]] = _no_doubts
    refuses: tuple[Refusal, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ArtifactSource(Source):
    """A source of files that are hosted here: `lock` pins them, `package` fetches the same bytes again."""

    kind: ClassVar[ModelKind] = "artifact"

    resolve: Callable[[Any, Workplace], Pinned]
    # Puts the locked files into a folder again; their digests are checked by the caller.
    fetch: Callable[[ArtifactModel, Workplace], Path]
    # Why what is in the project no longer is what was locked, judged offline; None when it still is.
    drift: Callable[[Any, ArtifactModel, Path], str | None]


@dataclass(frozen=True, kw_only=True)
class RemoteSource(Source):
    """A source of models that their provider hosts: `lock` pins whom to call, and for which model."""

    kind: ClassVar[ModelKind] = "remote"

    resolve: Callable[[Any, Workplace], RemoteModel]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A compute target: how it is written in a spec, what it refuses, makes and needs.

    The file of the same name in stacks/targets/ builds it.
    """

    name: str
    architecture: Architecture
    summary: str
    spec: type[TargetSpec]
    # The block in YAML.
    example: str
    # The outputs of its stack beside the API's: name -> description.
    outputs: Mapping[str, str]
    # What a plan needs of it, for bills and quotas; without what every target has.
    capacity: Callable[[Plan], tuple[Unit, ...]]
    # Whether a spec that names no target gets this one; exactly one of each architecture.
    default: bool = False
    # Field of the block -> why its default is what it is.
    reasons: Mapping[str, str] = field(default_factory=dict)
    refuses: tuple[Refusal, ...] = ()


@cache
def sources() -> Mapping[str, Source]:
    """Every model source by name."""
    return discover("modelstacks.sources", "SOURCE", ArtifactSource, RemoteSource)


@cache
def targets(architecture: Architecture | None = None) -> Mapping[str, Target]:
    """Every compute target by name; those of one architecture where it is given."""
    found: Mapping[str, Target] = discover("modelstacks.targets", "TARGET", Target)
    return {name: t for name, t in found.items() if architecture in (None, t.architecture)}


@cache
def default_target(architecture: Architecture) -> Target:
    """The target of a spec that names none."""
    return the_default(architecture, targets(architecture).values())


def the_default(architecture: Architecture, known: Collection[Target]) -> Target:
    """The one of an architecture's targets that is the default.

    Raises:
        TypeError: none of them is, or several are.
    """
    defaults = [target for target in known if target.default]
    if len(defaults) != 1:
        raise TypeError(
            f"exactly one {architecture} target must have default=True, "
            f"got {', '.join(target.name for target in defaults) or 'none'} "
            f"of {', '.join(target.name for target in known)}"
        )
    return defaults[0]


@cache
def spec_type() -> type[Spec]:
    """The closed type of a spec: `Spec` with every source and target that exists."""
    models = [source.spec for source in sources().values()]
    model: Any = models[0] if len(models) == 1 else Annotated[reduce(or_, models), Discriminator("source")]
    return create_model(
        "Spec",
        __base__=Spec,
        __doc__=Spec.__doc__,
        model=(model, Spec.model_fields["model"]),
        self_hosted=_target_field("self-hosted", alias="self-hosted"),
        managed=_target_field("managed"),
    )


def _target_field(architecture: Architecture, alias: str | None = None) -> Any:
    """A block whose `target` may be left out, and which may be left out whole."""
    known, default = targets(architecture), default_target(architecture)

    def tag(block: Any) -> str:
        absent = default.name
        word = block.get("target", absent) if isinstance(block, dict) else getattr(block, "target", absent)
        return str(word)

    tagged = [Annotated[target.spec, Tag(name)] for name, target in known.items()]
    block: Any = default.spec if len(tagged) == 1 else Annotated[reduce(or_, tagged), Discriminator(tag)]
    description = f"compute of the {architecture} architecture"
    return block, Field(default_factory=default.spec, alias=alias, description=description)


def discover(package: str, attribute: str, *kinds: type[Any]) -> Mapping[str, Any]:
    """What the modules of a package declare under one name, by the name that each gives itself.

    Raises:
        TypeError: a module declares nothing of these kinds, or repeats another one's name.
    """
    found: dict[str, Any] = {}
    allowed = " or ".join(kind.__name__ for kind in kinds)
    for module in sorted(
        pkgutil.iter_modules(importlib.import_module(package).__path__), key=lambda m: m.name
    ):
        entry = getattr(importlib.import_module(f"{package}.{module.name}"), attribute, None)
        if not isinstance(entry, kinds):
            raise TypeError(f"{package}.{module.name} must define {attribute} = {allowed}(...)")
        if entry.name in found:
            raise TypeError(f"{package}.{module.name} repeats the name {entry.name!r}")
        found[entry.name] = entry
    return MappingProxyType(found)
