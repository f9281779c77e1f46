"""Transformers: text-classification, feature-extraction and text-generation, in Hugging Face's folder layout.

Where the folder has ONNX weights, `tokenizers` and ONNX Runtime do it all; without them the safetensors weights run in
PyTorch, an extra. The tokenizing, pooling, sampling and the cache of keys and values are the same for both: a network
here is only what turns token ids into logits or hidden states.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from model_server.engines import Engine, Tensors, no_parameters
from model_server.engines.onnx import PARALLEL_BYTES
from model_server.problems import Fault, ModelRefusedError, ProblemError, invalid
from model_server.settings import Settings, available_cores
from model_server.signature import Signature, Tensor

ENGINE = "transformers"

Array = np.ndarray[Any, Any]
Json = dict[str, Any]

TEXT = Tensor("text", "BYTES", (-1,))
MOST_NEW_TOKENS = 1024  # a request's max_new_tokens goes up to here
POOLINGS = {  # hidden states [rows, tokens, width] and mask [rows, tokens, 1] to [rows, width]
    "mean": lambda hidden, mask: (hidden * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1),
    "cls": lambda hidden, mask: hidden[:, 0],
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
    return (directory / "config.json").is_file() and any(_weights(directory))


def load(directory: Path, settings: Settings) -> Engine:
    config = _read(directory, "config.json")
    task = _task(config, directory)
    graph = next((path for path in _weights(directory) if path.suffix == ".onnx"), None)
    parallel = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) > PARALLEL_BYTES
    threads = settings.threads or (available_cores() if parallel else 1)
    network: Network
    if graph is not None:
        network = OnnxNetwork(graph, threads)
    else:
        network = TorchNetwork(directory, task, threads, allow_pickle=settings.allow_pickle)
    common = network, Text(directory, config), parallel
    if task == "text-classification":
        return _classifier(config, *common)
    if task == "feature-extraction":
        return _encoder(config, directory, *common)
    return _generator(config, directory, *common)


class Network(Protocol):
    """Token ids to numbers, on whichever runtime."""

    framework: str
    framework_version: str

    def run(self, ids: Array, mask: Array, types: Array) -> dict[str, Array]:
        """An encoder's outputs by name: ids, mask, types [rows, tokens]."""
        ...

    def step(self, ids: Array, mask: Array, past: Any) -> tuple[Array, Any]:
        """A decoder's logits [rows, vocabulary] for the token after `ids`, and what to pass on as `past`.

        `ids` [rows, new] are the tokens since the last step; `mask` [rows, all] covers the earlier ones too.
        """
        ...

    @property
    def pads(self) -> bool:
        """Whether a decoder can be told the positions, so that prompts of different lengths may share a batch."""
        ...


