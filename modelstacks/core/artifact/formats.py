"""What a file of weights really is, told by its first bytes, and which engine serves a folder of them.

A file's name is a hint for people. What decides here is the content: a pickle named model.json is a pickle.
`docs/sources/artifact.md` states the same rules for users.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from modelstacks.core.artifact.mlflow import MLMODEL, read_mlmodel
from modelstacks.core.artifact.model_files import name_fault, walk
from modelstacks.core.artifact.protobuf import MalformedError, external_data, is_onnx, is_saved_model
from modelstacks.core.artifact.scripts import SCRIPTS
from modelstacks.core.artifact.skops_types import SCHEMA, foreign_types
from modelstacks.core.engines import engines
from modelstacks.core.errors import UsageError

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
    Format(
        "NumPy array of objects",
        None,
        pickle=True,
        advice="save it as numbers or text, without objects; a table is no model by itself",
    ),
    Format("XGBoost binary", None, advice="load it in XGBoost and write it with save_model('model.ubj')"),
    Format("CatBoost", None, advice="export it with save_model(..., format='onnx')"),
    Format("GGUF", None, advice="export the model to ONNX or safetensors"),
    Format("HDF5", None, advice="export the model to ONNX, with tf2onnx for instance"),
    Format("Keras", None, advice="export the model to ONNX, with tf2onnx for instance"),
    Format(
        "TensorFlow SavedModel",
        None,
        advice="convert it to ONNX: python -m tf2onnx.convert --saved-model DIR --output model.onnx",
    ),
    Format(
        "TensorFlow Lite",
        None,
        advice="convert it to ONNX: python -m tf2onnx.convert --tflite FILE --output model.onnx",
    ),
    Format(
        "PMML",
        None,
        advice="export the model that it was made of to ONNX, or to its library's own format",
    ),
    Format("TorchScript", None, advice="export the network to ONNX: torch.onnx.export"),
    Format("ONNX Runtime (ORT)", None, advice="keep the .onnx file that it was converted from"),
    Format("Git LFS pointer", None, advice="fetch the real file: git lfs pull"),
)
FORMATS: Mapping[str, Format] = {kind.name: kind for kind in _FORMATS}

SIDECAR = "signature.json"

# What a transformers folder holds beside its weights: names that the library itself writes.
_TRANSFORMERS_FILES = (
    "config.json", "generation_config.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json",
    "added_tokens.json", "chat_template*", "spiece.model", "sentencepiece*.model", "preprocessor_config.json",
    "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "*_Pooling/config.json",
    "*_Normalize/*", "*_Dense/*", "*.safetensors.index.json", "pytorch_model.bin.index.json",
)  # fmt: skip

_PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib")
_HEAD = 1 << 16
_LARGEST_CONFIG = 16 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Detected:
    """A folder understood: the engine that serves it, and the format of each of its weights by POSIX path."""

    engine: str
    weights: Mapping[str, Format]
    data: frozenset[str] = frozenset()  # the files that weights keep tensors in
    types: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # skops file -> what it would import
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
            *(
                f"{path} names {', '.join(names[:5])}, which is no plain part of scikit-learn, numpy or scipy"
                for path, names in self.types.items()
            ),
        )

    @property
    def to_scan(self) -> tuple[str, ...]:
        """The files that are looked through for hidden code before anything loads them."""
        return (*self.pickles, *self.types)


def sniff(path: Path) -> Format | None:
    """The format of one file, or None for anything that is not weights."""
    with path.open("rb") as content:
        head = content.read(_HEAD)
    for name, matches in _SIGNS:
        if matches(head):
            return FORMATS[name]
    if head.startswith(b"PK\x03\x04"):
        return _sniff_zip(path)
    if is_onnx(path):
        return FORMATS["ONNX"]
    if is_saved_model(path):
        return FORMATS["TensorFlow SavedModel"]
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
    weights = {
        path: kind for path in paths if (kind := sniff(directory / path) or _declared(path)) is not None
    }

    for path, kind in weights.items():
        if kind.name == "Git LFS pointer":
            raise UsageError(f"{where}: {path} is a {kind.name}, not the model", fix=kind.advice)
    if MLMODEL in paths:
        raise _mlflow_refusal(directory, weights, where)
    if scripts := tuple(script for script in SCRIPTS if script in paths):
        return Detected("script", weights, scripts=scripts, types=_foreign(weights, directory))
    if "config.json" in paths and _is_transformers_config(directory / "config.json"):
        # A hub's folder often holds the same weights in several formats. The model server takes them in this
        # order.
        for wanted in ("ONNX", "safetensors", "PyTorch pickle", "pickle"):
            if served := {path: kind for path, kind in weights.items() if kind.name == wanted}:
                if wanted != "ONNX":
                    _refuse_auto_map(directory / "config.json", where)
                return _with_data(Detected("transformers", served), directory, paths, where)
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
                f"{where}: found weights but no config.json to identify the network",
                got=_listing(paths),
                fix="for a transformers model, add the config.json and tokenizer that save_pretrained "
                "writes; export any other network to ONNX (torch.onnx.export). An inference.py cannot load "
                "it: PyTorch is not installed where scripts run",
            )
        return _with_data(Detected(engine, {models[0]: weights[models[0]]}), directory, paths, where)
    if models:
        raise UsageError(
            f"{where} holds {len(models)} models, and one is served",
            got=", ".join(f"{path} ({weights[path].name})" for path in models),
            fix="name the one in the spec's model.include, or give each a folder of its own",
        )
    others = [path for path in weights if "/" not in path]
    nested = [path for path, kind in weights.items() if kind.engine is not None]
    if nested and not others:
        raise UsageError(
            f"{where}: the model lies in a sub-folder, {nested[0]}",
            fix=f"make {PurePosixPath(nested[0]).parent} itself the model's folder, or the archive's root",
        )
    if weights:
        path = next(iter(others or weights))
        kind = weights[path]
        raise UsageError(f"{where}: {path} is {kind.name}, which no engine here serves", fix=kind.advice)
    raise UsageError(
        f"{where} holds no model that can be identified",
        got=_listing(paths),
        allowed=", ".join(
            [f.name for f in _FORMATS if f.engine]
            + [pattern for facts in engines().values() for pattern in facts.files]
        )
        + ", a transformers folder, or an inference.py",
    )


def _declared(path: str) -> Format | None:
    """The format of a file that is known only by a name which an engine declares."""
    engine = next((name for name, facts in engines().items() if facts.reads(path)), None)
    return Format(f"{engine} model", engine) if engine else None


def select(directory: Path, include: Collection[str] = (), *, where: str = "") -> tuple[Detected, list[str]]:
    """The folder understood, and those of its files that are part of the model.

    Training scripts, held-out rows and read-me files that lie beside a model stay where they are: without
    `include` the model is its weights, signature.json, and the files that its framework writes beside
    weights. A folder with an inference.py is taken whole, since only its author knows what the script
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
    wanted |= detected.data
    beside = _TRANSFORMERS_FILES if detected.engine == "transformers" else ()
    return detected, [path for path in everything if path in wanted or _matches(path, beside)]


