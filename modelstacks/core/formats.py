"""What a file of weights really is, told by its first bytes, and which engine serves a folder of them.

A file's name is a hint for people. What decides here is the content: a pickle named model.json is a pickle.
`docs/sources/artifact.md` states the same rules for users.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from modelstacks.core.errors import UsageError
from modelstacks.core.model_files import walk

__all__ = ["FORMATS", "Detected", "Format", "detect", "select", "sniff"]


@dataclass(frozen=True, slots=True)
class Format:
    """A file format. `engine` is None where no engine here serves it, and `advice` then says what to do."""

    name: str
    engine: str | None
    pickle: bool = False  # loading it runs whatever code it names
    advice: str = ""


_FORMATS = (
    Format("XGBoost JSON", "xgboost"),
    Format("XGBoost UBJSON", "xgboost"),
    Format("LightGBM text", "lightgbm"),
    Format("skops", "sklearn"),
    Format("pickle", "sklearn", pickle=True),
    Format("ONNX", "onnx"),
    Format("safetensors", "transformers"),
    Format("PyTorch pickle", "transformers", pickle=True),
    Format("XGBoost binary", None, advice="load it in XGBoost and write it with save_model('model.ubj')"),
    Format("CatBoost", None, advice="export it with save_model(..., format='onnx')"),
    Format("GGUF", None, advice="export the model to ONNX or safetensors"),
    Format("HDF5", None, advice="export the model to ONNX, with tf2onnx for instance"),
    Format("Keras", None, advice="export the model to ONNX, with tf2onnx for instance"),
    Format("TensorFlow SavedModel", None, advice="export the model to ONNX, with tf2onnx for instance"),
    Format("Git LFS pointer", None, advice="fetch the real file: git lfs pull"),
)
FORMATS: Mapping[str, Format] = {kind.name: kind for kind in _FORMATS}

SCRIPT = ("inference.py", "code/inference.py")
SIDECAR = "signature.json"

# What a transformers folder holds beside its weights: names that the library itself writes.
_TRANSFORMERS_FILES = (
    "config.json", "generation_config.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json",
    "added_tokens.json", "chat_template*", "spiece.model", "sentencepiece*.model", "preprocessor_config.json",
    "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "*_Pooling/config.json",
    "*_Normalize/*", "*_Dense/*", "*.safetensors.index.json", "pytorch_model.bin.index.json",
)  # fmt: skip
_ONNX_DATA = ("*.onnx_data", "*.onnx.data")  # tensors of a graph above 2 GB lie in files beside it

_PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib")
_HEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Detected:
    """A folder understood: the engine that serves it, and the format of each of its weights by POSIX path."""

    engine: str
    weights: Mapping[str, Format]

    scripts: tuple[str, ...] = ()  # files of Python that the script engine would run

    @property
    def pickles(self) -> tuple[str, ...]:
        return tuple(path for path, kind in self.weights.items() if kind.pickle)

    @property
    def executables(self) -> tuple[str, ...]:
        """What runs when the model is loaded, one line a file."""
        return (
            *(f"{path} is Python code, which runs as it is" for path in self.scripts),
            *(f"{path} is a pickle, which runs whatever code it names" for path in self.pickles),
        )


def sniff(path: Path) -> Format | None:
    """The format of one file, or None for anything that is not weights."""
    with path.open("rb") as content:
        head = content.read(_HEAD)
    for name, matches in _SIGNS:
        if matches(head):
            return FORMATS[name]
    if head.startswith(b"PK\x03\x04"):
        return _sniff_zip(path)
    if _is_onnx(path):
        return FORMATS["ONNX"]
    if path.suffix in _PICKLE_SUFFIXES:  # a compressed joblib begins as any compressed file does
        return FORMATS["pickle"]
    return None


def detect(directory: Path, paths: Collection[str] | None = None, *, where: str = "") -> Detected:
    """Which engine serves the files of a folder.

    Args:
        directory: the folder.
        paths: the files to look at (POSIX, relative); default all of them.
        where: how a message names the folder.

    Raises:
        UsageError: nothing in it is a model that an engine here serves, or there are several models.
    """
    where = where or str(directory)
    paths = walk(directory, where) if paths is None else sorted(paths)
    weights = {path: kind for path in paths if (kind := sniff(directory / path)) is not None}

    for path, kind in weights.items():
        if kind.name == "Git LFS pointer":
            raise UsageError(f"{where}: {path} is a {kind.name}, not the model", fix=kind.advice)
    if scripts := tuple(script for script in SCRIPT if script in paths):
        return Detected("script", weights, scripts)
    if "config.json" in paths and _is_transformers_config(directory / "config.json"):
        # A hub's folder often holds the same weights in several formats. The model server takes them in this
        # order.
        for wanted in ("ONNX", "safetensors", "PyTorch pickle", "pickle"):
            if served := {path: kind for path, kind in weights.items() if kind.name == wanted}:
                return Detected("transformers", served)
        raise UsageError(
            f"{where} has a transformers config.json but no weights",
            got=_listing(paths),
            allowed="*.safetensors, *.onnx, or pytorch_model.bin with trust_code: true",
        )
    models = [path for path, kind in weights.items() if kind.engine is not None and "/" not in path]
    if len(models) == 1:
        engine = weights[models[0]].engine
        assert engine is not None
        if engine == "transformers":
            raise UsageError(
                f"{where}: {models[0]} holds weights, but nothing says of which network",
                got=_listing(paths),
                fix="put its config.json and tokenizer beside it, or an inference.py that loads it",
            )
        return Detected(engine, {models[0]: weights[models[0]]})
    if models:
        raise UsageError(
            f"{where} holds {len(models)} models, and one is served",
            got=", ".join(f"{path} ({weights[path].name})" for path in models),
            fix="name the one in the spec's model.include, or give each a folder of its own",
        )
    nested = [path for path, kind in weights.items() if kind.engine is not None]
    if nested:
        raise UsageError(
            f"{where}: the model lies in a sub-folder, {nested[0]}",
            fix=f"make {PurePosixPath(nested[0]).parent} itself the model's folder, or the archive's root",
        )
    if weights:
        path, kind = next(iter(weights.items()))
        raise UsageError(f"{where}: {path} is {kind.name}, which no engine here serves", fix=kind.advice)
    raise UsageError(
        f"{where} holds no model that can be identified",
        got=_listing(paths),
        allowed=", ".join(f.name for f in _FORMATS if f.engine)
        + ", a transformers folder, or an inference.py",
    )


def select(directory: Path, include: Collection[str] = (), *, where: str = "") -> tuple[Detected, list[str]]:
    """The folder understood, and those of its files that are part of the model.

    Training scripts, held-out rows and read-me files that lie beside a model stay where they are: without
    `include` the model is its weights, signature.json, the files that its framework writes beside weights,
    and code/. A folder with an inference.py is taken whole, since only its author knows what the script
    reads.

    Raises:
        UsageError: as `detect`; or a pattern of `include` matches nothing.
    """
    where = where or str(directory)
    everything = walk(directory, where)
    if include:
        for pattern in include:
            if not any(_matches(path, (pattern,)) for path in everything):
                raise UsageError(
                    f'{where}: nothing matches model.include "{pattern}"', got=_listing(everything)
                )
        chosen = [path for path in everything if _matches(path, include)]
        return detect(directory, chosen, where=where), chosen
    detected = detect(directory, everything, where=where)
    if detected.engine == "script":
        return detected, everything
    wanted = {*(path for path, kind in detected.weights.items() if kind.engine is not None), SIDECAR}
    beside: tuple[str, ...] = _ONNX_DATA
    if detected.engine == "transformers":
        beside = (*beside, *_TRANSFORMERS_FILES)
    chosen = [path for path in everything if path in wanted or _matches(path, (*beside, "code/*"))]
    return detected, chosen


def _matches(path: str, patterns: Collection[str]) -> bool:
    name = PurePosixPath(path).name
    return any(
        fnmatchcase(path, pattern) or ("/" not in pattern and fnmatchcase(name, pattern))
        for pattern in patterns
    )


def _listing(paths: Collection[str], most: int = 8) -> str:
    shown = ", ".join(sorted(paths)[:most]) or "no files"
    return shown + (f" and {len(paths) - most} more" if len(paths) > most else "")


def _is_safetensors(head: bytes) -> bool:
    length = int.from_bytes(head[:8], "little")
    return 2 <= length <= 100 << 20 and head[8:9] == b"{"


_XGBOOST_JSON = re.compile(rb'\s*\{\s*"(?:learner"\s*:\s*\{|version"\s*:\s*\[)')
_XGBOOST_UBJSON = re.compile(rb"\{(?:[iU].|I..|l.{4}|L.{8})(?:learner\{|version\[)", re.DOTALL)

_SIGNS: tuple[tuple[str, Callable[[bytes], object]], ...] = (
    ("Git LFS pointer", lambda head: head.startswith(b"version https://git-lfs.github.com/spec/")),
    ("XGBoost JSON", _XGBOOST_JSON.match),
    ("XGBoost UBJSON", _XGBOOST_UBJSON.match),
    ("XGBoost binary", lambda head: head.startswith(b"binf")),
    ("LightGBM text", lambda head: head.startswith((b"tree\nversion=v", b"tree\r\nversion=v"))),
    ("CatBoost", lambda head: head.startswith(b"CBM1")),
    ("GGUF", lambda head: head.startswith(b"GGUF")),
    ("HDF5", lambda head: head.startswith(b"\x89HDF\r\n\x1a\n")),
    # Protocols 2 to 5 begin with PROTO; 0 and 1 have no mark and are known by their suffix alone.
    ("pickle", lambda head: len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5),
    ("safetensors", _is_safetensors),
)


def _sniff_zip(path: Path) -> Format | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return None
    if "schema.json" in names:
        return FORMATS["skops"]
    if any(PurePosixPath(name).name == "data.pkl" for name in names):
        return FORMATS["PyTorch pickle"]
    if "config.json" in names and any(name.endswith(".h5") for name in names):
        return FORMATS["Keras"]
    if any(name.endswith(_PICKLE_SUFFIXES) for name in names):
        return FORMATS["pickle"]
    return None


def _is_transformers_config(path: Path) -> bool:
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError):
        return False
    return isinstance(config, dict) and ("model_type" in config or "architectures" in config)


def _is_onnx(path: Path) -> bool:
    """Whether a file's top level reads as ONNX's ModelProto.

    That is an ir_version (1), a graph (7), and no field that it does not have.

    https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; nested messages are skipped, so a large graph
    costs nothing.
    """
    scalars = {1: 0, 5: 0}  # field -> wire type: ir_version, model_version
    messages = {2, 3, 4, 6, 7, 8, 14, 20, 25, 26}  # producer ... opset_import, metadata, training, functions
    seen: set[int] = set()
    size = path.stat().st_size
    with path.open("rb") as content:

        def varint() -> int | None:
            value = 0
            for shift in range(0, 70, 7):
                byte = content.read(1)
                if not byte:
                    return None
                value |= (byte[0] & 0x7F) << shift
                if byte[0] < 0x80:
                    return value
            return None

        for _ in range(10_000):
            if content.tell() == size:
                break
            key = varint()
            if key is None:
                return False
            number, wire = key >> 3, key & 7
            if scalars.get(number) == wire:
                if varint() is None:
                    return False
            elif number in messages and wire == 2:
                length = varint()
                if length is None or content.tell() + length > size:
                    return False
                content.seek(length, 1)
            else:
                return False
            seen.add(number)
    return {1, 7} <= seen
