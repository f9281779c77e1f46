"""LightGBM models that were cut short or altered are refused before the library reads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from model_server.engines._lightgbm_trees import check_model
from model_server.problems import ModelRefusedError
from model_server.settings import Settings
from model_server.worker import load_engine
from support.model_server import ARTIFACTS

GOOD = (ARTIFACTS / "breast-cancer-lightgbm/model.txt").read_bytes()


def altered(
    field: str, change: Callable[[list[str]], list[str]], *, tree: int = 0, text: bytes = GOOD
) -> bytes:
    """The model with one field of one tree changed, and the sizes in its header put right again."""
    blocks = re.split(r"(?=^Tree=|^end of trees)", text.decode(), flags=re.MULTILINE)
    lines = blocks[tree + 1].split("\n")
    place = next(i for i, line in enumerate(lines) if line.startswith(f"{field}="))
    lines[place] = f"{field}={' '.join(change(lines[place].partition('=')[2].split()))}"
    blocks[tree + 1] = "\n".join(lines)
    sizes = " ".join(str(len(block)) for block in blocks[1:] if block.startswith("Tree="))
    blocks[0] = re.sub(r"^tree_sizes=.*$", f"tree_sizes={sizes}", blocks[0], flags=re.MULTILINE)
    return "".join(blocks).encode()


def first(value: str) -> Callable[[list[str]], list[str]]:
    return lambda words: [value, *words[1:]]


#: A leaf and the branch above it have changed places: the branch leads to itself alone.
DETACHED = altered(
    "right_child",
    lambda words: ["2" if word == "-4" else word for word in words],
    text=altered("left_child", first("-4")),
)


def trained(target: np.ndarray, data: dict[str, object] | None = None, **options: object) -> bytes:
    rng = np.random.default_rng(0)
    rows = rng.random((400, 5))
    rows[:, 0] = rng.integers(0, 40, 400)
    dataset = lightgbm.Dataset(rows, target, **(data or {}))  # type: ignore[arg-type]
    return lightgbm.train({"verbose": -1, "seed": 0, **options}, dataset, 6).model_to_string().encode()


NUMBERS = np.linspace(0, 9, 400)
CLASSES = np.arange(400) % 3


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        trained(NUMBERS),
        trained(NUMBERS, {"categorical_feature": [0]}),
        trained(NUMBERS, {"params": {"linear_tree": True}}, linear_tree=True),
        trained(CLASSES, objective="multiclass", num_class=3),
        trained(NUMBERS, min_data_in_leaf=1000),
        trained(NUMBERS, boosting="dart"),
        re.sub(rb"tree_sizes=.*\n", b"", GOOD),
    ],
    ids=["kept", "plain", "categories", "linear", "classes", "no split", "dart", "without sizes"],
)
def test_what_the_library_writes_is_accepted(text: bytes) -> None:
    check_model(text, "model.txt")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.97, 0.99])
def test_a_truncated_model_is_refused(share: float) -> None:
    with pytest.raises(
        ModelRefusedError, match=r"^model.txt is not a readable LightGBM model: it ends before"
    ):
        check_model(GOOD[: int(len(GOOD) * share)], "model.txt")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (altered("left_child", first("0")), "tree 0 is not a tree"),
        (DETACHED, "branches cannot be reached"),
        (altered("left_child", first("99999")), "a branch is out of range"),
        (altered("right_child", first("-99999")), "a leaf is out of range"),
        (altered("split_feature", first("30")), "split_feature is out of range"),
        (altered("split_feature", first("-1")), "split_feature is out of range"),
        (altered("num_leaves", lambda _: ["1000000"]), "leaf_value has 9 values, expected 1000000"),
        (altered("num_leaves", lambda _: ["-1"]), "has -1 leaves"),
        (altered("num_leaves", lambda _: ["99999999999999999999"]), "has no num_leaves"),
        (altered("threshold", lambda words: words[:-1]), "threshold has 7 values, expected 8"),
        (altered("left_child", first("x")), "holds what is not a whole number"),
        (altered("decision_type", first("1")), "a categorical threshold is out of range"),
        (altered("is_linear", lambda _: ["1"]), "leaf_const has 0 values"),
        (altered("num_cat", lambda _: ["4"]), "cat_boundaries has 0 values"),
        (GOOD.replace(b"tree_sizes=1055", b"tree_sizes=1054"), "sizes that its header says"),
        (GOOD.replace(b"Tree=7\n", b"Tree=8\n"), "tree 7 is missing"),
        (GOOD.replace(b"max_feature_idx=29", b"max_feature_idx=2900"), "does not name each of its features"),
        (GOOD.replace(b"num_tree_per_iteration=1", b"num_tree_per_iteration=7"), "7 trees an iteration"),
        (GOOD.replace(b"[sigmoid: 1]", b"sigmoid"), "training parameters"),
    ],
)
def test_an_altered_model_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(ModelRefusedError, match=reason):
        check_model(text, "model.txt")


def test_the_engine_refuses_it_before_the_library_reads_it(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_bytes(altered("left_child", first("0")))
    with pytest.raises(ModelRefusedError, match="is not a tree: a branch has two parents"):
        load_engine(tmp_path, Settings(model_name="model"))
