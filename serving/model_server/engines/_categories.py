"""Columns of categories in a boosted model: from what a caller writes to the code that its trees compare.

XGBoost (3.1 and later) and LightGBM keep the categories of pandas columns in the model's file; a category's
code is its place among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from model_server.engines import Tensors
from model_server.problems import Fault, invalid
from model_server.signature import EXAMPLES, Tensor
from model_server.validation import MAX_FAULTS

__all__ = ["Categorical", "Encoder"]

# None and NaN are missing values.
Category = str | float | None


@dataclass(frozen=True, slots=True)
class Categorical:
    """One column: its name, and its categories in the order of their codes; None for a column of numbers."""

    name: str
    categories: tuple[Category, ...] | None = None

    def tensor(self, datatype: str) -> Tensor:
        """The input of this column. Numbers have the model's own datatype."""
        if self.categories is None:
            return Tensor(self.name, datatype, (-1,))
        texts = all(isinstance(category, str) for category in self.categories)
        examples = tuple(str(category) for category in self.categories[:EXAMPLES])
        return Tensor(self.name, "BYTES" if texts else datatype, (-1,), examples=examples, nullable=texts)


class Encoder:
    """Turns a tensor a column into the matrix of codes and numbers that the trees were grown on.

    Args:
        columns: the model's columns, in order.
        datatype: of the matrix, in Open Inference's words.
        unseen: what an unknown category is: refused (XGBoost), or a missing value (LightGBM).
    """

    def __init__(
        self, columns: Sequence[Categorical], datatype: str, unseen: Literal["refused", "missing"]
    ) -> None:
        self.tensors = tuple(column.tensor(datatype) for column in columns)
        self._codes = [
            None
            if column.categories is None
            else {category: code for code, category in enumerate(column.categories)}
            for column in columns
        ]
        self._refuses = unseen == "refused"

    def matrix(self, inputs: Tensors) -> np.ndarray[Any, Any]:
        """The rows [rows, columns]. Raises ProblemError for a category that the model does not know."""
        first = self.tensors[0]
        rows = np.empty(
            (len(inputs[first.name]), len(self.tensors)), np.float32 if self._single else np.float64
        )
        for at, (tensor, codes) in enumerate(zip(self.tensors, self._codes, strict=True)):
            values = inputs[tensor.name]
            rows[:, at] = values if codes is None else self._encoded(tensor, values.tolist(), codes)
        return rows

    @property
    def _single(self) -> bool:
        return all(tensor.datatype in ("FP32", "BYTES") for tensor in self.tensors)

    def _encoded(self, tensor: Tensor, values: list[Category], codes: dict[Category, int]) -> list[float]:
        encoded = [codes.get(value, np.nan) for value in values]
        if self._refuses:
            faults = [
                Fault(f"{value!r} is not one of the model's {len(codes)} categories", tensor.name, row)
                for row, (value, code) in enumerate(zip(values, encoded, strict=True))
                # NaN alone differs from itself; it is a missing value, as null is.
                if code != code and value == value and value is not None
            ]
            if faults:
                raise invalid(*faults[:MAX_FAULTS])
        return encoded
