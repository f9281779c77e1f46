"""The huggingface source: what it pins, leaves out, and refuses before any weights are fetched."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from model_server.engines import choose
from model_server.settings import Settings
from support.local_hub import LocalHub
from support.ports import MemoryHub, MemoryPorts
from support.tiny_models import CLASSIFIER, ENCODER, GENERATOR

from modelstacks.adapters.huggingface_hub import HuggingFaceHub
from modelstacks.core.artifact.packaging import package
from modelstacks.core.errors import EnvironmentFault, UsageError
from modelstacks.core.lock.locking import lock
from modelstacks.core.plan.deployments import load_plans
from modelstacks.core.ports import Inspection, Ports
from modelstacks.core.registry import Pinned, Workplace
from modelstacks.core.signature import Signature
from modelstacks.sources import huggingface
from modelstacks.sources.huggingface import HuggingFace

ID = "acme/sentiment"
CONFIG = json.dumps({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}).encode()
SMALL = {"config.json": CONFIG, "tokenizer.json": b"{}"}


def place(tmp_path: Path, ports: MemoryPorts) -> Workplace:
    work = tmp_path / "work"
    work.mkdir()
    return Workplace(tmp_path, work, ports.ports())


def resolve(
    tmp_path: Path, files: dict[str, bytes], *, tag: str = "", gated: bool = False, **fields: Any
) -> Pinned:
    """Resolve a spec against a hub in memory that holds these files."""
    ports = MemoryPorts(hub=MemoryHub(repositories={ID: {"a" * 40: files}}, licenses={ID: "mit"}))
    ports.hub.tags = {ID: tag} if tag else {}
    ports.hub.gated = {ID} if gated else set()
    ports.hub.tokens = {"hf_member"}
    ports.secrets.secrets["hub-token"] = "hf_member"
    spec = HuggingFace.model_validate({"source": "huggingface", "id": ID, **fields})
    return huggingface.resolve(spec, place(tmp_path, ports))


def taken(pinned: Pinned) -> set[str]:
    return {file.path for file in pinned.files}


# What is pinned


def test_the_revision_becomes_a_commit_and_every_file_a_digest(tmp_path: Path) -> None:
    pinned = resolve(tmp_path, SMALL | {"model.onnx": b"weights"})
    assert pinned.revision == "a" * 40
    assert pinned.origin == {"id": ID, "commit": "a" * 40, "revision": "main"}
    assert {file.path: file.sha256 for file in pinned.files} == {
        path: hashlib.sha256(content).hexdigest()
        for path, content in (SMALL | {"model.onnx": b"weights"}).items()
    }
    assert (pinned.license, pinned.task, pinned.gated) == ("mit", "text-classification", False)
    assert all((pinned.directory / file.path).stat().st_size == file.size for file in pinned.files)


@pytest.mark.parametrize(
    ("held", "fields", "weights"),
    [
        (["model.onnx", "model.safetensors", "pytorch_model.bin"], {}, {"model.onnx"}),
        (
            ["onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_fp16.onnx"],
            {},
            {"onnx/model.onnx", "onnx/model.onnx_data"},
        ),
        (["model.onnx", "onnx/model.onnx"], {}, {"model.onnx"}),
        (["model.onnx", "model.safetensors"], {"weights": "safetensors"}, {"model.safetensors"}),
        (
            ["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin", "tf_model.h5"],
            {},
            {"model.safetensors"},
        ),
        (
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
            {},
            {
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            },
        ),
        (["pytorch_model.bin"], {"trust_code": True}, {"pytorch_model.bin"}),
        (["openvino/model.bin", "model.onnx", "onnx/model_quantized.onnx"], {}, {"model.onnx"}),
    ],
)
def test_one_form_of_the_weights_is_taken_and_no_copy_of_it(
    tmp_path: Path, held: list[str], fields: dict[str, Any], weights: set[str]
) -> None:
    assert taken(resolve(tmp_path, SMALL | dict.fromkeys(held, b"weights"), **fields)) == set(SMALL) | weights


def test_what_the_engine_does_not_read_is_left_on_the_hub(tmp_path: Path) -> None:
    beside = {
        "1_Pooling/config.json": b"{}",
        "modules.json": b"[]",
        "tokenizer_config.json": b"{}",
        "generation_config.json": b"{}",
    }
    left = dict.fromkeys(
        (".gitattributes", "README.md", "training_args.bin", "runs/a.log", "rust_model.ot"), b"x"
    )
    pinned = resolve(tmp_path, SMALL | beside | left | {"model.onnx": b"weights"})
    assert taken(pinned) == {*SMALL, *beside, "model.onnx"}
    assert pinned.task == "feature-extraction"  # modules.json: sentence-transformers


@pytest.mark.parametrize(
    ("held", "name"), [("onnx/tokenizer.json", "tokenizer.json"), ("vocab.txt", "vocab.txt")]
)
def test_a_tokenizer_is_taken_from_where_an_older_repository_has_it(
    tmp_path: Path, held: str, name: str
) -> None:
    files = {"config.json": CONFIG, "onnx/model.onnx": b"weights", held: b"tokens"}
    pinned = resolve(tmp_path, files)
    assert taken(pinned) == {"config.json", "onnx/model.onnx", name}
    assert (pinned.directory / name).read_bytes() == b"tokens"

    locked = SimpleNamespace(files=pinned.files, origin=pinned.origin)
    (tmp_path / "again").mkdir()
    hub = MemoryPorts(hub=MemoryHub(repositories={ID: {"a" * 40: files}}))
    again = huggingface.fetch(locked, Workplace(tmp_path, tmp_path / "again", hub.ports()))  # type: ignore[arg-type]
    assert (again / name).read_bytes() == b"tokens"


def test_include_takes_exactly_what_it_names(tmp_path: Path) -> None:
    files = SMALL | {"onnx/model_quantized.onnx": b"weights", "model.onnx": b"weights"}
    pinned = resolve(tmp_path, files, include=["*.json", "onnx/model_quantized.onnx"])
    assert taken(pinned) == {*SMALL, "onnx/model_quantized.onnx"}


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("DistilBertForSequenceClassification", "text-classification"),
        ("GPT2LMHeadModel", "text-generation"),
        ("LlamaForCausalLM", "text-generation"),
        ("BertModel", "feature-extraction"),
        ("RobertaForMaskedLM", "feature-extraction"),
    ],
)
def test_the_task_is_what_the_network_was_made_for(tmp_path: Path, architecture: str, task: str) -> None:
    config = json.dumps({"architectures": [architecture]}).encode()
    assert resolve(tmp_path, SMALL | {"config.json": config, "model.onnx": b"w"}, task=task).task == task


# What is refused


@pytest.mark.parametrize(
    ("files", "fields", "message"),
    [
        (
            SMALL | {"model.gguf": b"w"},
            {},
            "has no weights in a supported form; got config.json, model.gguf, tokenizer",
        ),
        (
            SMALL | {"pytorch_model.bin": b"w"},
            {},
            "has only pickled weights, .*; got pytorch_model.bin; fix: .*safetensors",
        ),
        (
            SMALL | {"model.onnx": b"w"},
            {"weights": "safetensors"},
            "model.weights: .* has no weights in this form; got safetensors; allowed: onnx",
        ),
        ({"tokenizer.json": b"{}", "model.onnx": b"w"}, {}, "has no config.json"),
        ({"config.json": CONFIG, "model.onnx": b"w"}, {}, "has no tokenizer.json, .*save_pretrained"),
        (
            SMALL | {"model.onnx": b"w"},
            {"include": ["*.bin"]},
            'model.include: no file of acme/sentiment matches "\\*.bin"',
        ),
        (
            SMALL | {"model.onnx": b"w"},
            {"task": "text-generation"},
            "model.task: .*got text-generation; allowed: text-class",
        ),
        (
            SMALL | {"model.onnx": b"w", "config.json": b"["},
            {},
            "config.json of acme/sentiment is not a JSON object",
        ),
        (
            SMALL
            | {"model.onnx": b"w", "config.json": b'{"architectures": ["WhisperForConditionalGeneration"]}'},
            {},
            "has an unsupported task .unknown.; got architecture Whisper",
        ),
        (
            SMALL
            | {
                "model.safetensors": b"w",
                "config.json": CONFIG[:-1] + b', "auto_map": {"AutoModel": "m.M"}}',
            },
            {},
            "needs its own Python code .auto_map in config.json., which is never run",
        ),
        (
            SMALL | {"model.onnx": b"w", "../escape.json": b"w"},
            {},
            "lists a file with an unsafe path; got '../escape.json'",
        ),
    ],
)
def test_a_repository_that_cannot_be_served_is_refused_with_the_way_out(
    tmp_path: Path, files: dict[str, bytes], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(tmp_path, files, **fields)
    fetched = {path.name for path in (tmp_path / "work").rglob("*") if path.is_file()}
    assert fetched <= {"config.json"}


def test_code_of_its_own_does_not_matter_beside_onnx_weights(tmp_path: Path) -> None:
    config = CONFIG[:-1] + b', "auto_map": {"AutoModel": "m.M"}}'
    assert "model.onnx" in taken(resolve(tmp_path, SMALL | {"model.onnx": b"w", "config.json": config}))


def test_a_gated_model_wants_its_terms_accepted_in_the_spec(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is gated: .*set model.accept_eula: true, and provide a token"):
        resolve(tmp_path, SMALL | {"model.onnx": b"w"}, gated=True, token={"secret": "hub-token"})


def test_a_gated_model_is_fetched_with_the_secret_s_token_of_which_only_the_name_is_kept(
    tmp_path: Path,
) -> None:
    fields = {"token": {"secret": "hub-token"}, "accept_eula": True}
    pinned = resolve(tmp_path, SMALL | {"model.onnx": b"w"}, gated=True, **fields)
    assert pinned.gated
    assert pinned.origin["token_secret"] == "hub-token"
    assert "hf_member" not in repr(pinned)


# Through the real client, and through lock and package


class InProcessInspector:
    """Loads the model in the server's own engine, in this process; the real one takes another process."""

    def inspect(
        self, directory: Path, engine: str, *, image: Mapping[str, str], trust_code: bool
    ) -> Inspection:
        loaded = choose(directory, engine).load(directory, Settings(model_name="m", model_dir=directory))
        loaded.predict(loaded.example(), {})
        signature = Signature.model_validate(loaded.signature.to_json())
        return Inspection(loaded.name, loaded.framework, loaded.framework_version, loaded.task, signature)


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def ports(hub: LocalHub, tmp_path: Path) -> Ports:
    real = HuggingFaceHub(hub.endpoint, tmp_path / "cache")
    return dataclasses.replace(MemoryPorts().ports(), hub=real, inspector=InProcessInspector())