class OnnxNetwork:
    """An exported graph. A decoder's has the inputs and outputs that Optimum gives it, with or without a cache."""

    framework = "onnxruntime"

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ModelRefusedError(
                f"{path.name} is not a readable ONNX model: {_first_line(error)}"
            ) from error
        self.framework_version = str(onnxruntime.__version__)
        self.inputs = {node.name: node for node in session.get_inputs()}
        self.outputs = [node.name for node in session.get_outputs()]
        self.cache = [name for name in self.inputs if name.startswith("past_key_values.")]
        known = {
            "input_ids",
            "attention_mask",
            "token_type_ids",
            "position_ids",
            "use_cache_branch",
            *self.cache,
        }
        strange = sorted(set(self.inputs) - known)
        if strange:
            raise ModelRefusedError(f"{path.name} wants {', '.join(strange)}, which text alone does not give")
        self.session = session

    @property
    def pads(self) -> bool:
        return "position_ids" in self.inputs

    def run(self, ids: Array, mask: Array, types: Array) -> dict[str, Array]:
        feeds = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": types,
            "position_ids": _positions(mask),
        }
        return self._call(feeds)

    def step(self, ids: Array, mask: Array, past: Any) -> tuple[Array, Any]:
        if not self.cache:  # every step goes over the whole text again
            ids = ids if past is None else np.concatenate((past, ids), axis=1)
            feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": _positions(mask)}
            return self._call(feeds)["logits"][:, -1], ids
        feeds = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": _positions(mask)[:, -ids.shape[1] :],
            "use_cache_branch": np.array([past is not None]),
            **(past or {name: self._nothing(name, len(ids)) for name in self.cache}),
        }
        outputs = self._call(feeds)
        past = {name: outputs[name.replace("past_key_values", "present")] for name in self.cache}
        return outputs["logits"][:, -1], past

    def _call(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = {
            name: feeds[name].astype(np.int32) if node.type == "tensor(int32)" else feeds[name]
            for name, node in self.inputs.items()
        }
        return dict(zip(self.outputs, self.session.run(self.outputs, given), strict=True))

    def _nothing(self, name: str, rows: int) -> Array:
        """The cache before the first token: no positions yet."""
        _, heads, _, width = self.inputs[name].shape
        half = self.inputs[name].type == "tensor(float16)"
        return np.zeros((rows, heads, 0, width), np.float16 if half else np.float32)


class TorchNetwork:
    """The transformers library's own network, in 32-bit floats on the CPU."""

    framework = "transformers"
    pads = True

    def __init__(self, directory: Path, task: str, threads: int, *, allow_pickle: bool) -> None:
        pickled = not any(path.suffix == ".safetensors" for path in _weights(directory))
        if pickled and not allow_pickle:
            raise ModelRefusedError(
                "pytorch_model.bin is a pickle, which can run any code when it is read; save the model as safetensors, "
                "or set MODEL_SERVER_ALLOW_PICKLE=true if you made this file yourself"
            )
        try:
            import torch
            import transformers
        except ImportError as error:
            raise ModelRefusedError(
                f"these weights need PyTorch and transformers, and {error.name} is not installed; install the extra "
                '"torch" (torch and transformers), or export the model to ONNX: '
                "optimum-cli export onnx --model DIR DIR"
            ) from error
        loaders = {
            "text-classification": transformers.AutoModelForSequenceClassification,
            "feature-extraction": transformers.AutoModel,
            "text-generation": transformers.AutoModelForCausalLM,
        }
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(threads)
        try:
            self.model = loaders[task].from_pretrained(
                directory,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=not pickled,
                dtype=torch.float32,
            )
        except Exception as error:  # whatever a wrong file makes the library say
            raise ModelRefusedError(f"transformers cannot load the model: {_first_line(error)}") from error
        self.model.eval()
        self.framework_version = str(transformers.__version__)
        self.accepted = set(signature(self.model.forward).parameters)
        self.torch = torch

    def run(self, ids: Array, mask: Array, types: Array) -> dict[str, Array]:
        output = self._call({"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
        return {
            name: output[name].numpy()
            for name in ("logits", "last_hidden_state")
            if output.get(name) is not None
        }

    def step(self, ids: Array, mask: Array, past: Any) -> tuple[Array, Any]:
        positions = _positions(mask)[:, -ids.shape[1] :]
        feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        output = self._call(feeds, past_key_values=past, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1].numpy(), output.past_key_values

    def _call(self, feeds: Mapping[str, Array], **options: Any) -> Any:
        given = {name: self.torch.from_numpy(array) for name, array in feeds.items() if name in self.accepted}
        with self.torch.inference_mode():
            return self.model(
                **given, **{name: value for name, value in options.items() if name in self.accepted}
            )


class Text:
    """Texts to token ids and back, with the tokenizer.json that every fast tokenizer is."""

    def __init__(self, directory: Path, config: Json) -> None:
        from tokenizers import Tokenizer

        path = directory / "tokenizer.json"
        if not path.is_file():
            raise ModelRefusedError(
                "there is no tokenizer.json; save one with "
                'AutoTokenizer.from_pretrained("...").save_pretrained("DIR") in the transformers library'
            )
        try:
            self.tokenizer, self.cutter = (Tokenizer.from_file(str(path)) for _ in range(2))
        except Exception as error:  # the library raises Exception itself
            raise ModelRefusedError(f"tokenizer.json cannot be read: {_first_line(error)}") from error
        settings = _read(directory, "tokenizer_config.json", default={})
        sentence = _read(directory, "sentence_bert_config.json", default={})
        self.lower = bool(sentence.get("do_lower_case"))
        self.limit = _most_tokens(config, settings, sentence)
        self.cuts = (
            "max_seq_length" in sentence
        )  # sentence-transformers cuts long texts off; a pipeline does not
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.cutter.no_padding()
        self.cutter.enable_truncation(self.limit)
        pad = settings.get("pad_token")
        pad = self.tokenizer.token_to_id(pad["content"] if isinstance(pad, dict) else pad) if pad else None
        self.pad = pad if pad is not None else config.get("pad_token_id") or 0

    def encode(self, texts: Array, *, cut: bool, room: int = 0) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids and token types of each text; 422 for a text that is too long and may not be cut.

        `room` is how many tokens must be left free behind it.
        """
        strings = [text.lower() if self.lower else text for text in texts]
        encodings = (self.cutter if cut else self.tokenizer).encode_batch(strings)
        faults = [
            Fault(f"the text has {len(encoding.ids)} tokens; allowed: {self.limit - room}", TEXT.name, row)
            for row, encoding in enumerate(encodings)
            if len(encoding.ids) > self.limit - room
        ]
        if faults and room == 0:
            advice = '; shorten it, or send the parameter "truncation": true'
            faults = [Fault(fault.message + advice, fault.field, fault.row) for fault in faults]
        if faults:
            raise invalid(*faults)
        return [encoding.ids for encoding in encodings], [encoding.type_ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


@dataclass
class Encoder(Engine):
    """Text in, numbers out, in one run of the network."""

    task: str
    signature: Signature
    network: Network
    text: Text
    parallel: bool
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
        texts = inputs[TEXT.name]
        if self.prompt:
            texts = np.array([self.prompt + text for text in texts], dtype=object)
        ids, types = self.text.encode(texts, cut=cut)
        mask = _pad([[1] * len(row) for row in ids], 0)
        return self.compute(self.network.run(_pad(ids, self.text.pad), mask, _pad(types, 0)), mask)

    def present(self, outputs: Tensors) -> Array | list[Any]:
        if "label" not in outputs:
            return super().present(outputs)
        return [
            {"label": label, "score": score}
            for label, score in zip(outputs["label"].tolist(), outputs["score"].tolist(), strict=True)
        ]


def _classifier(config: Json, network: Network, text: Text, parallel: bool) -> Encoder:
    names = {int(number): str(label) for number, label in (config.get("id2label") or {}).items()}
    logits = network.run(*(np.ones((1, 2), np.int64) for _ in range(3)))["logits"]
    labels = [names.get(number, f"LABEL_{number}") for number in range(logits.shape[1])]
    scores_of = _score(config.get("problem_type"), len(labels))
    array = np.array(labels, dtype=object)

    def compute(outputs: dict[str, Array], mask: Array) -> Tensors:
        scores = scores_of(outputs["logits"].astype(np.float32))
        best = scores.argmax(axis=1)
        return {"label": array[best], "score": scores.max(axis=1), "scores": scores}

    outputs = (
        Tensor("label", "BYTES", (-1,)),
        Tensor("score", "FP32", (-1,)),
        Tensor("scores", "FP32", (-1, len(labels))),
    )
    described = Signature((TEXT,), outputs, tuple(labels))
    return Encoder("text-classification", described, network, text, parallel, compute)


def _encoder(config: Json, directory: Path, network: Network, text: Text, parallel: bool) -> Encoder:
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

    mask = np.ones((1, 2), np.int64)
    outputs = network.run(mask, mask, mask - 1)
    if not {"sentence_embedding", "last_hidden_state", "token_embeddings"} & set(outputs):
        raise ModelRefusedError(
            f"the network gives {', '.join(outputs)}; feature extraction wants last_hidden_state: export it for that task"
        )
    width = compute(outputs, mask)["embedding"].shape[1]
    described = Signature((TEXT,), (Tensor("embedding", "FP32", (-1, width)),))
    prompts = _read(directory, "config_sentence_transformers.json", default={})
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name") or "", "")
    return Encoder("feature-extraction", described, network, text, parallel, compute, prompt)


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the names and meanings of the transformers library's GenerationConfig."""

    max_new_tokens: int = 64
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    return_full_text: bool = True

    def updated(self, given: Mapping[str, object]) -> Sampling:
        """With a request's parameters; 422 for one that is unknown or out of bounds."""
        kinds = {item.name: str(item.type) for item in fields(self)}
        faults = [
            Fault(f"is not a parameter of text generation; allowed: {', '.join(kinds)}", f"parameters.{name}")
            for name in given
            if name not in kinds
        ]
        for name, (fits, allowed) in BOUNDS.items():
            value = given.get(name)
            number = int if kinds[name].startswith("int") else (int, float)
            kind = bool if kinds[name] == "bool" else number
            if name in given and not (
                isinstance(value, kind) and isinstance(value, bool) == (kind is bool) and fits(value)
            ):
                faults.append(Fault(f"is {json.dumps(value)[:40]}; allowed: {allowed}", f"parameters.{name}"))
        if faults:
            raise invalid(*faults)
        return Sampling(
            **{item.name: given.get(item.name, getattr(self, item.name)) for item in fields(self)}
        )  # type: ignore[arg-type]


BOUNDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_new_tokens": (lambda n: 1 <= n <= MOST_NEW_TOKENS, f"a whole number from 1 to {MOST_NEW_TOKENS}"),
    "do_sample": (lambda b: True, "true, false"),
    "temperature": (lambda x: 0 < x <= 100, "a number above 0, at most 100"),
    "top_k": (lambda n: n >= 0, "a whole number; 0 takes every token"),
    "top_p": (lambda x: 0 < x <= 1, "a number above 0, at most 1"),
    "repetition_penalty": (lambda x: 0 < x <= 10, "a number above 0, at most 10"),
    "seed": (lambda n: 0 <= n < 2**63, "a whole number from 0"),
    "return_full_text": (lambda b: True, "true, false"),
}


@dataclass
class Generator(Engine):
    """Text in, its continuation out, token by token. A text gets the same answer alone and in a batch."""

    network: Network
    text: Text
    parallel: bool
    defaults: Sampling
    begin: int | None  # what stands for an empty prompt
    ends: frozenset[int]
    task: str = "text-generation"
    signature: Signature = field(
        default_factory=lambda: Signature((TEXT,), (Tensor("generated_text", "BYTES", (-1,)),))
    )
    name: str = ENGINE
    batches: bool = True
    framework: str = field(init=False)
    framework_version: str = field(init=False)

    def __post_init__(self) -> None:
        self.framework, self.framework_version = self.network.framework, self.network.framework_version

    def predict(self, inputs: Tensors, parameters: Mapping[str, object]) -> Tensors:
        sampling = self.defaults.updated(parameters)
        texts = inputs[TEXT.name]
        prompts = [
            ids or self._empty(row) for row, ids in enumerate(self.text.encode(texts, cut=False, room=1)[0])
        ]
        groups = [prompts] if self.network.pads else [[prompt] for prompt in prompts]
        answers = [self.text.decode(tokens) for group in groups for tokens in self._continue(group, sampling)]
        if sampling.return_full_text:
            answers = [text + answer for text, answer in zip(texts, answers, strict=True)]
        return {"generated_text": np.array(answers, dtype=object)}

    def present(self, outputs: Tensors) -> Array | list[Any]:
        return [{"generated_text": text} for text in outputs["generated_text"].tolist()]

    def example(self) -> Tensors:
        return {TEXT.name: np.array(["a"], dtype=object)}

    def _empty(self, row: int) -> list[int]:
        if self.begin is None:
            raise invalid(Fault("the text is empty", TEXT.name, row))
        return [self.begin]

    def _continue(self, prompts: list[list[int]], sampling: Sampling) -> list[list[int]]:
        rows = len(prompts)
        ids = _pad(prompts, self.text.pad, left=True)
        mask = _pad([[1] * len(prompt) for prompt in prompts], 0, left=True)
        # A generator a row, so that what a text gets does not depend on its company.
        generators = [np.random.default_rng(sampling.seed) for _ in prompts]
        tokens: list[list[int]] = [[] for _ in prompts]
        live, past = set(range(rows)), None
        while live:
            logits, past = self.network.step(ids, mask, past)
            chosen = np.zeros((rows, 1), np.int64)
            for row in sorted(live):
                token = _choose(
                    logits[row].astype(np.float64), prompts[row] + tokens[row], sampling, generators[row]
                )
                chosen[row] = token
                tokens[row].append(token)
                full = len(tokens[row]) == sampling.max_new_tokens
                if full or token in self.ends or len(prompts[row]) + len(tokens[row]) == self.text.limit:
                    live.remove(row)
            ids = chosen
            mask = np.concatenate((mask, np.ones((rows, 1), np.int64)), axis=1)
        return tokens


def _generator(config: Json, directory: Path, network: Network, text: Text, parallel: bool) -> Generator:
    given = _read(directory, "generation_config.json", default={})
    for setting, harmless in (
        ("num_beams", 1),
        ("no_repeat_ngram_size", 0),
        ("min_new_tokens", 0),
        ("min_length", 0),
    ):
        if (given.get(setting) or harmless) != harmless:
            raise ModelRefusedError(
                f"generation_config.json sets {setting} to {given[setting]}, which this server cannot do; remove it there"
            )
    known = {item.name for item in fields(Sampling)}
    try:
        defaults = Sampling().updated(
            {name: v for name, v in given.items() if name in known and v is not None}
        )
    except ProblemError as error:
        raise ModelRefusedError(f"generation_config.json: {error.detail}") from error
    ends = given.get("eos_token_id", config.get("eos_token_id"))
    begin = given.get("bos_token_id", config.get("bos_token_id"))
    return Generator(
        network,
        text,
        parallel,
        defaults,
        begin,
        frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends]),
    )


