"""Transformers: text-classification, feature-extraction and text-generation, in Hugging Face's folder layout.

Where the folder has ONNX weights, `tokenizers` and ONNX Runtime do it all; without them the safetensors
weights run in PyTorch, an extra. Tokenizing, pooling and sampling are the same for both (_text.py, here,
_generation.py): a network (_networks.py) is only what turns token ids into logits or hidden states.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model_server.engines import Engine, Tensors, no_parameters
from model_server.engines._generation import generator, softmax
from model_server.engines._networks import Array, Network, OnnxNetwork, TorchNetwork, weights
from model_server.engines._text import TEXT, Json, Text, pad, read_json
from model_server.engines.onnx import PARALLEL_BYTES
from model_server.problems import Fault, ModelRefusedError, invalid
from model_server.settings import Settings, available_cores
from model_server.signature import Signature, Tensor

ENGINE = "transformers"

POOLINGS: dict[
    str, Callable[[Array, Array], Array]
] = {  # hidden states [rows, tokens, width] and mask [rows, tokens, 1] to [rows, width]
    "mean": lambda hidden, mask: (hidden * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1),
    "cls": lambda hidden, _: hidden[:, 0],
    "max": lambda hidden, mask: np.where(mask == 1, hidden, -np.inf).max(axis=1),
    "lasttoken": lambda hidden, mask: hidden[
        np.arange(len(hidden)), mask[..., 0].sum(axis=1).astype(int) - 1
    ],
}
POOLING_NAMES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
}


def accepts(directory: Path) -> bool:
    return (directory / "config.json").is_file() and any(weights(directory))


def load(directory: Path, settings: Settings) -> Engine:
    config = read_json(directory, "config.json")
    task = _task(config, directory)
    graph = next((path for path in weights(directory) if path.suffix == ".onnx"), None)
    parallel = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) > PARALLEL_BYTES
    threads = settings.threads or (available_cores() if parallel else 1)
    network: Network
    if graph is not None:
        network = OnnxNetwork(graph, threads)
    else:
        network = TorchNetwork(directory, task, threads, trust_code=settings.trust_code)
    common = network, Text(directory, config), parallel, settings.max_batch_size
    if task == "text-classification":
        return _classifier(config, *common)
    if task == "feature-extraction":
        return _encoder(directory, *common)
    return generator(config, directory, *common)


@dataclass
class Encoder(Engine):
    """Text in, numbers out, in one run of the network for every `chunk` texts."""

    task: str
    signature: Signature
    network: Network
    text: Text
    parallel: bool
    chunk: int
    compute: Callable[[dict[str, Array], Array], Tensors]  # the network's outputs and the mask to the answer
    prompt: str = ""  # what sentence-transformers puts in front of every text
    name: str = ENGINE
    batches: bool = True
    framework: str = field(init=False)
    framework_version: str = field(init=False)

    def __post_init__(self) -> None:
        self.framework, self.framework_version = self.network.framework, self.network.framework_version

    def predict(self, inputs: Tensors, parameters: Mapping[str, object]) -> Tensors:
        rest = dict(parameters)
        cut = rest.pop("truncation", self.text.cuts)
        if type(cut) is not bool:
            raise invalid(Fault("must be true or false", "parameters.truncation"))
        no_parameters(rest, self.name)
        chunks = self.text.chunks(inputs[TEXT.name], self.chunk, cut=cut, prompt=self.prompt)
        parts = [self._run(ids, types) for ids, types in chunks]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, ids: list[list[int]], types: list[list[int]]) -> Tensors:
        mask = pad([[1] * len(row) for row in ids], 0)
        return self.compute(self.network.run(pad(ids, self.text.pad), mask, pad(types, 0)), mask)

    def present(self, outputs: Tensors) -> Array | list[Any]:
        if "label" not in outputs:
            return super().present(outputs)
        return [
            {"label": label, "score": score}
            for label, score in zip(outputs["label"].tolist(), outputs["score"].tolist(), strict=True)
        ]


def _classifier(config: Json, network: Network, text: Text, parallel: bool, chunk: int) -> Encoder:
    names = {int(number): str(label) for number, label in (config.get("id2label") or {}).items()}
    ones = np.ones((1, 2), np.int64)
    logits = network.run(ones, ones, ones - 1)["logits"]
    labels = [names.get(number, f"LABEL_{number}") for number in range(logits.shape[1])]
    scores_of = _score(config.get("problem_type"), len(labels))
    array = np.array(labels, dtype=object)

    def compute(outputs: dict[str, Array], _: Array) -> Tensors:
        scores = scores_of(outputs["logits"].astype(np.float32))
        best = scores.argmax(axis=1)
        return {"label": array[best], "score": scores.max(axis=1), "scores": scores}

    outputs = (
        Tensor("label", "BYTES", (-1,)),
        Tensor("score", "FP32", (-1,)),
        Tensor("scores", "FP32", (-1, len(labels))),
    )
    described = Signature((TEXT,), outputs, tuple(labels))
    return Encoder("text-classification", described, network, text, parallel, chunk, compute)


def _encoder(directory: Path, network: Network, text: Text, parallel: bool, chunk: int) -> Encoder:
    pooling, normalize = _modules(directory)
    pool = POOLINGS[pooling]

    def compute(outputs: dict[str, Array], mask: Array) -> Tensors:
        if "sentence_embedding" in outputs:  # the export holds the pooling too
            return {"embedding": outputs["sentence_embedding"].astype(np.float32)}
        hidden = (
            outputs["last_hidden_state"] if "last_hidden_state" in outputs else outputs["token_embeddings"]
        )
        vectors = pool(hidden.astype(np.float32), mask[..., None].astype(np.float32))
        if normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return {"embedding": vectors.astype(np.float32)}

    ones = np.ones((1, 2), np.int64)
    outputs = network.run(ones, ones, ones - 1)
    if not {"sentence_embedding", "last_hidden_state", "token_embeddings"} & set(outputs):
        raise ModelRefusedError(
            f"the network gives {', '.join(outputs)}; feature extraction wants last_hidden_state: "
            "export it for that task"
        )
    width = compute(outputs, ones)["embedding"].shape[1]
    described = Signature((TEXT,), (Tensor("embedding", "FP32", (-1, width)),))
    prompts = read_json(directory, "config_sentence_transformers.json", default={})
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name") or "", "")
    return Encoder("feature-extraction", described, network, text, parallel, chunk, compute, prompt)


def _task(config: Json, directory: Path) -> str:
    """What the network was made for, by its class's name."""
    architecture = next(iter(config.get("architectures") or ()), "")
    if (directory / "modules.json").is_file():  # sentence-transformers
        return "feature-extraction"
    if architecture.endswith("ForSequenceClassification"):
        return "text-classification"
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "text-generation"
    if architecture.endswith(("Model", "ForMaskedLM", "ForPreTraining")):
        return "feature-extraction"
    raise ModelRefusedError(
        f"config.json names the architecture {architecture or 'none'!r}; the transformers engine does "
        "text-classification (...ForSequenceClassification), feature-extraction (...Model, ...ForMaskedLM) "
        "and text-generation (...ForCausalLM)"
    )