def write_spec(project: Path, **model: Any) -> Path:
    body = {"name": "text", "model": {"source": "huggingface", "id": ID, **model}, "architecture": "managed"}
    path = project / "text.yaml"
    path.write_text(json.dumps(body))  # JSON is YAML
    return path


@pytest.mark.parametrize(
    ("folder", "task"),
    [
        (CLASSIFIER, "text-classification"),
        (ENCODER, "feature-extraction"),
        (GENERATOR, "text-generation"),
    ],
)
def test_a_real_model_is_locked_and_packaged_from_a_real_hub(
    hub: LocalHub, ports: Ports, tmp_path: Path, folder: Path, task: str
) -> None:
    commit = hub.add(ID, folder)
    spec = write_spec(tmp_path)
    locked = lock(spec, tmp_path, ports, report=lambda line: None).lock.model
    assert (locked.revision, locked.task, locked.engine) == (commit, task, "transformers")
    assert (locked.license, locked.license_from) == ("apache-2.0", "model card")
    assert {"config.json", "tokenizer.json", "model.onnx"} <= {file.path for file in locked.files}
    assert not {"README.md", "model.safetensors", "holdout.json"} & {file.path for file in locked.files}

    for archive in (tmp_path / ".modelstacks" / "models").iterdir():
        archive.unlink()  # another machine: only spec and lock are there
    hub.add(ID, {"config.json": b"main has moved on"})
    archive = package(spec.with_suffix(".lock.json"), tmp_path, ports)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == locked.archive.sha256


