"""Checks a LightGBM model's text before the library reads it.

The library trusts its own files: a truncated one crashes the process, a tree whose branches form a cycle
keeps a prediction walking for ever, and an index out of range reads memory that is not the model's. Here
each tree must be a tree, and every index must point into its own list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from model_server.problems import ModelRefusedError

_END = b"end of trees"
_MOST_LINES = 22  # of one tree: the library reads no further
_CATEGORICAL = 1  # the bit of decision_type
_PARAMETERS, _PARAMETERS_END = b"\nparameters:", b"\nend of parameters"
_PARAMETER = re.compile(rb"\[[^\[\]:\n]+: [^\n]*\]")
_INTEGER = re.compile(rb"-?[0-9]{1,9}")
_Fields = Mapping[bytes, bytes]
_Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]


class _BrokenError(Exception):
    """What is wrong, without the name of the file."""


def check_model(text: bytes, name: str) -> None:
    """Raise ModelRefusedError where the library could crash or never return. `name` is the file's."""
    try:
        start = text.find(b"\nTree=") + 1
        end = text.find(b"\n" + _END)
        if not 0 < start < end:
            raise _BrokenError(f"it ends before the line '{_END.decode()}': the file is cut short")
        header = _fields(text[:start].split(b"\n")[1:], "its header")
        features = _whole(header, b"max_feature_idx", "its header") + 1
        if features < 1 or len(header.get(b"feature_names", b"").split()) != features:
            raise _BrokenError("its header does not name each of its features")
        trees = list(_trees(text[start : end + 1]))
        _check_header(header, trees)
        for number, tree in enumerate(trees):
            _check_tree(tree, number, features)
        _check_parameters(text[end:])
    except _BrokenError as error:
        raise ModelRefusedError(f"{name} is not a readable LightGBM model: {error}") from None


def _trees(text: bytes) -> Iterator[bytes]:
    """The text of each tree, from its own first line to the next one's."""
    starts = [0, *(found.start() + 1 for found in re.finditer(rb"\nTree=", text)), len(text)]
    for number, (start, end) in enumerate(pairwise(starts)):
        tree = text[start:end]
        if not tree.startswith(b"Tree=%d\n" % number):
            raise _BrokenError(f"tree {number} is missing")
        yield tree


def _check_header(header: _Fields, trees: Sequence[bytes]) -> None:
    each = _whole(header, b"num_tree_per_iteration", "its header")
    if each < 1 or len(trees) % each or _whole(header, b"num_class", "its header") < 1:
        raise _BrokenError(f"its header says {each} trees an iteration, and it has {len(trees)}")
    if b"tree_sizes" in header:
        sizes = _integers(header, b"tree_sizes", "its header", len(trees))
        if sizes.tolist() != [len(tree) for tree in trees]:
            raise _BrokenError("its trees do not have the sizes that its header says: the file was altered")


def _check_parameters(text: bytes) -> None:
    """The training parameters behind the trees, which the library parses too."""
    if _PARAMETERS not in text:
        return
    inside, end, _ = text.partition(_PARAMETERS)[2].partition(_PARAMETERS_END)
    if not end:
        raise _BrokenError("it ends before the line 'end of parameters': the file is cut short")
    if not all(map(_PARAMETER.fullmatch, filter(None, inside.split(b"\n")))):
        raise _BrokenError("one of its training parameters is not '[name: value]'")


def _check_tree(text: bytes, number: int, features: int) -> None:
    where = f"tree {number}"
    lines = text.split(b"\n")[1:]
    if b"" not in lines or lines.index(b"") > _MOST_LINES or any(lines[lines.index(b"") :]):
        raise _BrokenError(f"{where} does not end as a tree does")
    fields = _fields(lines[: lines.index(b"")], where)
    leaves = _whole(fields, b"num_leaves", where)
    if leaves < 1:
        raise _BrokenError(f"{where} has {leaves} leaves")
    _listed(fields, b"leaf_value", where, leaves)
    if leaves > 1:
        nodes = leaves - 1
        _check_range(_integers(fields, b"split_feature", where, nodes), features, f"{where}: split_feature")
        _listed(fields, b"threshold", where, nodes)
        _check_shape(
            _integers(fields, b"left_child", where, nodes),
            _integers(fields, b"right_child", where, nodes),
            where,
        )
        _check_categories(fields, where, nodes)
    if fields.get(b"is_linear", b"0") != b"0":
        _check_linear(fields, where, leaves, features)