def _choose(logits: Array, before: list[int], sampling: Sampling, generator: np.random.Generator) -> int:
    """The next token: the filters of the transformers library, in its order."""
    if sampling.repetition_penalty != 1:
        seen = np.unique(before)
        logits[seen] = np.where(
            logits[seen] < 0,
            logits[seen] * sampling.repetition_penalty,
            logits[seen] / sampling.repetition_penalty,
        )
    if not sampling.do_sample:
        return int(logits.argmax())
    logits /= sampling.temperature
    if 0 < sampling.top_k < len(logits):
        logits[logits < np.partition(logits, -sampling.top_k)[-sampling.top_k]] = -np.inf
    odds = _softmax(logits)
    if sampling.top_p < 1:
        order = odds.argsort(kind="stable")
        odds[order[:-1][odds[order].cumsum()[:-1] <= 1 - sampling.top_p]] = 0
    return int(generator.choice(len(odds), p=odds / odds.sum()))


def _weights(directory: Path) -> Iterator[Path]:
    """The weights that the folder holds, the preferred ones first."""
    names = (
        "model.onnx",
        "onnx/model.onnx",
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    )
    for path in (directory / name for name in names):
        if path.is_file():
            yield path.with_suffix("") if path.name.endswith(".index.json") else path


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
        f"config.json names the architecture {architecture or 'none'!r}; the transformers engine does text-classification "
        "(...ForSequenceClassification), feature-extraction (...Model, ...ForMaskedLM) and text-generation (...ForCausalLM)"
    )


