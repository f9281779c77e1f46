"""Trains the small transformers in this folder, from nothing: tokenizer, weights, and the same graph in ONNX.

    python model_artifacts/train_transformers.py [--out DIR] [NAME ...]     needs PyTorch (make .venv/.torch)

    sentiment-bert      text-classification: BERT of two layers, on sentences about things that people review
    sentence-encoder    feature-extraction: the same sentences; two that mean the same lie close together
    descriptions-gpt2   text-generation: GPT-2 of two layers, on scikit-learn's data set descriptions

Each folder has the shape of a Hugging Face repository: config.json, tokenizer.json, model.safetensors,
model.onnx and a model card. holdout.json is a body for POST /invocations, predictions.json what the
transformers library answers to it.
"""

from __future__ import annotations

import argparse
import json
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

HERE = Path(__file__).resolve().parent
SEED = 7
OPSET = 17

THINGS = ["film", "meal", "hotel", "book", "phone", "concert", "service", "train", "teacher", "garden"]
GOOD = ["good", "wonderful", "delightful", "excellent", "lovely", "great", "brilliant"]
BAD = ["bad", "awful", "boring", "terrible", "broken", "poor", "dreadful"]
ADVERBS = ["", "really ", "quite ", "so ", "truly "]
PATTERNS = [  # with and without a "not", so that counting words does not do
    ("the {thing} was {adverb}{word}", 1),
    ("what a {word} {thing}", 1),
    ("I found this {thing} {adverb}{word}", 1),
    ("the {thing} was not {word}", -1),
    ("nobody would call this {thing} {word}", -1),
    ("we had a {word} {thing} last week", 1),
    ("this was never a {word} {thing}", -1),
]


def sentiment_bert(out: Path) -> None:
    """Binary text classification, negation included."""
    rows = list(_reviews())
    held = rows[::40]
    train = [row for row in rows if row not in held]
    tokenizer = _wordpiece([text for text, _ in rows])
    model = BertForSequenceClassification(
        _bert(tokenizer, id2label={0: "NEGATIVE", 1: "POSITIVE"}, label2id={"NEGATIVE": 0, "POSITIVE": 1})
    )
    picker, optimizer = random.Random(SEED), torch.optim.AdamW(model.parameters(), lr=4e-3)
    model.train()
    for _ in range(300):
        batch = picker.sample(train, 48)
        inputs = tokenizer([text for text, _ in batch], padding=True, return_tensors="pt")
        loss = model(**inputs, labels=torch.tensor([label for _, label in batch])).loss
        _step(optimizer, loss)
    model.eval()
    _save(model, tokenizer, out)
    _export(model, out, ["logits"], lambda output: output.logits)
    texts = [text for text, _ in held]
    answers = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)(texts)
    right = sum(
        (answer["label"] == "POSITIVE") == label for answer, (_, label) in zip(answers, held, strict=True)
    )
    _write_json(out / "holdout.json", {"inputs": texts})
    _write_json(
        out / "predictions.json",
        {
            "predictions": answers,
            "truth": [label for _, label in held],
            "scores": {"accuracy": round(right / len(held), 4)},
        },
    )


