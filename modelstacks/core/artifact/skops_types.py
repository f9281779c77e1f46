"""What a skops file would import: the classes and functions that its schema names."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import IO

__all__ = ["LIBRARIES", "SCHEMA", "foreign_types", "is_library_type", "schema_types"]

SCHEMA = "schema.json"
_NO_MODEL = (
    "_*tests?|_*testing|_test_common|conftest|datasets|externals|_build_utils|callback|inspection|parallel"
    "|_joblib|_repr_html|discovery|estimator_checks|_mocking"
)
# The modules whose own classes the engine makes without being asked; a test compares the two lists
# (serving/model_server/engines/sklearn.py). scipy.stats is not among them: its distributions compile a text
# of their state; nor is numpy.lib, where a class removes the folder that its state names.
LIBRARIES = (
    rf"sklearn(?!.*\.({_NO_MODEL})\b)(\.\w+)*",
    r"numpy(\.random(\.\w+)?|\.ma(\.core)?|\.dtypes|\._?core\.\w+)?",
    r"scipy\.(interpolate|sparse|spatial|special)(\.(?!linalg)\w+)*",
)
_PYTHONS = {
    "builtins": {
        *("NoneType", "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list"),
        *("object", "range", "set", "slice", "str", "tuple", "type"),
    },
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
}
# scikit-learn 1.5 and before name classes of sklearn._loss._loss so. The engine never makes them: it refuses
# the file with the version that wrote it, which is of more use than a question of trust.
_MISNAMED = frozenset({"_loss"})
# Bytes of a schema.
_LARGEST = 256 << 20


def foreign_types(path: Path) -> tuple[str, ...]:
    """The types of other libraries that a skops file names, sorted; nothing where it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(SCHEMA) as schema:
            named = schema_types(schema)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, NotImplementedError, RuntimeError):
        # The engine says what is wrong with it.
        return ()
    foreign = {(module, name) for module, name in named if module not in _MISNAMED}
    return tuple(sorted(f"{module}.{name}" for module, name in foreign if not is_library_type(module, name)))


def is_library_type(module: str, name: str) -> bool:
    """Whether the engine makes this type for everybody; whether it is a class, only the engine can say."""
    return name in _PYTHONS.get(module, ()) or any(re.fullmatch(own, module) for own in LIBRARIES)


def schema_types(schema: IO[bytes]) -> set[tuple[str, str]]:
    """Every (module, name) in a skops schema, however deep."""
    try:
        pending: list[object] = [json.loads(schema.read(_LARGEST))]
    except (ValueError, RecursionError):
        return set()
    found = set()
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            module, name = node.get("__module__"), node.get("__class__")
            if isinstance(module, str) and isinstance(name, str):
                found.add((module, name))
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    return found
