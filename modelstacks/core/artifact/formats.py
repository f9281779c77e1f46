"""Which engine serves a folder of files, and which of the files are the model.

`docs/sources/artifact.md` states the same rules for users.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from modelstacks.core.artifact.mlflow import MLMODEL, read_mlmodel
from modelstacks.core.artifact.model_files import name_fault, walk
from modelstacks.core.artifact.protobuf import MalformedError, external_data
from modelstacks.core.artifact.scripts import SCRIPTS
from modelstacks.core.artifact.skops_types import foreign_types
from modelstacks.core.artifact.sniffing import FORMATS, Format, sniff
from modelstacks.core.engines import engines
from modelstacks.core.errors import UsageError

__all__ = ["Detected", "detect", "select"]

SIDECAR = "signature.json"

# What a transformers folder holds beside its weights: names that the library itself writes.
_TRANSFORMERS_FILES = (
    "config.json", "generation_config.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json",
    "added_tokens.json", "chat_template*", "spiece.model", "sentencepiece*.model", "preprocessor_config.json",
    "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "*_Pooling/config.json",
    "*_Normalize/*", "*_Dense/*", "*.safetensors.index.json", "pytorch_model.bin.index.json",
)  # fmt: skip

# In bytes.
_LARGEST_CONFIG = 16 << 20


@dataclass(frozen=True, slots=True)
class Detected:
    """A folder understood: the engine that serves it, and the format of each of its weights by POSIX path."""

    engine: str
    weights: Mapping[str, Format]
    # The files that weights keep tensors in.
    data: frozenset[str] = frozenset()
    # The skops file -> what it would import.
    types: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # Files of Python that the script engine would run.
    scripts: tuple[str, ...] = ()

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
        return _with_data(_transformers(directory, paths, weights, where), directory, paths, where)
    models = [path for path, kind in weights.items() if kind.engine is not None and "/" not in path]
    if len(models) == 1:
        return _with_data(_only(models[0], paths, weights, where), directory, paths, where)
    if models:
        raise UsageError(
            f"{where} holds {len(models)} models; only one can be served",
            got=", ".join(f"{path} ({weights[path].name})" for path in models),
            fix="name the one in the spec's model.include, or give each a folder of its own",
        )
    raise _nothing_served(paths, weights, where)


def _transformers(
    directory: Path, paths: Collection[str], weights: Mapping[str, Format], where: str
) -> Detected:
    """A hub's folder often has the same weights in several formats: the model server takes one, in order."""
    for wanted in ("ONNX", "safetensors", "PyTorch pickle", "pickle"):
        if served := {path: kind for path, kind in weights.items() if kind.name == wanted}:
            if wanted != "ONNX":
                _refuse_auto_map(directory / "config.json", where)
            return Detected("transformers", served)
    raise UsageError(
        f"{where} has a transformers config.json but no weights",
        got=_listing(paths),
        allowed="*.safetensors, *.onnx, or pytorch_model.bin with trust_code: true",
    )


def _only(path: str, paths: Collection[str], weights: Mapping[str, Format], where: str) -> Detected:
    """The one file of weights in the folder's root."""
    engine = weights[path].engine
    assert engine is not None
    if engine == "transformers":
        raise UsageError(
            f"{where}: found weights but no config.json to identify the network",
            got=_listing(paths),
            fix="for a transformers model, add the config.json and tokenizer that save_pretrained "
            "writes; export any other network to ONNX (torch.onnx.export). An inference.py cannot load "
            "it: PyTorch is not installed where scripts run",
        )
    return Detected(engine, {path: weights[path]})


def _nothing_served(paths: Collection[str], weights: Mapping[str, Format], where: str) -> UsageError:
    """Why no engine serves anything in the folder's root."""
    others = [path for path in weights if "/" not in path]
    nested = [path for path, kind in weights.items() if kind.engine is not None]
    if nested and not others:
        return UsageError(
            f"{where}: the model is in a sub-folder, {nested[0]}",
            fix=f"make {PurePosixPath(nested[0]).parent} itself the model's folder, or the archive's root",
        )
    if weights:
        path = next(iter(others or weights))
        kind = weights[path]
        return UsageError(f"{where}: {path} is {kind.name}, which no engine here serves", fix=kind.advice)
    known = [kind.name for kind in FORMATS.values() if kind.engine]
    known += [pattern for facts in engines().values() for pattern in facts.files]
    return UsageError(
        f"{where} has no model that can be identified",
        got=_listing(paths),
        allowed=", ".join(known) + ", a transformers folder, or an inference.py",
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
            f"{where} needs its own Python code (auto_map in config.json), which is never run, with or "
            "without trust_code",
            got=ascii(json.dumps(named))[1:-1][:160],
            fix="choose a model that the transformers library knows, or export it to ONNX",
        )