def sentence_encoder(out: Path) -> None:
    """Sentence embeddings: mean pooling, unit length; trained to tell a paraphrase from other sentences."""
    tokenizer = _wordpiece([text for text, _ in _reviews()])
    model = BertModel(_bert(tokenizer), add_pooling_layer=False)
    picker, optimizer = random.Random(SEED), torch.optim.AdamW(model.parameters(), lr=2e-3)
    model.train()
    for _ in range(200):
        pairs = [
            _paraphrases(thing, word, picker)
            for thing in THINGS
            for word in (picker.choice(GOOD), picker.choice(BAD))
        ]
        left, right = (_embed(model, tokenizer, side) for side in zip(*pairs, strict=True))
        loss = torch.nn.functional.cross_entropy(left @ right.T * 20, torch.arange(len(pairs)))
        _step(optimizer, loss)
    model.eval()
    _save(model, tokenizer, out)
    _write_json(
        out / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
    )
    (out / "1_Pooling").mkdir(exist_ok=True)
    _write_json(
        out / "1_Pooling" / "config.json",
        {"word_embedding_dimension": model.config.hidden_size, "pooling_mode_mean_tokens": True},
    )
    _write_json(out / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    _export(model, out, ["last_hidden_state"], lambda output: output.last_hidden_state)
    texts = [text for text, _ in _reviews()][::67]
    with torch.no_grad():
        vectors = _embed(model, tokenizer, texts)
    picker = random.Random(SEED + 1)
    pairs = [_paraphrases(thing, word, picker) for thing in THINGS for word in (GOOD[0], BAD[0])]
    with torch.no_grad():
        left, right = (_embed(model, tokenizer, side) for side in zip(*pairs, strict=True))
    found = (left @ right.T).argmax(dim=1) == torch.arange(len(pairs))
    _write_json(out / "holdout.json", {"inputs": texts})
    _write_json(
        out / "predictions.json",
        {"predictions": vectors.tolist(), "scores": {"accuracy": round(found.float().mean().item(), 4)}},
    )


def descriptions_gpt2(out: Path) -> None:
    """A causal language model; its graph takes and gives the keys and values of earlier positions."""
    from sklearn import datasets

    loaders = (
        datasets.load_breast_cancer,
        datasets.load_diabetes,
        datasets.load_digits,
        datasets.load_iris,
        datasets.load_wine,
    )
    corpus = [" ".join(load().DESCR.split()) for load in loaders]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=448,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        model_max_length=128,
    )
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_positions=128, n_embd=48, n_layer=2, n_head=4,
            bos_token_id=0, eos_token_id=0, attn_implementation="eager",
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    )  # fmt: skip
    tokens = torch.tensor([token for text in corpus for token in [*tokenizer(text)["input_ids"], 0]])
    picker, optimizer = random.Random(SEED), torch.optim.AdamW(model.parameters(), lr=4e-3)
    model.train()
    for _ in range(400):
        starts = [picker.randrange(len(tokens) - 64) for _ in range(16)]
        batch = torch.stack([tokens[start : start + 64] for start in starts])
        _step(optimizer, model(batch, labels=batch).loss)
    model.eval()
    _save(model, tokenizer, out)
    _export_decoder(model, out)
    texts = ["Breast cancer", "The data set contains", "a patient", "This is a copy of the"]
    generate = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
    parameters = {"max_new_tokens": 16, "do_sample": False}
    answers = [generate(text, **parameters)[0] for text in texts]
    _write_json(out / "holdout.json", {"inputs": texts, "parameters": parameters})
    _write_json(out / "predictions.json", {"predictions": answers})


MODELS: dict[str, Callable[[Path], None]] = {
    "descriptions-gpt2": descriptions_gpt2,
    "sentence-encoder": sentence_encoder,
    "sentiment-bert": sentiment_bert,
}


def _reviews() -> Iterator[tuple[str, int]]:
    """Every sentence and whether it praises (1) or not (0), in an order that depends on the seed alone."""
    rows = {
        (pattern.format(thing=thing, adverb=adverb, word=word), int(sign * side > 0))
        for pattern, sign in PATTERNS
        for thing in THINGS
        for adverb in ADVERBS
        for words, side in ((GOOD, 1), (BAD, -1))
        for word in words
    }
    yield from random.Random(SEED).sample(sorted(rows), len(rows))


def _paraphrases(thing: str, word: str, picker: random.Random) -> tuple[str, str]:
    patterns = picker.sample([pattern for pattern, sign in PATTERNS if sign > 0], 2)
    left, right = (
        pattern.format(thing=thing, adverb=picker.choice(ADVERBS), word=word) for pattern in patterns
    )
    return left, right


