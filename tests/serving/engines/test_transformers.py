"""The transformers engine says what the library says: alone, batched, in any order, on either runtime."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_server.engines import Engine, choose
from model_server.engines import transformers as engine_module
from model_server.problems import ModelRefusedError, ProblemError
from model_server.settings import Settings
from support.tiny_models import ARTIFACTS, CLASSIFIER, ENCODER, GENERATOR, TRANSFORMERS, needs_torch

ROOT = Path(__file__).resolve().parents[3]
TEXTS = [
    "the film was not good",
    "what a lovely garden",
    "",
    "zebra über 猫",
    "I found this hotel truly dreadful",
]


def load(folder: Path, **settings: Any) -> Engine:
    return choose(folder).load(folder, Settings(model_name="m", model_dir=folder, **settings))


def answer(engine: Engine, texts: list[str], parameters: Mapping[str, object] | None = None) -> list[Any]:
    outputs = engine.predict({"text": np.array(texts, dtype=object)}, parameters or {})
    for tensor in engine.signature.outputs:
        assert outputs[tensor.name].dtype == tensor.dtype
        assert len(outputs[tensor.name]) == len(texts)
    return list(engine.present(outputs))


def kept(folder: Path) -> tuple[dict[str, Any], list[Any]]:
    """A model's own texts and parameters, and the library's answers to them."""
    body = json.loads((folder / "holdout.json").read_text())
    return body, json.loads((folder / "predictions.json").read_text())["predictions"]


def same(one: list[Any], other: list[Any]) -> bool:
    """Equal texts and labels, and numbers equal to five digits."""
    if isinstance(one[0], dict):
        return all(
            set(a) == set(b)
            and all(a[k] == (pytest.approx(b[k], abs=1e-5) if isinstance(b[k], float) else b[k]) for k in b)
            for a, b in zip(one, other, strict=True)
        )
    return bool(np.allclose(np.array(one), np.array(other), atol=1e-5))


@pytest.fixture(scope="module")
def engines() -> dict[Path, Engine]:
    return {folder: load(folder) for folder in TRANSFORMERS}


@pytest.fixture
def copy(tmp_path: Path) -> Callable[..., Path]:
    """A copy of a model's folder, without some files and with some keys of its JSON files changed."""

    def make(folder: Path, without: tuple[str, ...] = (), **changes: dict[str, Any]) -> Path:
        target = tmp_path / folder.name
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns(*without) if without else None)
        for name, keys in changes.items():
            path = target / f"{name}.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | keys))
        return target

    return make


# Answers


@pytest.mark.parametrize("folder", TRANSFORMERS, ids=lambda folder: folder.name)
def test_answers_are_the_library_s_own(engines: dict[Path, Engine], folder: Path) -> None:
    body, expected = kept(folder)
    assert same(answer(engines[folder], body["inputs"], body.get("parameters")), expected)


@pytest.mark.parametrize("folder", TRANSFORMERS, ids=lambda folder: folder.name)
def test_a_text_gets_the_same_answer_alone_batched_and_in_any_order(
    engines: dict[Path, Engine], folder: Path
) -> None:
    parameters = {"max_new_tokens": 12} if folder is GENERATOR else {}
    together = answer(engines[folder], TEXTS, parameters)
    alone = [answer(engines[folder], [text], parameters)[0] for text in TEXTS]
    backwards = answer(engines[folder], TEXTS[::-1], parameters)[::-1]
    assert same(together, alone)
    assert same(together, backwards)