def test_locking_twice_changes_nothing_until_main_moves(hub: LocalHub, ports: Ports, tmp_path: Path) -> None:
    hub.add(ID, CLASSIFIER)
    spec = write_spec(tmp_path)
    assert lock(spec, tmp_path, ports, report=lambda line: None).changed
    assert not lock(spec, tmp_path, ports, report=lambda line: None).changed
    commit = hub.add(ID, ENCODER)
    again = lock(spec, tmp_path, ports, report=lambda line: None)
    assert again.changed
    assert again.lock.model.revision == commit


def test_the_token_is_neither_in_the_lock_nor_in_what_is_reported(
    hub: LocalHub, ports: Ports, tmp_path: Path
) -> None:
    hub.add(ID, CLASSIFIER, gated=True)
    hub.tokens["hf_very_secret"] = {ID}
    secrets = MemoryPorts().secrets
    secrets.secrets["hub-token"] = "hf_very_secret"
    said: list[str] = []
    spec = write_spec(tmp_path, token={"secret": "hub-token"}, accept_eula=True)
    outcome = lock(spec, tmp_path, dataclasses.replace(ports, secrets=secrets), report=said.append)
    assert outcome.lock.model.gated
    assert "hf_very_secret" not in outcome.path.read_text() + "".join(said)
    assert {seen.token for seen in hub.seen if "/resolve/" in seen.path} == {"hf_very_secret"}