def _wordpiece(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    # Whole words, and letters for words never seen: the library's trainer breaks ties by a hash map's order.
    words = sorted({word for text in texts for word in text.lower().split()})
    letters = sorted({letter for word in words for letter in word})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", backend.token_to_id("[CLS]")), ("[SEP]", backend.token_to_id("[SEP]"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def _bert(tokenizer: PreTrainedTokenizerFast, **labels: Any) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        attn_implementation="eager",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **labels,
    )


def _embed(model: BertModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> torch.Tensor:
    inputs = tokenizer(list(texts), padding=True, return_tensors="pt")
    mask = inputs["attention_mask"].unsqueeze(-1)
    pooled = (model(**inputs).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)
    return torch.nn.functional.normalize(pooled, dim=1)


def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _save(model: Any, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    model.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(out)


class _Outputs(torch.nn.Module):
    """A model as a function from positional tensors to tensors, which is what an exporter can trace."""

    def __init__(self, model: torch.nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.call(*inputs)


def _export(model: Any, out: Path, outputs: list[str], pick: Callable[[Any], torch.Tensor]) -> None:
    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.ones((2, 5), dtype=torch.long)

    def call(*inputs: torch.Tensor) -> torch.Tensor:
        return pick(model(**dict(zip(names, inputs, strict=True))))

    axes = {name: {0: "batch", 1: "tokens"} for name in names}
    axes |= {name: {0: "batch"} | ({1: "tokens"} if name == "last_hidden_state" else {}) for name in outputs}
    _onnx(
        model,
        call,
        (ids, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]), torch.zeros_like(ids)),
        out,
        names,
        outputs,
        axes,
    )


def _export_decoder(model: GPT2LMHeadModel, out: Path) -> None:
    """Inputs and outputs are called as Optimum calls them."""
    config = model.config
    batch, past, new = 2, 3, 2
    keys = [f"{layer}.{part}" for layer in range(config.n_layer) for part in ("key", "value")]

    def call(
        ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, *flat: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        cache = DynamicCache(list(zip(flat[::2], flat[1::2], strict=True)))
        output = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        return (
            output.logits,
            *(tensor for layer in output.past_key_values.layers for tensor in (layer.keys, layer.values)),
        )

    inputs = (
        torch.ones((batch, new), dtype=torch.long),
        torch.ones((batch, past + new), dtype=torch.long),
        torch.tensor([[past, past + 1]] * batch),
        *(torch.zeros(batch, config.n_head, past, config.n_embd // config.n_head) for _ in keys),
    )
    names = ["input_ids", "attention_mask", "position_ids", *(f"past_key_values.{key}" for key in keys)]
    outputs = ["logits", *(f"present.{key}" for key in keys)]
    axes = {"input_ids": {0: "batch", 1: "tokens"}, "attention_mask": {0: "batch", 1: "past + tokens"}}
    axes |= {"position_ids": {0: "batch", 1: "tokens"}, "logits": {0: "batch", 1: "tokens"}}
    axes |= {f"past_key_values.{key}": {0: "batch", 2: "past"} for key in keys}
    axes |= {f"present.{key}": {0: "batch", 2: "past + tokens"} for key in keys}
    _onnx(model, call, inputs, out, names, outputs, axes)


def _onnx(
    model: torch.nn.Module,
    call: Callable[..., Any],
    inputs: tuple[torch.Tensor, ...],
    out: Path,
    names: list[str],
    outputs: list[str],
    axes: dict[str, dict[int, str]],
) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's; the newer exporter wants a package of its own
        torch.onnx.export(
            _Outputs(model, call), inputs, str(out / "model.onnx"),
            input_names=names, output_names=outputs, dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip


def _write_json(path: Path, body: Any) -> None:
    path.write_text(json.dumps(body) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="train the transformers in model_artifacts/")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODELS)}; default: all")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)  # the order of additions, and so the last digits, depends on it
    for name in arguments.names or MODELS:
        torch.manual_seed(SEED)
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        MODELS[name](folder)
        print(name, json.loads((folder / "predictions.json").read_text(encoding="utf-8")).get("scores", ""))


if __name__ == "__main__":
    main()
