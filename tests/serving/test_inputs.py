"""Inputs against the signature: what has no values, or is nested as it should not be, reaches no engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from model_server.problems import ProblemError
from model_server.signature import Signature, Tensor
from model_server.validation import InputReader


def reader(*shape: int) -> InputReader:
    return InputReader(Signature((Tensor("X", "FP32", shape),), ()))


def flat(data: Any, *shape: int) -> np.ndarray:
    found = reader(*shape)
    assert found.only is not None
    return found.flat(found.only, data, shape)


@pytest.mark.parametrize(
    ("read", "row", "message"),
    [
        (lambda: reader(-1, 3, -1, -1).rows([[[], [], []]]), 0, "at least one value in dimension 2"),
        (lambda: reader(-1, 2, -1).rows([[[], []], [[1], [2]]]), 0, "at least one value in dimension 2"),
        (lambda: reader(-1, -1).rows([[]]), 0, "at least one value"),
        (lambda: reader(-1, -1).rows([[], [1]]), 0, "at least one value"),
        (lambda: reader(-1, -1).rows([[1], []]), 1, "must have 1 values, not 0"),
        (lambda: reader(-1, 3).columnar({"X": []}), None, "there are no rows"),
        (lambda: reader(-1, 3).columnar({"X": {}}), None, "must be a list of rows, not an object"),
        (lambda: flat([[1, 2], [3, 4, 5, 6]], 2, 3), 0, "must have 3 values, not 2"),
        (lambda: flat([[1, 2, 3], [4, 5]], 2, 3), 1, "must have 3 values, not 2"),
        (lambda: flat([[1, 2, 3], 4], 2, 3), 1, "must be a list of 3 values, not a number"),
        (lambda: flat([[[1, 2], [3]], [[4], [5, 6]]], 2, 2, 2), 0, "must have 2 values in dimension 2"),
        (lambda: flat([[1, 2], [3, 4], [5, 6]], 2, 3), None, "data has 3 rows, but shape [2, 3] has 2"),
        (lambda: flat([1, 2, 3, 4, 5], 2, 3), None, "data has 5 values, but shape [2, 3] has 6"),
        (lambda: flat([1, 2, 3, [4], 5, 6], 2, 3), 1, "must be a number, not a list"),
    ],
)
def test_what_is_empty_or_ragged_is_refused_with_its_field_and_row(
    read: Callable[[], object], row: int | None, message: str
) -> None:
    with pytest.raises(ProblemError) as caught:
        read()
    assert caught.value.status == 422
    fault = caught.value.errors[0]
    assert (str(fault.field).partition("[")[0], fault.row) == ("X", row)
    assert message in fault.message


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]])
def test_data_is_flat_or_nested_as_its_shape(data: list[Any]) -> None:
    assert flat(data, 2, 3).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_dimension_that_the_request_chooses_is_the_first_rows() -> None:
    assert reader(-1, -1).rows([[1, 2], [3, 4]])["X"].shape == (2, 2)
    assert reader(-1, 1, -1).rows([[[1, 2, 3]]])["X"].shape == (1, 1, 3)
