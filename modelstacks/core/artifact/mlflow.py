"""MLflow's model folders: what their MLmodel file says, and which of their files an engine here could serve.

MLflow's own loaders are not run: they unpickle, and import the folder's code.
https://mlflow.org/docs/latest/ml/model/#mlmodel-file
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelstacks.core.artifact.model_files import name_fault

__all__ = ["MLMODEL", "MLflowModel", "read_mlmodel"]

MLMODEL = "MLmodel"
# In bytes.
_LARGEST = 1 << 20
# What a flavour calls the file that holds its model, and the version that it was saved with.
_FILE_KEYS = ("data", "pickled_model", "model_path", "python_model", "model_code_path", "model_binary")
_VERSION = "_version"
_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,40}")
# Every flavour is also written as one.
_OWN_LOADER = "python_function"


@dataclass(frozen=True, slots=True)
class MLflowModel:
    """The flavours of a folder, as messages name them, and the files that they load."""

    flavours: tuple[str, ...]
    files: tuple[str, ...]


def read_mlmodel(path: Path) -> MLflowModel:
    """What an MLmodel file says; nothing where it is not what MLflow writes."""
    # Imported here because `--help` does not need it.
    import yaml

    try:
        with path.open("rb") as content:
            said = yaml.safe_load(content.read(_LARGEST))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError):
        said = None
    flavours = said.get("flavors") if isinstance(said, dict) else None
    if not isinstance(flavours, dict):
        return MLflowModel((), ())
    known = {
        name: about
        for name, about in flavours.items()
        if isinstance(name, str) and _WORD.fullmatch(name) and isinstance(about, dict)
    }
    own = [name for name in known if name != _OWN_LOADER]
    names = [f"{name} {version}".strip() for name in own for version in [_saved_with(known[name])]]
    files = {file: None for name in [*own, _OWN_LOADER] for file in _files(known.get(name, {}))}
    return MLflowModel(tuple(names) or tuple(known), tuple(files))


def _saved_with(about: Mapping[object, object]) -> str:
    versions = [value for key, value in about.items() if str(key).endswith(_VERSION)]
    return next((value for value in versions if isinstance(value, str) and _WORD.fullmatch(value)), "")


def _files(about: Mapping[object, object]) -> list[str]:
    """Paths below the folder; another path is nothing that MLflow writes."""
    values = [about.get(key) for key in _FILE_KEYS]
    return [value for value in values if isinstance(value, str) and not name_fault(value)]