class Watched:
    """A network that keeps the shapes [rows, tokens] of what it was run on."""

    def __init__(self, network: Any) -> None:
        self.network, self.pads, self.shapes = network, network.pads, []

    def run(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> Any:
        self.shapes.append(mask.shape)
        return self.network.run(ids, mask, types)

    def step(self, ids: np.ndarray, mask: np.ndarray, past: Any) -> Any:
        self.shapes.append(mask.shape)
        return self.network.step(ids, mask, past)


@pytest.mark.parametrize("folder", TRANSFORMERS, ids=lambda folder: folder.name)
def test_many_texts_of_one_request_are_run_a_batch_at_a_time(
    engines: dict[Path, Engine], folder: Path
) -> None:
    texts = [*TEXTS, "one two three four five six seven", "a"]
    parameters = {"max_new_tokens": 3} if folder is GENERATOR else {}
    engine = load(folder, max_batch_size=2)
    engine.network = watched = Watched(engine.network)  # type: ignore[attr-defined]
    assert same(answer(engine, texts, parameters), answer(engines[folder], texts, parameters))
    assert max(rows for rows, _ in watched.shapes) == 2
    assert min(tokens for _, tokens in watched.shapes) < max(tokens for _, tokens in watched.shapes)


@pytest.mark.parametrize("folder", TRANSFORMERS, ids=lambda folder: folder.name)
def test_a_text_that_is_refused_costs_no_run_of_the_network(folder: Path) -> None:
    engine = load(folder, max_batch_size=2)
    engine.network = watched = Watched(engine.network)  # type: ignore[attr-defined]
    parameters = {} if folder is GENERATOR else {"truncation": False}
    with pytest.raises(ProblemError) as caught:
        answer(engine, [*TEXTS, "a " * 600], parameters)
    assert caught.value.errors[0].row == len(TEXTS)
    assert watched.shapes == []


@needs_torch
@pytest.mark.parametrize("folder", TRANSFORMERS, ids=lambda folder: folder.name)
def test_safetensors_in_pytorch_answer_as_onnx_does(
    engines: dict[Path, Engine], folder: Path, copy: Callable[..., Path]
) -> None:
    torch_engine = load(copy(folder, without=("*.onnx",)))
    parameters = {"max_new_tokens": 12} if folder is GENERATOR else {}
    assert torch_engine.framework == "transformers"
    assert engines[folder].framework == "onnxruntime"
    assert torch_engine.signature == engines[folder].signature
    assert same(answer(torch_engine, TEXTS, parameters), answer(engines[folder], TEXTS, parameters))


@needs_torch
@pytest.mark.parametrize(
    "problem", ["single_label_classification", "multi_label_classification", "regression"]
)
def test_scores_are_those_of_the_library_s_pipeline(problem: str, copy: Callable[..., Path]) -> None:
    import transformers

    folder = copy(CLASSIFIER, config={"problem_type": problem})
    pipeline = transformers.pipeline("text-classification", model=str(folder))
    assert same(answer(load(folder), TEXTS), pipeline(TEXTS))


@needs_torch
@pytest.mark.parametrize("family", ["DistilBert", "Roberta", "MPNet", "Electra"])
def test_other_families_of_classifiers_answer_as_in_the_library(
    family: str, copy: Callable[..., Path]
) -> None:
    import torch
    import transformers

    folder = copy(CLASSIFIER, without=("*.onnx", "*.safetensors"))
    config = getattr(transformers, f"{family}Config")(
        vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=66, pad_token_id=0,
        num_labels=3,
    )  # fmt: skip
    torch.manual_seed(0)
    getattr(transformers, f"{family}ForSequenceClassification")(config).save_pretrained(folder)
    pipeline = transformers.pipeline("text-classification", model=str(folder))
    assert same(answer(load(folder), TEXTS), pipeline(TEXTS))


@needs_torch
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "GPTNeoX", "OPT"])
def test_other_families_of_language_models_answer_as_in_the_library(
    family: str, copy: Callable[..., Path]
) -> None:
    import torch
    import transformers

    folder = copy(GENERATOR, without=("*.onnx", "*.safetensors"))
    config = getattr(transformers, f"{family}Config")(
        vocab_size=448, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=128,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(folder)
    parameters = {"max_new_tokens": 10, "do_sample": False}
    pipeline = transformers.pipeline("text-generation", model=str(folder))
    texts = ["The data set", "Iris", "The number of instances is"]
    expected = [pipeline(text, **parameters)[0] for text in texts]
    assert same(answer(load(folder), texts, parameters), expected)


def test_a_bert_vocabulary_alone_says_as_much_as_a_tokenizer(
    engines: dict[Path, Engine], copy: Callable[..., Path]
) -> None:
    folder = copy(CLASSIFIER)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n")
    texts = [*TEXTS, "The Film was NOT good!"]
    assert same(answer(load(folder), texts), answer(engines[CLASSIFIER], texts))


@needs_torch
def test_feature_extraction_without_sentence_transformers_files_is_the_mean_of_the_pipeline_s_tokens(
    copy: Callable[..., Path],
) -> None:
    import transformers

    folder = copy(ENCODER, without=("modules.json", "1_Pooling", "sentence_bert_config.json"))
    pipeline = transformers.pipeline("feature-extraction", model=str(folder))
    expected = [np.array(tokens[0]).mean(axis=0) for tokens in pipeline(TEXTS)]
    assert same(answer(load(folder), TEXTS), expected)


@needs_torch
def test_greedy_generation_with_a_repetition_penalty_is_the_library_s() -> None:
    import transformers

    parameters = {"max_new_tokens": 20, "repetition_penalty": 1.7, "do_sample": False}
    pipeline = transformers.pipeline("text-generation", model=str(GENERATOR))
    expected = [pipeline(text, **parameters)[0] for text in ("Iris plants", "The number of instances is")]
    assert same(answer(load(GENERATOR), ["Iris plants", "The number of instances is"], parameters), expected)


def test_a_sentence_vector_has_unit_length(engines: dict[Path, Engine]) -> None:
    vectors = np.array(answer(engines[ENCODER], TEXTS))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("mode", ["cls_token", "max_tokens", "lasttoken"])
def test_each_pooling_ignores_padding(mode: str, copy: Callable[..., Path]) -> None:
    folder = copy(ENCODER)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
    engine = load(folder)
    long = " ".join(["the film was good"] * 3)
    assert same(
        answer(engine, ["what a film", long]), [answer(engine, [text])[0] for text in ("what a film", long)]
    )
    assert not same(answer(engine, TEXTS), answer(load(ENCODER), TEXTS))


def test_an_export_that_holds_the_pooling_is_taken_at_its_word(copy: Callable[..., Path]) -> None:
    import onnx

    folder = copy(ENCODER, without=("modules.json",))
    model = onnx.load(folder / "model.onnx")
    model.graph.node.append(
        onnx.helper.make_node(
            "ReduceMax", ["last_hidden_state"], ["sentence_embedding"], axes=[1], keepdims=0
        )
    )
    pooled = onnx.helper.make_tensor_value_info("sentence_embedding", onnx.TensorProto.FLOAT, ["batch", 32])
    model.graph.output.append(pooled)
    onnx.save(model, folder / "model.onnx")
    (folder / "1_Pooling" / "config.json").unlink()
    engine = load(folder)
    one = engine.predict({"text": np.array(TEXTS[:1], dtype=object)}, {})["embedding"]
    ids, types = engine.text.encode(np.array(TEXTS[:1], dtype=object), cut=False)  # type: ignore[attr-defined]
    inputs = (np.array(ids), np.ones_like(ids), np.array(types))
    hidden = engine.network.run(*inputs)["last_hidden_state"]  # type: ignore[attr-defined]
    np.testing.assert_allclose(one, hidden.max(axis=1), atol=1e-6)


def test_open_inference_clients_get_every_class_s_score(engines: dict[Path, Engine]) -> None:
    outputs = engines[CLASSIFIER].predict({"text": np.array(TEXTS, dtype=object)}, {})
    np.testing.assert_allclose(outputs["scores"].sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(outputs["scores"].max(axis=1), outputs["score"])
    assert engines[CLASSIFIER].signature.classes == ("NEGATIVE", "POSITIVE")


# Generation


def generate(engine: Engine, texts: list[str], **parameters: object) -> list[str]:
    return [entry["generated_text"] for entry in answer(engine, texts, parameters)]


def test_generation_without_a_cache_says_the_same(
    engines: dict[Path, Engine], copy: Callable[..., Path]
) -> None:
    import onnx

    folder = copy(GENERATOR)
    graph = onnx.load(folder / "model.onnx")
    past = [node for node in graph.graph.input if node.name.startswith("past_key_values.")]
    for node in past:  # for one row, no earlier positions, for ever
        shape = [size.dim_value for size in node.type.tensor_type.shape.dim]
        empty = np.zeros((1, shape[1], 0, shape[3]), np.float32)
        graph.graph.initializer.append(onnx.numpy_helper.from_array(empty, node.name))
        graph.graph.input.remove(node)
    onnx.save(graph, folder / "model.onnx")
    for text in ("Iris plants", "The"):
        assert generate(load(folder), [text]) == generate(engines[GENERATOR], [text])


def test_the_same_seed_gives_the_same_sample_whatever_the_company(engines: dict[Path, Engine]) -> None:
    engine = engines[GENERATOR]
    options: dict[str, object] = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 12, "seed": 5}
    alone = generate(engine, ["Iris"], **options)[0]
    assert generate(engine, ["The data set", "Iris", "a"], **options)[1] == alone
    assert {generate(engine, ["Iris"], **(options | {"seed": seed}))[0] for seed in range(5)} != {alone}


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_sampling_narrowed_to_one_token_is_greedy(
    engines: dict[Path, Engine], narrow: dict[str, object]
) -> None:
    greedy = generate(engines[GENERATOR], ["The data"], max_new_tokens=12)
    assert generate(engines[GENERATOR], ["The data"], max_new_tokens=12, do_sample=True, **narrow) == greedy


def test_only_the_new_text_comes_back_when_it_is_asked_for(engines: dict[Path, Engine]) -> None:
    whole = generate(engines[GENERATOR], ["The data"], max_new_tokens=8)[0]
    new = generate(engines[GENERATOR], ["The data"], max_new_tokens=8, return_full_text=False)[0]
    assert whole == "The data" + new != new


def test_generation_ends_at_the_end_of_the_context(engines: dict[Path, Engine]) -> None:
    engine = engines[GENERATOR]
    new = generate(engine, ["The data"], max_new_tokens=1024, repetition_penalty=1.2, return_full_text=False)[
        0
    ]
    tokenizer = engine.text.tokenizer  # type: ignore[attr-defined]
    assert len(tokenizer.encode("The data").ids) + len(tokenizer.encode(new).ids) <= 128


def test_a_text_at_the_end_of_its_context_does_not_disturb_its_company(engines: dict[Path, Engine]) -> None:
    texts = ["The data set contains " * 12, "Iris", "a"]
    together = generate(engines[GENERATOR], texts, max_new_tokens=100)
    assert together == [generate(engines[GENERATOR], [text], max_new_tokens=100)[0] for text in texts]


def test_generation_ends_at_the_model_s_end_token(copy: Callable[..., Path]) -> None:
    engine = load(GENERATOR)
    tokens = engine.text.tokenizer.encode(generate(engine, ["The data"], max_new_tokens=6)[0]).ids  # type: ignore[attr-defined]
    ended = load(copy(GENERATOR, generation_config={"eos_token_id": [tokens[-1]]}))
    shorter = generate(ended, ["The data"], max_new_tokens=64)[0]
    assert len(shorter) < len(generate(engine, ["The data"], max_new_tokens=64)[0])


def test_defaults_come_from_generation_config(copy: Callable[..., Path], engines: dict[Path, Engine]) -> None:
    folder = copy(GENERATOR, generation_config={"max_new_tokens": 3})
    assert generate(load(folder), ["Iris"]) == generate(engines[GENERATOR], ["Iris"], max_new_tokens=3)


# Refused requests


@pytest.mark.parametrize(
    ("folder", "parameters", "field"),
    [
        (CLASSIFIER, {"top_k": 2}, "parameters.top_k"),
        (CLASSIFIER, {"truncation": "yes"}, "parameters.truncation"),
        (GENERATOR, {"beams": 2}, "parameters.beams"),
        (GENERATOR, {"max_new_tokens": 0}, "parameters.max_new_tokens"),
        (GENERATOR, {"max_new_tokens": 10**9}, "parameters.max_new_tokens"),
        (GENERATOR, {"max_new_tokens": True}, "parameters.max_new_tokens"),
        (GENERATOR, {"temperature": 0}, "parameters.temperature"),
        (GENERATOR, {"temperature": float("nan")}, "parameters.temperature"),
        (GENERATOR, {"top_p": "0.5"}, "parameters.top_p"),
        (GENERATOR, {"seed": -1}, "parameters.seed"),
        (GENERATOR, {"do_sample": 1}, "parameters.do_sample"),
    ],
)
def test_a_parameter_that_would_be_ignored_or_makes_no_sense_is_refused(
    engines: dict[Path, Engine], folder: Path, parameters: dict[str, object], field: str
) -> None:
    with pytest.raises(ProblemError) as caught:
        answer(engines[folder], ["a"], parameters)
    assert caught.value.status == 422
    assert [fault.field for fault in caught.value.errors] == [field]


def test_a_text_that_gives_no_tokens_is_refused_by_its_row(copy: Callable[..., Path]) -> None:
    bare = load(copy(CLASSIFIER, tokenizer={"post_processor": None}))  # no [CLS] and [SEP] around a text
    endless = load(copy(GENERATOR, generation_config={"bos_token_id": None}, config={"bos_token_id": None}))
    for engine in (bare, endless):
        with pytest.raises(ProblemError, match="row 1, field 'text': the text gives no tokens") as caught:
            answer(engine, ["good", ""])
        assert caught.value.status == 422


@pytest.mark.parametrize("folder", [CLASSIFIER, GENERATOR], ids=lambda folder: folder.name)
def test_a_text_that_is_too_long_is_refused_by_its_row(engines: dict[Path, Engine], folder: Path) -> None:
    with pytest.raises(ProblemError) as caught:
        answer(engines[folder], ["good", "good film " * 200])
    assert caught.value.status == 422
    assert [(fault.field, fault.row) for fault in caught.value.errors] == [("text", 1)]
    assert "tokens; allowed: " in caught.value.detail


def test_a_long_text_is_cut_off_when_the_request_says_so(engines: dict[Path, Engine]) -> None:
    long = " ".join(["the film was good"] * 40)
    fits = " ".join(long.split()[:62])  # 64 with [CLS] and [SEP]
    assert same(
        answer(engines[CLASSIFIER], [long], {"truncation": True}), answer(engines[CLASSIFIER], [fits])
    )


def test_a_sentence_encoder_cuts_off_where_sentence_transformers_does(engines: dict[Path, Engine]) -> None:
    long = " ".join(["the film was good"] * 40)
    fits = " ".join(long.split()[:30])  # max_seq_length 32
    assert same(answer(engines[ENCODER], [long]), answer(engines[ENCODER], [fits]))


# Refused models


@pytest.mark.parametrize(
    ("folder", "without", "changes", "reason"),
    [
        (CLASSIFIER, ("tokenizer.json",), {}, "there is no tokenizer.json"),
        (
            CLASSIFIER,
            (),
            {"config": {"architectures": ["WhisperForConditionalGeneration"]}},
            "the architecture 'Whisper",
        ),
        (CLASSIFIER, (), {"config": {"architectures": []}}, "the architecture 'none'"),
        (
            CLASSIFIER,
            (),
            {"config": {"architectures": ["BertModel"]}},
            "feature extraction wants last_hidden_state",
        ),
        (GENERATOR, (), {"generation_config": {"num_beams": 4}}, "sets num_beams to 4"),
        (GENERATOR, (), {"generation_config": {"temperature": -1}}, "generation_config.json: field"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_with_the_reason(
    copy: Callable[..., Path],
    folder: Path,
    without: tuple[str, ...],
    changes: dict[str, dict[str, Any]],
    reason: str,
) -> None:
    with pytest.raises(ModelRefusedError, match=reason):
        load(copy(folder, without, **changes))


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_a_damaged_file_is_refused_by_name(copy: Callable[..., Path], name: str) -> None:
    folder = copy(CLASSIFIER)
    (folder / name).write_text("{ damaged")
    with pytest.raises(ModelRefusedError, match=name):
        load(folder)


def test_an_unknown_pooling_is_refused(copy: Callable[..., Path]) -> None:
    folder = copy(ENCODER)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_weightedmean_tokens": True}))
    with pytest.raises(ModelRefusedError, match="is not one of mean, cls, max, lasttoken"):
        load(folder)


def test_pickled_weights_are_refused_unless_allowed(copy: Callable[..., Path]) -> None:
    folder = copy(CLASSIFIER, without=("*.onnx", "*.safetensors"))
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelRefusedError, match="is a pickle"):
        load(folder)


def test_without_pytorch_safetensors_are_refused_with_what_to_install(
    copy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ModelRefusedError, match='torch is not installed; install the extra "torch", or add ONNX weights'
    ):
        load(copy(CLASSIFIER, without=("*.onnx",)))


@needs_torch
def test_damaged_safetensors_are_refused(copy: Callable[..., Path]) -> None:
    folder = copy(CLASSIFIER, without=("*.onnx",))
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelRefusedError, match="transformers cannot load the model"):
        load(folder)


def test_onnx_weights_need_neither_torch_nor_transformers() -> None:
    script = (
        "import sys; from pathlib import Path; from model_server.engines import choose\n"
        "from model_server.settings import Settings\n"
        f"folder = Path({str(GENERATOR)!r})\n"
        "engine = choose(folder).load(folder, Settings(model_name='m', model_dir=folder))\n"
        "engine.predict(engine.example(), {})\n"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT / "serving")


def test_folders_of_other_engines_are_left_to_them() -> None:
    for name in ("digits-onnx", "churn-xgboost", "diabetes-sklearn"):
        assert not engine_module.accepts(ARTIFACTS / name)
        assert choose(ARTIFACTS / name).ENGINE != "transformers"
