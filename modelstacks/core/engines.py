"""The model server's engines, as far as the toolkit has to know them: read as data, never imported.

An engine is a module in serving/model_server/engines/; the JSON file beside it states what its image needs
and what it can answer. The members are described in that package's `__init__.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from modelstacks.core.base import Frozen
from modelstacks.core.bundle import serving
from modelstacks.core.errors import EnvironmentFault

__all__ = ["EngineFacts", "Torch", "engine_facts", "engines", "read_engines"]


class Torch(Frozen):
    """PyTorch, which is larger than all the rest of an image: it is installed only where it is needed."""

    version: str
    # A model with a file of this name runs without it.
    unless_file: str


class EngineFacts(Frozen):
    """What an engine declares of itself."""

    name: str
    # The groups of routes that it can answer.
    contracts: tuple[str, ...] = ("predictive",)
    # In its image, beyond the server's own.
    packages: tuple[str, ...] = ()
    # `model.framework_version` -> pins.
    older_series: Mapping[str, tuple[str, ...]] = {}
    torch: Torch | None = None
    # Patterns of model files that are not recognised by content.
    files: tuple[str, ...] = ()
    # It is meant where other engines could read the same artifact.
    precedes: bool = False

    def needs_torch(self, paths: Iterable[str]) -> bool:
        """Whether its image needs PyTorch for a model with these files.

        >>> facts = engine_facts("transformers")
        >>> facts.needs_torch(["model.safetensors"]), facts.needs_torch(["onnx/model.onnx"])
        (True, False)
        """
        torch = self.torch
        return torch is not None and all(PurePosixPath(path).name != torch.unless_file for path in paths)

    def reads(self, path: str) -> bool:
        """Whether a file's name is one that the engine declares."""
        return any(fnmatchcase(PurePosixPath(path).name, pattern) for pattern in self.files)


def read_engines(context: Path) -> dict[str, EngineFacts]:
    """The engines of a serving image's build context, by name.

    Raises:
        EnvironmentFault: a data file cannot be read.
    """
    folder = context / "model_server" / "engines"
    names = sorted(path.stem for path in folder.glob("[!_]*.py"))
    return {name: _read(name, folder / f"{name}.json") for name in names}


@cache
def engines() -> Mapping[str, EngineFacts]:
    """The engines of the bundled model server, by name."""
    return read_engines(serving())


def engine_facts(name: str) -> EngineFacts:
    """What an engine declares; the defaults for one that is not known here."""
    return engines().get(name) or EngineFacts(name=name)


def _read(name: str, file: Path) -> EngineFacts:
    try:
        declared = json.loads(file.read_bytes()) if file.is_file() else {}
        return EngineFacts.model_validate({"name": name} | declared)
    except (ValueError, TypeError, ValidationError) as error:
        raise EnvironmentFault(
            f"{file} does not describe an engine",
            got=str(error).splitlines()[0],
            allowed=", ".join(field for field in EngineFacts.model_fields if field != "name"),
            fix="correct it; serving/model_server/engines/__init__.py describes each member",
        ) from None
