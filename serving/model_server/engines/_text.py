"""Texts to token ids and back. Part of the transformers engine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from model_server.engines._networks import Array, first_line
from model_server.problems import Fault, ModelRefusedError, invalid
from model_server.signature import Tensor

Json = dict[str, Any]
Tokens = tuple[list[list[int]], list[list[int]]]  # token ids and token types of each text

TEXT = Tensor("text", "BYTES", (-1,))
WORDPIECE = ("bert", "distilbert", "electra", "mobilebert")  # model types whose vocab.txt is BERT's


class Text:
    """Texts to token ids and back, with the tokenizer.json that every fast tokenizer has."""

    def __init__(self, directory: Path, config: Json) -> None:
        settings = read_json(directory, "tokenizer_config.json", default={})
        self.tokenizer, self.cutter = (_tokenizer(directory, config, settings) for _ in range(2))
        sentence = read_json(directory, "sentence_bert_config.json", default={})
        self.lower = bool(sentence.get("do_lower_case"))
        self.limit = _most_tokens(config, settings, sentence)
        # sentence-transformers cuts long texts off; a pipeline of the transformers library does not
        self.cuts = "max_seq_length" in sentence
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.cutter.no_padding()
        self.cutter.enable_truncation(self.limit)
        pad = settings.get("pad_token")
        pad = self.tokenizer.token_to_id(pad["content"] if isinstance(pad, dict) else pad) if pad else None
        self.pad = pad if pad is not None else config.get("pad_token_id") or 0

    def chunks(
        self,
        texts: Array,
        rows: int,
        *,
        cut: bool,
        room: int = 0,
        prompt: str = "",
        empty: int | None = None,
    ) -> Iterator[Tokens]:
        """`encode` for at most `rows` texts at a time: however many come, few are padded to the longest."""
        encode = partial(self.encode, cut=cut, room=room, prompt=prompt, empty=empty)
        starts = range(0, len(texts), rows)
        if len(starts) > 1:  # a text that is refused is found before the first chunk's run of the network
            for first in starts:
                encode(texts[first : first + rows], first=first)
        for first in starts:
            yield encode(texts[first : first + rows], first=first)

    def encode(
        self,
        texts: Array,
        *,
        cut: bool,
        room: int = 0,
        prompt: str = "",
        empty: int | None = None,
        first: int = 0,
    ) -> Tokens:
        """Token ids and token types of each text, the first of which is the request's row `first`.

        422 for a text that is too long and may not be cut, or that gives no tokens where none (`empty`)
        stands for it. `prompt` goes in front of each; `room` is how many tokens must be left free behind it.
        """
        strings = [prompt + text for text in texts]
        if self.lower:
            strings = [text.lower() for text in strings]
        encodings = (self.cutter if cut else self.tokenizer).encode_batch(strings)
        faults = [
            Fault(f"the text has {len(encoding.ids)} tokens; allowed: {self.limit - room}", TEXT.name, row)
            for row, encoding in enumerate(encodings, start=first)
            if len(encoding.ids) > self.limit - room
        ]
        if faults and room == 0:
            advice = '; shorten it, or send the parameter "truncation": true'
            faults = [Fault(fault.message + advice, fault.field, fault.row) for fault in faults]
        ids = [encoding.ids for encoding in encodings]
        if empty is None:
            faults = faults or [
                Fault("the text gives no tokens", TEXT.name, row)
                for row, found in enumerate(ids, start=first)
                if not found
            ]
        if faults:
            raise invalid(*faults)
        return [found or [empty] for found in ids], [encoding.type_ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def _tokenizer(directory: Path, config: Json, settings: Json) -> Any:
    """The tokenizer in tokenizer.json; older BERTs may have their vocabulary alone, which says as much."""
    import tokenizers

    path, vocabulary = directory / "tokenizer.json", directory / "vocab.txt"
    try:
        if path.is_file():
            return tokenizers.Tokenizer.from_file(str(path))
        if vocabulary.is_file() and config.get("model_type") in WORDPIECE:
            path = vocabulary
            return tokenizers.BertWordPieceTokenizer(
                str(path),
                lowercase=settings.get("do_lower_case", True),
                strip_accents=settings.get("strip_accents"),
                handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
            )
    except Exception as error:  # the library raises Exception itself
        raise ModelRefusedError(f"{path.name} cannot be read: {first_line(error)}") from error
    raise ModelRefusedError(
        "there is no tokenizer.json; save one with "
        'AutoTokenizer.from_pretrained("...").save_pretrained("DIR") in the transformers library'
    )


def pad(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Array:
    widths = set(map(len, rows))
    if len(widths) == 1:
        return np.array(rows, np.int64)
    width = max(widths)
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


def read_json(directory: Path, name: str, default: Any = None) -> Any:
    path = directory / name
    if default is not None and not path.is_file():
        return default
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefusedError(f"{name} cannot be read: {first_line(error)}") from error
    if not isinstance(found, list if name == "modules.json" else dict):
        raise ModelRefusedError(f"{name} cannot be read: it holds a {type(found).__name__}")
    return found
