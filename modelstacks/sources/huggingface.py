"""huggingface: a text model from the Hugging Face Hub, pinned to a commit; every file by its sha256."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from modelstacks.core.artifact.archive import file_sha256
from modelstacks.core.artifact.model_files import FileTree
from modelstacks.core.base import Strict, text
from modelstacks.core.errors import EnvironmentFault, UsageError
from modelstacks.core.model import ArtifactModel, LockedFile
from modelstacks.core.ports import HubFile, HubModel
from modelstacks.core.registry import ArtifactSource, Pinned, Workplace
from modelstacks.core.spec import SourceSpec

Task = Literal["text-classification", "feature-extraction", "text-generation"]
Weights = Literal["onnx", "safetensors", "pytorch"]

# The file names of each form of weights. The first form that a repository has is used; other copies
# (model_fp16.onnx, openvino/...) are ignored.
WEIGHTS: dict[Weights, tuple[str, ...]] = {
    "onnx": (
        r"model\.onnx(_data.*|\.data)?",
        r"onnx/model\.onnx(_data.*|\.data)?",
    ),
    "safetensors": (
        r"model\.safetensors",
        r"model\.safetensors\.index\.json|model-\d+-of-\d+\.safetensors",
    ),
    "pytorch": (
        r"pytorch_model\.bin",
        r"pytorch_model\.bin\.index\.json|pytorch_model-\d+-of-\d+\.bin",
    ),
}
# The files that the transformers engine reads in addition to the weights.
BESIDE = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "[0-9]*_*/config.json",
)


class Token(Strict):
    """The access token for a private or gated repository."""

    secret: str = Field(
        min_length=1,
        max_length=512,
        description="name of an AWS Secrets Manager secret with the token as plain text",
    )


class HuggingFace(SourceSpec):
    """The repository, its revision, and the files to use."""

    source: Literal["huggingface"]
    id: Annotated[
        str,
        text(
            r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$",
            "a repository's id such as distilbert/distilbert-base-uncased",
        ),
    ] = Field(description="repository id, as in its address on the Hub")
    revision: Annotated[str, text(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$", "a branch, a tag or a commit")] = (
        Field(
            "main",
            description="branch, tag or commit; `modelstacks lock` pins it to a commit",
        )
    )
    task: Task | None = Field(None, description="task of the model; if unset, it is read from config.json")
    weights: Weights | None = Field(
        None,
        description="form of the weights; if unset, ONNX, else safetensors, which need PyTorch",
    )
    include: Annotated[tuple[str, ...], Field(strict=False, max_length=100)] = Field(
        (),
        description="patterns of the files to use; if unset, one form of the weights and its files",
    )
    token: Token | None = Field(
        None, description="token for a private or gated repository; if unset, HF_TOKEN"
    )
    accept_eula: bool = Field(
        False, description="true if you have accepted the terms of a gated repository on the Hub"
    )


def resolve(spec: HuggingFace, place: Workplace) -> Pinned:
    """Pin the revision to its commit, choose and download the files, and check them against the Hub's list.

    config.json is downloaded first, so that an unsupported model is refused before the weights are.
    """
    token = place.ports.secrets.get(spec.token.secret) if spec.token else None
    found = place.ports.hub.model(spec.id, spec.revision, token)
    if found.gated and not spec.accept_eula:
        raise UsageError(
            f"model.id: {found.id} is gated: its files require that you accept its terms",
            fix="read and accept them on the model's page on the Hub, set model.accept_eula: true, and "
            "provide a token with access: model.token: {secret: NAME}, or HF_TOKEN",
        )
    form, chosen = _choose(spec, found)
    tree = FileTree(found.id)
    for path in chosen:
        tree.add(path)
    config = _config(found, chosen, place, token)
    task = _task(spec, found, config)
    if config.get("auto_map") and form != "onnx":
        raise UsageError(
            f"model.id: {found.id} needs its own Python code (auto_map in config.json), which is never run",
            fix="choose a model that the transformers library supports, or one with ONNX weights",
        )
    files = tuple(_fetch(found, path, file, place, token) for path, file in chosen.items())
    return Pinned(
        revision=found.commit,
        origin={
            "id": found.id,
            "commit": found.commit,
            "revision": spec.revision,
            **({"token_secret": spec.token.secret} if spec.token else {}),
        },
        files=files,
        directory=place.work,
        license=found.license,
        gated=found.gated,
        task=task,
    )


def fetch(model: ArtifactModel, place: Workplace) -> Path:
    """Download the files of the locked commit again."""
    secret = model.origin.get("token_secret")
    token = place.ports.secrets.get(secret) if secret else None
    for file in model.files:
        path = file.origin.get("path", file.path)
        place.ports.hub.download(
            model.origin["id"], model.origin["commit"], path, place.work / file.path, token
        )
    return place.work


def drift(spec: HuggingFace, model: ArtifactModel, project: Path) -> str | None:  # noqa: ARG001
    """Return None: the project has none of the files, and a commit is immutable."""
    return None


def _choose(spec: HuggingFace, found: HubModel) -> tuple[Weights | None, dict[str, HubFile]]:
    """Return the form of the weights, and the files to use by their path in the model."""
    for file in found.files:
        if file.path.startswith("/") or "\\" in file.path or {"", ".", ".."} & set(file.path.split("/")):
            raise UsageError(f"model.id: {found.id} lists a file with an unsafe path", got=repr(file.path))
    files = {file.path: file for file in found.files}
    if spec.include:
        taken = _included(spec, found, files)
        data_only = not any(path.endswith((".safetensors", ".bin")) for path in taken)
        return "onnx" if data_only else None, {path: files[path] for path in taken}
    form, weights = _weights(spec, found, files)
    beside = [path for path in files if any(fnmatchcase(path, pattern) for pattern in BESIDE)]
    chosen = {path: files[path] for path in sorted({*weights, *beside})}
    # An ONNX export often has a tokenizer.json although the repository itself has none.
    if "tokenizer.json" not in chosen:
        for path, place in (("onnx/tokenizer.json", "tokenizer.json"), ("vocab.txt", "vocab.txt")):
            if path in files:
                chosen[place] = files[path]
                break
    if "config.json" not in chosen or not {"tokenizer.json", "vocab.txt"} & chosen.keys():
        needed = "tokenizer.json" if "config.json" in chosen else "config.json"
        raise UsageError(
            f"model.id: {found.id} has no {needed}, which the engine needs",
            got=_some(files),
            fix="load it with transformers, save_pretrained(DIR), and deploy DIR with source: artifact",
        )
    return form, dict(sorted(chosen.items()))


def _included(spec: HuggingFace, found: HubModel, files: Collection[str]) -> list[str]:
    """Return the files that the spec's patterns select; each pattern must match a file."""
    for pattern in spec.include:
        if not any(fnmatchcase(path, pattern) for path in files):
            raise UsageError(f'model.include: no file of {found.id} matches "{pattern}"', got=_some(files))
    return sorted(path for path in files if any(fnmatchcase(path, pattern) for pattern in spec.include))