def _check_shape(left: _Numbers, right: _Numbers, where: str) -> None:
    """Every node but the root, and every leaf, has one parent, and the root leads to all of them."""
    nodes = len(left)
    children = np.concatenate([left, right])
    inner, outer = children[children >= 0], -children[children < 0] - 1
    _check_range(inner, nodes, f"{where}: a branch")
    _check_range(outer, nodes + 1, f"{where}: a leaf")
    parents = np.bincount(inner, minlength=nodes)
    single = parents[0] == 0 and (parents[1:] == 1).all()
    if not single or not (np.bincount(outer, minlength=nodes + 1) == 1).all():
        raise _BrokenError(f"{where} is not a tree: a branch has two parents, or leads back to itself")
    seen, row = 1, np.zeros(1, np.int64)
    while len(row):  # ends: no node is reached twice
        below = np.concatenate([left[row], right[row]])
        row = below[below >= 0]
        seen += len(row)
    if seen != nodes:
        raise _BrokenError(f"{where} is not a tree: {nodes - seen} branches cannot be reached")


def _check_categories(fields: _Fields, where: str, nodes: int) -> None:
    """A categorical split's threshold is an index into lists of its own."""
    kinds = _integers(fields, b"decision_type", where, nodes) if b"decision_type" in fields else None
    count = _whole(fields, b"num_cat", where) if b"num_cat" in fields else 0
    if count > 0:
        bounds = _integers(fields, b"cat_boundaries", where, count + 1)
        words = len(fields.get(b"cat_threshold", b"").split())
        if bounds[0] != 0 or (np.diff(bounds) < 0).any() or bounds[-1] != words:
            raise _BrokenError(f"{where}: cat_boundaries do not fit cat_threshold")
    if kinds is None or not (kinds & _CATEGORICAL).any():
        return
    thresholds = np.array([_number(word, where) for word in fields[b"threshold"].split()])
    _check_range(thresholds[(kinds & _CATEGORICAL) > 0], count, f"{where}: a categorical threshold")


def _check_linear(fields: _Fields, where: str, leaves: int, features: int) -> None:
    _listed(fields, b"leaf_const", where, leaves)
    counts = _integers(fields, b"num_features", where, leaves)
    if (counts < 0).any():
        raise _BrokenError(f"{where}: num_features is negative")
    total = int(counts.sum())
    _listed(fields, b"leaf_coeff", where, total)
    _check_range(_integers(fields, b"leaf_features", where, total), features, f"{where}: leaf_features")


def _fields(lines: Sequence[bytes], where: str) -> _Fields:
    found: dict[bytes, bytes] = {}
    for line in lines:
        key, equals, value = line.partition(b"=")
        if not line or (not equals and where == "its header"):  # a blank line, or a flag
            continue
        if not equals or key in found or b"\r" in line:
            raise _BrokenError(f"{where} has a line that is not a field, or has one twice")
        found[key] = value
    return found


def _listed(fields: _Fields, key: bytes, where: str, count: int) -> list[bytes]:
    words = fields.get(key, b"").split(b" ")
    words = [word for word in words if word]
    if len(words) != count:
        raise _BrokenError(f"{where}: {key.decode()} has {len(words)} values, expected {count}")
    return words


def _integers(fields: _Fields, key: bytes, where: str, count: int) -> _Numbers:
    words = _listed(fields, key, where, count)
    if not all(map(_INTEGER.fullmatch, words)):
        raise _BrokenError(f"{where}: {key.decode()} holds what is not a whole number")
    return np.array(words, dtype=np.int64) if words else np.zeros(0, np.int64)


def _whole(fields: _Fields, key: bytes, where: str) -> int:
    value = fields.get(key, b"")
    if not _INTEGER.fullmatch(value):
        raise _BrokenError(f"{where} has no {key.decode()}")
    return int(value)


def _number(word: bytes, where: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise _BrokenError(f"{where}: threshold holds what is not a number") from None


def _check_range(values: np.ndarray[Any, Any], size: int, what: str) -> None:
    """0 to size - 1; NaN is not in it."""
    if not ((values >= 0) & (values < size)).all():
        raise _BrokenError(f"{what} is out of range")