def test_bytes_other_than_the_hub_lists_are_refused(hub: LocalHub, ports: Ports, tmp_path: Path) -> None:
    hub.add(ID, CLASSIFIER)
    weights = (CLASSIFIER / "model.onnx").read_bytes()
    hub.forged["model.onnx"] = weights[:-1] + bytes([weights[-1] ^ 1])
    with pytest.raises(
        EnvironmentFault, match=r"model\.onnx of acme/sentiment does not match the Hub's listing"
    ):
        lock(write_spec(tmp_path), tmp_path, ports, report=lambda line: None)


def test_a_renamed_model_is_locked_under_its_new_name(hub: LocalHub, ports: Ports, tmp_path: Path) -> None:
    hub.add(ID, CLASSIFIER)
    hub.rename(ID, "acme/praise")
    assert (
        lock(write_spec(tmp_path), tmp_path, ports, report=lambda line: None).lock.model.origin["id"]
        == "acme/praise"
    )


@pytest.mark.parametrize(("weights", "torch"), [("onnx", None), ("safetensors", "2.13.0")])
def test_pytorch_comes_into_the_image_only_for_weights_that_need_it(
    hub: LocalHub, ports: Ports, tmp_path: Path, weights: str, torch: str | None
) -> None:
    if torch:
        pytest.importorskip("torch")
    hub.add(ID, ENCODER)
    spec = write_spec(tmp_path, weights=weights)
    lock(spec, tmp_path, ports, report=lambda line: None)
    [plan] = load_plans([spec], "spec", tmp_path)
    assert plan.runtime.image_arguments.get("TORCH") == torch
    assert plan.runtime.image_arguments["ENGINE"] == "transformers"
