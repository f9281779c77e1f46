"""The format of one file of weights, told by its content: a pickle named model.json is a pickle."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modelstacks.core.artifact.protobuf import is_onnx, is_saved_model
from modelstacks.core.artifact.skops_types import SCHEMA

__all__ = ["FORMATS", "Format", "sniff"]

_PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib")
_HEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Format:
    """A file format. `engine` is None where no engine here serves it, and `advice` then says what to do."""

    name: str
    engine: str | None
    # Loading it runs whatever code it names.
    pickle: bool = False
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
    # A compressed joblib begins as any compressed file does.
    if path.suffix in _PICKLE_SUFFIXES:
        return FORMATS["pickle"]
    return None


def _is_safetensors(head: bytes) -> bool:
    length = int.from_bytes(head[:8], "little")
    return 2 <= length <= 100 << 20 and head[8:9] == b"{"


_XGBOOST_JSON = re.compile(rb'\s*\{\s*"(?:learner"\s*:\s*\{|version"\s*:\s*\[)')
_XGBOOST_UBJSON = re.compile(rb"\{(?:[iU].|I..|l.{4}|L.{8})(?:learner\{|version\[)", re.DOTALL)

# An array's header, as text, with a type that has objects in it: numpy.load unpickles what follows.
_NUMPY_OBJECTS = re.compile(rb"\x93NUMPY[\x01-\x03]\x00.{2,4}\{[^\n]{0,60000}?'[|<>=]?O\d?'", re.DOTALL)
# saved_model.pbtxt.
_SAVED_MODEL_TEXT = re.compile(rb"saved_model_schema_version:\s*1\s+meta_graphs\s*\{")
# torch.save before 1.6, or with the zip switched off: several pickles, the first of which is this number.
_TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
# What may come before the root -> its end.
_XML_PROLOGUE = {"<?": "?>", "<!--": "-->", "<!DOCTYPE": ">"}
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