def _with_data(detected: Detected, directory: Path, paths: Collection[str], where: str) -> Detected:
    """With the files that ONNX graphs keep their tensors in; refused where one is not part of the model."""
    data: set[str] = set()
    for path in (path for path, kind in detected.weights.items() if kind.name == "ONNX"):
        try:
            locations = external_data(directory / path)
        except MalformedError as error:
            raise UsageError(f"{where}: {path} is not a readable ONNX model: {error}") from None
        for location in sorted(locations):
            beside = PurePosixPath(path).parent / location
            if name_fault(location) or name_fault(str(beside)):
                raise UsageError(
                    f"{where}: {path} keeps tensors in a file outside the model's folder",
                    got=ascii(location)[:200],
                    allowed="a path below the folder of the .onnx file",
                    fix="do not load it, unless you know who made it and why",
                )
            if str(beside) not in paths:
                raise UsageError(
                    f"{where}: {path} keeps tensors in {beside}, which is not there",
                    got=_listing(paths),
                    fix="put the file beside the graph, and name it in model.include where that is set",
                )
            data.add(str(beside))
    return replace(detected, data=frozenset(data), types=_foreign(detected.weights, directory))


def _foreign(weights: Mapping[str, Format], directory: Path) -> dict[str, tuple[str, ...]]:
    """The skops files that would import more than scikit-learn, numpy and scipy, and what."""
    named = {path: foreign_types(directory / path) for path, kind in weights.items() if kind.name == "skops"}
    return {path: names for path, names in named.items() if names}


