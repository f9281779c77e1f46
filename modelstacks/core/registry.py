"""What kinds of model source and compute target there are: whatever files stand in sources/ and targets/.

A file there describes itself in one module-level `SOURCE` or `TARGET`; nothing lists it by hand.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Discriminator, Field, create_model

from modelstacks.core.spec import Architecture, SourceSpec, Spec, TargetSpec

if TYPE_CHECKING:
    from pathlib import Path

    from modelstacks.core.lock import LockedFile, LockedModel
    from modelstacks.core.ports import Ports

__all__ = ["Feature", "Pinned", "Source", "Target", "Workplace", "refusals", "sources", "spec_type", "targets"]

# What a model, or the spec around it, may ask of a target. A target that cannot says why, as data.
Feature = Literal["large-body", "pickle", "generative", "large-model", "quota"]


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a source may read and write while it resolves or fetches."""

    project: Path  # the folder of app.py; relative paths in a spec start here
    work: Path  # an empty folder of its own
    ports: Ports

    def local(self, path: str) -> Path:
        """A path in a spec, made absolute."""
        return (self.project / path).resolve()


@dataclass(frozen=True, slots=True)
class Pinned:
    """A model as its source has pinned it: every file with its digest, and the facts that only the source knows."""

    revision: str
    origin: Mapping[str, str]
    files: tuple[LockedFile, ...]
    directory: Path  # holds the files, laid out by their paths
    license: str | None = None  # as the source's model card states it; the spec's own word is compared with it
    gated: bool = False
    task: str | None = None  # a hint for engines that cannot tell


@dataclass(frozen=True)
class Source:
    """A model source: how it is written in a spec, how `lock` pins it, how `package` has the same bytes again."""

    name: str
    summary: str
    spec: type[SourceSpec]
    example: str  # a whole spec in YAML, as `modelstacks init --source NAME` writes it
    resolve: Callable[[Any, Workplace], Pinned]
    # Lays the locked files out in a folder again; their digests are checked by the caller.
    fetch: Callable[[LockedModel, Workplace], Path]
    # Why what lies in the project no longer is what was locked, judged offline; None when it still is.
    drift: Callable[[Any, LockedModel, Path], str | None]
    refuses: Mapping[Feature, str] = field(default_factory=dict)  # feature -> the reason, ending in what to do


@dataclass(frozen=True)
class Target:
    """A compute target: how it is written in a spec, and what it cannot do. stacks/targets/ builds it."""

    name: str
    architecture: Architecture
    summary: str
    spec: type[TargetSpec]
    example: str  # the block in YAML
    refuses: Mapping[Feature, str] = field(default_factory=dict)  # feature -> the reason, ending in what to do


@cache
def sources() -> Mapping[str, Source]:
    """Every model source by name."""
    return _discover("modelstacks.sources", "SOURCE", Source)


@cache
def targets(architecture: Architecture | None = None) -> Mapping[str, Target]:
    """Every compute target by name; those of one architecture where it is given."""
    found: Mapping[str, Target] = _discover("modelstacks.targets", "TARGET", Target)
    return {name: t for name, t in found.items() if architecture in (None, t.architecture)}


@cache
def spec_type() -> type[Spec]:
    """The closed type of a spec: `Spec` with every source and target that exists."""
    return create_model(
        "Spec",
        __base__=Spec,
        model=(_union([s.spec for s in sources().values()], "source"), Field(description="where the model comes from")),
        self_hosted=_target_field("self-hosted", "ecs-fargate"),
        managed=_target_field("managed", "sagemaker-endpoint"),
    )


def refusals(source: Source, target: Target, asked: Mapping[Feature, str]) -> list[tuple[Feature, str, str]]:
    """Of the features asked for (feature -> the field that asks), those refused: (feature, field, reason)."""
    table = {**source.refuses, **target.refuses}
    return [(feature, where, table[feature]) for feature, where in asked.items() if feature in table]


def _target_field(architecture: Architecture, default: str) -> Any:
    known = targets(architecture)
    alias = {"alias": "self-hosted"} if architecture == "self-hosted" else {}
    return (
        _union([t.spec for t in known.values()], "target"),
        Field(known[default].spec(), description=f"the compute of the {architecture} architecture", **alias),  # type: ignore[call-overload]
    )


def _union(types: list[type[Any]], tag: str) -> Any:
    if len(types) == 1:
        return types[0]
    return Annotated[Union[tuple(types)], Discriminator(tag)]  # noqa: UP007  built from a list


def _discover(package: str, attribute: str, kind: type[Any]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for module in sorted(pkgutil.iter_modules(importlib.import_module(package).__path__), key=lambda m: m.name):
        entry = getattr(importlib.import_module(f"{package}.{module.name}"), attribute, None)
        if not isinstance(entry, kind):
            raise TypeError(f"{package}.{module.name} must define {attribute} = {kind.__name__}(...)")
        if entry.name in found:
            raise TypeError(f"{package}.{module.name} repeats the name {entry.name!r}")
        found[entry.name] = entry
    return MappingProxyType(found)
