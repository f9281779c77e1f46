"""The Hub's adapter, against a hub that speaks real HTTP to the real client library."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.local_hub import LocalHub
from support.tiny_models import CLASSIFIER as MODEL

from modelstacks.adapters.huggingface_hub import HuggingFaceHub
from modelstacks.core.errors import EnvironmentFault, ModelstacksError, UsageError

ID = "acme/sentiment"


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


@pytest.fixture(autouse=True)
def _no_token_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))


@pytest.fixture
def adapter(hub: LocalHub, tmp_path: Path) -> HuggingFaceHub:
    return HuggingFaceHub(hub.endpoint, tmp_path / "cache")


def test_a_repository_is_described_at_its_commit(hub: LocalHub, adapter: HuggingFaceHub) -> None:
    commit = hub.add(ID, MODEL)
    model = adapter.model(ID, "main", None)
    assert (model.id, model.commit, model.gated) == (ID, commit, False)
    assert (model.license, model.pipeline_tag) == ("apache-2.0", "text-classification")
    files = {file.path: file for file in model.files}
    assert set(files) == {path.name for path in MODEL.iterdir()}
    weights = (MODEL / "model.safetensors").read_bytes()
    assert files["model.safetensors"].sha256 == hashlib.sha256(weights).hexdigest()
    assert files["model.safetensors"].size == len(weights)
    assert files["config.json"].sha256 is None  # small files have a git hash only


def test_a_commit_stays_what_it_was_when_main_moves_on(
    hub: LocalHub, adapter: HuggingFaceHub, tmp_path: Path
) -> None:
    first = hub.add(ID, {"config.json": b"one"})
    second = hub.add(ID, {"config.json": b"two"})
    assert adapter.model(ID, "main", None).commit == second
    assert adapter.model(ID, first, None).commit == first
    adapter.download(ID, first, "config.json", tmp_path / "config.json", None)
    assert (tmp_path / "config.json").read_bytes() == b"one"


@pytest.mark.parametrize("path", ["config.json", "model.onnx"])
def test_a_file_arrives_as_it_is(hub: LocalHub, adapter: HuggingFaceHub, tmp_path: Path, path: str) -> None:
    commit = hub.add(ID, MODEL)
    adapter.download(ID, commit, path, tmp_path / "deep" / path, None)
    assert (tmp_path / "deep" / path).read_bytes() == (MODEL / path).read_bytes()


def test_a_file_that_was_fetched_is_not_fetched_again(
    hub: LocalHub, adapter: HuggingFaceHub, tmp_path: Path
) -> None:
    commit = hub.add(ID, MODEL)
    for _ in range(2):
        adapter.download(ID, commit, "model.onnx", tmp_path / "model.onnx", None)
    assert [seen.method for seen in hub.seen if "/cdn/" in seen.path].count("GET") <= 1


@pytest.mark.parametrize("path", ["tokenizer.json", "model.onnx"])
def test_a_download_that_breaks_off_is_taken_up_again(
    hub: LocalHub, adapter: HuggingFaceHub, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "time.sleep", lambda seconds: None
    )  # the client library waits a second between attempts
    commit = hub.add(ID, MODEL)
    hub.breaks[path] = 1
    adapter.download(ID, commit, path, tmp_path / path, None)
    assert (tmp_path / path).read_bytes() == (MODEL / path).read_bytes()
    assert hub.breaks[path] == 0


def test_a_renamed_repository_is_followed_to_its_new_name(
    hub: LocalHub, adapter: HuggingFaceHub, tmp_path: Path
) -> None:
    commit = hub.add("acme/old", MODEL)
    hub.rename("acme/old", ID)
    assert adapter.model("acme/old", "main", None).id == ID
    adapter.download("acme/old", commit, "config.json", tmp_path / "config.json", None)
    assert (tmp_path / "config.json").read_bytes() == (MODEL / "config.json").read_bytes()


def test_hf_endpoint_says_where_the_hub_is(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(ID, {"config.json": b"{}"})
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint + "/")
    assert HuggingFaceHub().model(ID, "main", None).id == ID


def test_a_gated_model_can_be_seen_but_not_fetched_without_a_token(
    hub: LocalHub, adapter: HuggingFaceHub, tmp_path: Path
) -> None:
    commit = hub.add(ID, MODEL, gated=True)
    assert adapter.model(ID, "main", None).gated
    with pytest.raises(UsageError, match=re.escape(f"accept its terms at {hub.endpoint}/{ID}")):
        adapter.download(ID, commit, "config.json", tmp_path / "config.json", None)


def test_a_token_that_has_not_been_let_in_is_refused_the_same_way(
    hub: LocalHub, adapter: HuggingFaceHub, tmp_path: Path
) -> None:
    commit = hub.add(ID, MODEL, gated=True)
    hub.tokens["hf_stranger"] = set()
    with pytest.raises(UsageError, match="is gated"):
        adapter.download(ID, commit, "config.json", tmp_path / "config.json", "hf_stranger")


@pytest.mark.parametrize("by", ["argument", "HF_TOKEN"])
def test_a_token_opens_a_gated_model(
    hub: LocalHub, adapter: HuggingFaceHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    commit = hub.add(ID, MODEL, gated=True)
    hub.tokens["hf_member"] = {ID}
    if by == "HF_TOKEN":
        monkeypatch.setenv("HF_TOKEN", "hf_member")
    adapter.download(
        ID, commit, "config.json", tmp_path / "c.json", "hf_member" if by == "argument" else None
    )
    assert (tmp_path / "c.json").is_file()


def test_no_error_repeats_the_token(hub: LocalHub, adapter: HuggingFaceHub) -> None:
    hub.add(ID, MODEL)
    with pytest.raises(ModelstacksError, match="refused the token") as caught:
        adapter.model(ID, "main", "hf_secret_and_wrong")
    assert "hf_secret_and_wrong" not in str(caught.value)


def test_what_is_not_there_is_said_in_one_line(hub: LocalHub, adapter: HuggingFaceHub) -> None:
    hub.add(ID, MODEL)
    hub.add("acme/private", MODEL, private=True)
    for name in ("acme/nothing", "acme/private"):
        with pytest.raises(UsageError, match=f"there is no model {name} at {hub.endpoint}, or it is private"):
            adapter.model(name, "main", None)
    with pytest.raises(UsageError, match=f"{ID} has no revision v9"):
        adapter.model(ID, "v9", None)
    with pytest.raises(UsageError, match="no longer has a file"):
        adapter.download(ID, hub.repositories[ID].main, "gone.json", Path("never"), None)


def test_a_hub_that_fails_or_is_away_is_the_environment_s_fault(
    hub: LocalHub, adapter: HuggingFaceHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.add(ID, MODEL)
    hub.failing = 100
    with pytest.raises(EnvironmentFault, match="answered 500"):
        adapter.model(ID, "main", None)
    nowhere = HuggingFaceHub("http://127.0.0.1:1", tmp_path / "cache")
    with pytest.raises(EnvironmentFault, match="cannot be reached"):
        nowhere.model(ID, "main", None)
    with pytest.raises(EnvironmentFault, match="cannot be reached"):
        nowhere.download(ID, "0" * 40, "config.json", tmp_path / "config.json", None)