def _mlflow_refusal(directory: Path, weights: Mapping[str, Format], where: str) -> UsageError:
    """MLflow's loaders do more than read one file, so that its file alone is served only when it is named."""
    model = read_mlmodel(directory / MLMODEL)
    served = [file for file in model.files if file in weights and weights[file].engine is not None]
    fix = "export the model to ONNX, or save it in its library's own format, and deploy that"
    if served:
        kind = weights[served[0]]
        fix = f"to serve {served[0]} ({kind.name}) alone, in the {kind.engine} engine, set model.include: "
        fix += f"[{served[0]}]" + (" and model.trust_code: true" if kind.pickle else "")
        fix += "; MLflow's signature, pyfunc wrapper, code and requirements are then not used"
    return UsageError(
        f"{where} is an MLflow model, which is not loaded as MLflow does",
        got=f"{MLMODEL} with the flavours {', '.join(model.flavours) or 'none'}",
        fix=fix,
    )


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

# An array's header, as text, with a type that has objects in it: numpy.load unpickles what follows.
_NUMPY_OBJECTS = re.compile(rb"\x93NUMPY[\x01-\x03]\x00.{2,4}\{[^\n]{0,60000}?'[|<>=]?O\d?'", re.DOTALL)
_SAVED_MODEL_TEXT = re.compile(rb"saved_model_schema_version:\s*1\s+meta_graphs\s*\{")  # saved_model.pbtxt
# torch.save before 1.6, or with the zip switched off: several pickles, the first of which is this number.
_TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_XML_PROLOGUE = {"<?": "?>", "<!--": "-->", "<!DOCTYPE": ">"}  # what may come before the root -> its end
_PMML_ROOT = re.compile(r"<(\w{1,20}:)?PMML[\s>]")


def _is_pmml(head: bytes) -> bool:
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = head[:8192].decode("utf-16" if wide else "utf-8", "replace").lstrip("\ufeff \t\r\n")
    while start := next((start for start in _XML_PROLOGUE if text.startswith(start)), ""):
        text = text.partition(_XML_PROLOGUE[start])[2].lstrip()
    return bool(_PMML_ROOT.match(text))


_SIGNS: tuple[tuple[str, Callable[[bytes], object]], ...] = (
    ("Git LFS pointer", lambda head: head.startswith(b"version https://git-lfs.github.com/spec/")),
    ("XGBoost JSON", _XGBOOST_JSON.match),
    ("XGBoost UBJSON", _XGBOOST_UBJSON.match),
    ("XGBoost binary", lambda head: head.startswith(b"binf")),
    ("LightGBM text", lambda head: head.startswith((b"tree\nversion=v", b"tree\r\nversion=v"))),
    ("CatBoost", lambda head: head.startswith(b"CBM1")),
    ("GGUF", lambda head: head.startswith(b"GGUF")),
    ("HDF5", lambda head: head.startswith(b"\x89HDF\r\n\x1a\n")),
    ("PyTorch pickle", lambda head: head.startswith(_TORCH_MAGIC)),
    ("TensorFlow Lite", lambda head: head[4:8] == b"TFL3"),
    ("ONNX Runtime (ORT)", lambda head: head[4:8] == b"ORTM"),
    ("PMML", _is_pmml),
    ("NumPy array of objects", lambda head: _NUMPY_OBJECTS.match(head)),
    ("TensorFlow SavedModel", lambda head: _SAVED_MODEL_TEXT.match(head)),
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
    if SCHEMA in names:
        return FORMATS["skops"]
    if any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names):
        return FORMATS["TorchScript"]
    if any(PurePosixPath(name).name == "data.pkl" for name in names):
        return FORMATS["PyTorch pickle"]
    if "config.json" in names and any(name.endswith(".h5") for name in names):
        return FORMATS["Keras"]
    if any(name.endswith(_PICKLE_SUFFIXES) for name in names):
        return FORMATS["pickle"]
    if any(_has_objects(path, name) for name in names if name.endswith(".npy")):
        return FORMATS["NumPy array of objects"]
    return None


def _has_objects(path: Path, name: str) -> bool:
    """Whether a member of an .npz is an array of objects; so is one that cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as content:
            return bool(_NUMPY_OBJECTS.match(content.read(_HEAD)))
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zlib.error):
        return True


def _is_transformers_config(path: Path) -> bool:
    config = _config(path)
    return "model_type" in config or "architectures" in config


def _config(path: Path) -> dict[str, object]:
    """A JSON object in a file; empty where there is none."""
    try:
        with path.open("rb") as content:
            config = json.loads(content.read(_LARGEST_CONFIG))
    except (ValueError, OSError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _refuse_auto_map(path: Path, where: str) -> None:
    named = _config(path).get("auto_map")
    if named:
        raise UsageError(
            f"{where} brings code of its own (auto_map in config.json), which never runs here, with or "
            "without trust_code",
            got=ascii(json.dumps(named))[1:-1][:160],
            fix="choose a model that the transformers library knows, or export it to ONNX",
        )