def _weights(spec: HuggingFace, found: HubModel, files: Collection[str]) -> tuple[Weights, list[str]]:
    """Return the form that the spec names, else the first that the repository has, and its files."""
    held: dict[Weights, list[str]] = {}
    for name, alternatives in WEIGHTS.items():
        for pattern in alternatives:
            matching = [path for path in files if re.fullmatch(pattern, path)]
            if matching and name not in held:
                held[name] = matching
    form = spec.weights or next(iter(held), None)
    if form is None:
        raise UsageError(
            f"model.id: {found.id} has no weights in a supported form",
            got=_some(files),
            allowed="model.onnx, onnx/model.onnx or model.safetensors (in one file or in shards)",
        )
    if form not in held:
        raise UsageError(
            f"model.weights: {found.id} has no weights in this form",
            got=form,
            allowed=", ".join(held) or "nothing",
        )
    if form == "pytorch" and not spec.trust_code:
        raise UsageError(
            f"model.id: {found.id} has only pickled weights, which run the code that they name when loaded",
            got=held[form][0],
            fix="choose a revision or a model with safetensors; or set model.trust_code: true, if you "
            "trust its owner",
        )
    return form, held[form]


def _config(
    found: HubModel, chosen: Mapping[str, HubFile], place: Workplace, token: str | None
) -> dict[str, Any]:
    if "config.json" not in chosen:
        return {}
    _fetch(found, "config.json", chosen["config.json"], place, token)
    try:
        config = json.loads((place.work / "config.json").read_bytes())
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise UsageError(f"model.id: config.json of {found.id} is not a JSON object")
    return config | {"sentence_transformers": "modules.json" in chosen}


def _task(spec: HuggingFace, found: HubModel, config: dict[str, Any]) -> Task | None:
    """Return the task of the network, from the name of its class; the spec's task must be the same."""
    if not config:
        return spec.task
    architecture = str(next(iter(config.get("architectures") or ()), "none"))
    task: Task
    if config["sentence_transformers"]:
        task = "feature-extraction"
    elif architecture.endswith("ForSequenceClassification"):
        task = "text-classification"
    elif architecture.endswith(("ForCausalLM", "LMHeadModel")):
        task = "text-generation"
    elif architecture.endswith(("Model", "ForMaskedLM", "ForPreTraining")):
        task = "feature-extraction"
    else:
        raise UsageError(
            f"model.id: {found.id} has an unsupported task ({found.pipeline_tag or 'unknown'})",
            got=f"architecture {architecture}",
            allowed="text-classification, feature-extraction, text-generation",
        )
    if spec.task not in (None, task):
        raise UsageError(
            f"model.task: {found.id} does not support this task",
            got=str(spec.task),
            allowed=f"{task} ({architecture})",
        )
    return task


def _fetch(found: HubModel, path: str, file: HubFile, place: Workplace, token: str | None) -> LockedFile:
    """Download one file, unless it exists already; its bytes must match the Hub's listing."""
    destination = place.work / path
    if not destination.is_file():
        place.ports.hub.download(found.id, found.commit, file.path, destination, token)
    size, sha256 = destination.stat().st_size, file_sha256(destination)
    if size != file.size or file.sha256 not in (None, sha256):
        raise EnvironmentFault(
            f"{file.path} of {found.id} does not match the Hub's listing",
            got=f"{size} bytes, sha256 {sha256}",
            allowed=f"{file.size} bytes" + (f", sha256 {file.sha256}" if file.sha256 else ""),
            fix="remove it from the cache (hf cache rm), and run `modelstacks lock` again",
        )
    origin = {} if path == file.path else {"path": file.path}
    return LockedFile(path=path, size=size, sha256=sha256, origin=origin)


def _some(paths: Collection[str], most: int = 8) -> str:
    shown = ", ".join(sorted(paths)[:most]) or "no files"
    return shown + (f" and {len(paths) - most} more" if len(paths) > most else "")


SOURCE = ArtifactSource(
    name="huggingface",
    summary="a text model from the Hugging Face Hub, pinned to a commit",
    spec=HuggingFace,
    example="""\
name: sentiment
model:
  source: huggingface
  id: distilbert/distilbert-base-uncased-finetuned-sst-2-english
  revision: main          # the lock pins the commit
  weights: onnx           # served without PyTorch
architecture: self-hosted
""",
    resolve=resolve,
    fetch=fetch,
    drift=drift,
)
