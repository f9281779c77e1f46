"""Text generation, token by token. Part of the transformers engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from model_server.engines import Engine, Tensors
from model_server.engines._networks import Array, Network
from model_server.engines._text import TEXT, Json, Text, pad, read_json
from model_server.problems import Fault, ModelRefusedError, ProblemError, invalid
from model_server.signature import Signature, Tensor

MOST_NEW_TOKENS = 1024  # a request's max_new_tokens goes up to here


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

    def updated(self, given: Mapping[str, Any]) -> Sampling:
        """With a request's parameters; 422 for one that is unknown or out of bounds."""
        faults = [
            Fault(
                f"is not a parameter of text generation; allowed: {', '.join(BOUNDS)}", f"parameters.{name}"
            )
            for name in given
            if name not in BOUNDS
        ]
        faults += [
            Fault(f"is {json.dumps(given[name])[:40]}; allowed: {allowed}", f"parameters.{name}")
            for name, (kinds, fits, allowed) in BOUNDS.items()
            if name in given and not (type(given[name]) in kinds and fits(given[name]))
        ]
        if faults:
            raise invalid(*faults)
        return replace(self, **given)


# parameter -> the types that it may have, what it must satisfy, and that in words
BOUNDS: dict[str, tuple[tuple[type, ...], Callable[[Any], bool], str]] = {
    "max_new_tokens": (
        (int,),
        lambda number: 1 <= number <= MOST_NEW_TOKENS,
        f"a whole number from 1 to {MOST_NEW_TOKENS}",
    ),
    "do_sample": ((bool,), lambda _: True, "true, false"),
    "temperature": ((int, float), lambda number: 0 < number <= 100, "a number above 0, at most 100"),
    "top_k": ((int,), lambda number: number >= 0, "a whole number; 0 takes every token"),
    "top_p": ((int, float), lambda number: 0 < number <= 1, "a number above 0, at most 1"),
    "repetition_penalty": ((int, float), lambda number: 0 < number <= 10, "a number above 0, at most 10"),
    "seed": ((int,), lambda number: 0 <= number < 2**63, "a whole number from 0"),
    "return_full_text": ((bool,), lambda _: True, "true, false"),
}
# What a generation_config.json may set that is not done here, and the value that does nothing.
NOT_DONE = {
    "num_beams": 1,
    "no_repeat_ngram_size": 0,
    "min_new_tokens": 0,
    "min_length": 0,
    "min_p": 0,
    "typical_p": 1,
}


@dataclass
class Generator(Engine):
    """Text in, its continuation out, token by token. A text gets the same answer alone and in a batch."""

    network: Network
    text: Text
    parallel: bool
    chunk: int  # the most texts that share a cache
    defaults: Sampling
    begin: int | None  # what stands for an empty prompt
    ends: frozenset[int]
    task: str = "text-generation"
    signature: Signature = field(
        default_factory=lambda: Signature((TEXT,), (Tensor("generated_text", "BYTES", (-1,)),))
    )
    name: str = "transformers"
    batches: bool = True
    framework: str = field(init=False)
    framework_version: str = field(init=False)

    def __post_init__(self) -> None:
        self.framework, self.framework_version = self.network.framework, self.network.framework_version

    def predict(self, inputs: Tensors, parameters: Mapping[str, object]) -> Tensors:
        sampling = self.defaults.updated(parameters)
        texts = inputs[TEXT.name]
        chunk = self.chunk if self.network.pads else 1
        answers = [
            self.text.decode(tokens)
            for prompts, _ in self.text.chunks(texts, chunk, cut=False, room=1, empty=self.begin)
            for tokens in self._continue(prompts, sampling)
        ]
        if sampling.return_full_text:
            answers = [text + answer for text, answer in zip(texts, answers, strict=True)]
        return {"generated_text": np.array(answers, dtype=object)}

    def present(self, outputs: Tensors) -> Array | list[Any]:
        return [{"generated_text": text} for text in outputs["generated_text"].tolist()]

    def _continue(self, prompts: list[list[int]], sampling: Sampling) -> list[list[int]]:
        ids = pad(prompts, self.text.pad, left=True)
        mask = pad([[1] * len(prompt) for prompt in prompts], 0, left=True)
        # A generator a row, so that what a text gets does not depend on its company.
        generators = [np.random.default_rng(sampling.seed) for _ in prompts]
        tokens: list[list[int]] = [[] for _ in prompts]
        live = set(range(len(prompts)))
        past = None
        while live:
            logits, past = self.network.step(ids, mask, past)
            ids = np.zeros((len(prompts), 1), np.int64)
            for row in sorted(live):
                before = prompts[row] + tokens[row]
                token = _choose(logits[row].astype(np.float64), before, sampling, generators[row])
                tokens[row].append(token)
                ids[row] = token
                most = min(sampling.max_new_tokens, self.text.limit - len(prompts[row]))
                if token in self.ends or len(tokens[row]) == most:
                    live.remove(row)
            # What has ended grows no further: its positions would leave the context.
            growing = np.array([[int(row in live)] for row in range(len(prompts))], np.int64)
            mask = np.concatenate((mask, growing), axis=1)
        return tokens


def generator(
    config: Json, directory: Path, network: Network, text: Text, parallel: bool, chunk: int
) -> Generator:
    """The engine for a causal language model, with the defaults of its generation_config.json."""
    given = read_json(directory, "generation_config.json", default={})
    for setting, nothing in NOT_DONE.items():
        if (given.get(setting) or nothing) != nothing:
            raise ModelRefusedError(
                f"generation_config.json sets {setting} to {given[setting]}, which this server cannot do; "
                "remove it there"
            )
    try:
        defaults = Sampling().updated({name: given[name] for name in BOUNDS if given.get(name) is not None})
    except ProblemError as error:
        raise ModelRefusedError(f"generation_config.json: {error.detail}") from error
    ends = given.get("eos_token_id", config.get("eos_token_id"))
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    begin = given.get("bos_token_id", config.get("bos_token_id"))
    return Generator(network, text, parallel, chunk, defaults, begin, frozenset(ends))


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
    odds = softmax(logits)
    if sampling.top_p < 1:
        order = odds.argsort(kind="stable")
        odds[order[:-1][odds[order].cumsum()[:-1] <= 1 - sampling.top_p]] = 0
    return int(generator.choice(len(odds), p=odds / odds.sum()))


def softmax(logits: Array) -> Array:
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))