def _modules(directory: Path) -> tuple[str, bool]:
    """sentence-transformers' pooling and whether vectors get unit length; without its files: mean, no."""
    modules = read_json(directory, "modules.json", default=[])
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    strange = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
    if strange:
        raise ModelRefusedError(
            f"modules.json names {', '.join(strange)}; allowed: Transformer, Pooling, Normalize"
        )
    if "Pooling" not in kinds:
        return "mean", "Normalize" in kinds
    settings = read_json(directory, modules[kinds.index("Pooling")]["path"] + "/config.json")
    modes = [name for key, name in POOLING_NAMES.items() if settings.get(key)]
    modes += [settings["pooling_mode"]] if isinstance(settings.get("pooling_mode"), str) else []
    others = [
        key
        for key, on in settings.items()
        if on is True and key.startswith("pooling_mode_") and key not in POOLING_NAMES
    ]
    if len(modes) != 1 or modes[0] not in POOLINGS or others or settings.get("include_prompt") is False:
        raise ModelRefusedError(
            f"the pooling {json.dumps(settings)[:200]} is not one of {', '.join(POOLINGS)}"
        )
    return modes[0], "Normalize" in kinds


def _score(problem: str | None, labels: int) -> Callable[[Array], Array]:
    """Logits [rows, labels] to scores, as the transformers library's pipeline does."""
    if problem == "regression":
        return lambda logits: logits
    if problem == "multi_label_classification" or labels == 1:
        return lambda logits: 1 / (1 + np.exp(-logits))
    return softmax