def _modules(directory: Path) -> tuple[str, bool]:
    """sentence-transformers' pooling and whether vectors get unit length; the mean of the tokens without its files."""
    modules = _read(directory, "modules.json", default=[])
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    strange = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
    if strange:
        raise ModelRefusedError(
            f"modules.json names {', '.join(strange)}; allowed: Transformer, Pooling, Normalize"
        )
    if "Pooling" not in kinds:
        return "mean", "Normalize" in kinds
    settings = _read(directory, modules[kinds.index("Pooling")]["path"] + "/config.json")
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
    return _softmax


def _softmax(logits: Array) -> Array:
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))


def _positions(mask: Array) -> Array:
    return np.maximum(mask.cumsum(axis=1) - 1, 0)


def _pad(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Array:
    width = max(map(len, rows))
    padded = np.full((len(rows), width), value, np.int64)
    for row, items in zip(padded, rows, strict=True):
        row[slice(width - len(items), None) if left else slice(len(items))] = items
    return padded


def _most_tokens(config: Json, tokenizer: Json, sentence: Json) -> int:
    """The longest text that every part of the model takes."""
    positions = next(
        (config[key] for key in ("max_position_embeddings", "n_positions") if config.get(key)), None
    )
    if positions and "roberta" in str(config.get("model_type")):
        positions -= (
            int(config.get("pad_token_id") or 0) + 1
        )  # its positions are counted from behind the padding's
    bounds = (positions, tokenizer.get("model_max_length"), sentence.get("max_seq_length"))
    return int(min((bound for bound in bounds if bound), default=2048))


def _read(directory: Path, name: str, default: Any = None) -> Any:
    path = directory / name
    if default is not None and not path.is_file():
        return default
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefusedError(f"{name} cannot be read: {_first_line(error)}") from error
    if not isinstance(found, list if name == "modules.json" else dict):
        raise ModelRefusedError(f"{name} cannot be read: it holds a {type(found).__name__}")
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
