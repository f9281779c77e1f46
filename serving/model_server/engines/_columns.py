"""What the columns of a fitted scikit-learn estimator hold, found in the estimator itself.

A pipeline says which of its columns are texts: an encoder keeps the categories that it was fitted with, an
imputer the value that it fills in, a vectorizer its vocabulary. What no part names is taken for a number.
The parts that see a column first also say whether a text may be missing, and how that is marked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_server.engines import Tensors
from model_server.problems import SignatureNeededError
from model_server.signature import EXAMPLES, Tensor

__all__ = ["Columns", "columns_of"]

# Parts that hold the estimator which sees the columns, in the order in which they are looked at.
_INNER = ("best_estimator_", "regressor_", "estimator_", "_preprocessor")
_OUTPUT = {"name": "predictions", "datatype": "FP64", "shape": [-1]}
_REFUSED = object()
_INNER_LISTS = ("estimators_", "calibrated_classifiers_")


@dataclass(frozen=True, slots=True)
class Known:
    """What a part of the estimator knows of one column."""

    datatype: str
    examples: tuple[str, ...] = ()


# What a column of texts has where a text is missing: None, NaN or pandas.NA, as the estimator was fitted.
Missing = Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """The inputs of an estimator, and how they become its argument."""

    tensors: tuple[Tensor, ...]
    assemble: Callable[[Tensors], Any]


def columns_of(estimator: Any) -> Columns:
    """The inputs: one text a row, one matrix of numbers, or a tensor a column where some are texts.

    Raises SignatureNeededError where the estimator does not say how many features it takes.
    """
    if _reads_texts(estimator):
        tensor = Tensor("text", "BYTES", (-1,))
        return Columns((tensor,), lambda inputs: inputs["text"])
    named = tuple(str(name) for name in getattr(estimator, "feature_names_in_", ()))
    width = _width(estimator)
    known = dict(_known(estimator, named or tuple(range(width))))
    if all(one.datatype == "FP64" for one in known.values()):
        tensor = Tensor("input", "FP64", (-1, width), named)
        return Columns((tensor,), _frame(tensor) if _selects_by_name(estimator) else _matrix)
    dropped = _dropped(estimator, named)
    names = [name for name in (named or [f"x{i}" for i in range(width)]) if name not in dropped]
    found = [known.get(name if named else index, Known("FP64")) for index, name in enumerate(names)]
    missing = dict(_missing(estimator, named or tuple(range(width))))
    if not named:
        missing = {f"x{index}": marker for index, marker in missing.items()}
    tensors = tuple(
        Tensor(
            name,
            one.datatype,
            (-1,),
            examples=one.examples,
            nullable=one.datatype == "BYTES" and name in missing,
        )
        for name, one in zip(names, found, strict=True)
    )
    return Columns(tensors, _named_columns(missing) if named else _object_matrix(missing))


def assemble_for(tensors: Sequence[Tensor], estimator: Any) -> Callable[[Tensors], Any]:
    """How the inputs of a signature.json become the estimator's argument."""
    if len(tensors) > 1:
        named = tuple(str(name) for name in getattr(estimator, "feature_names_in_", ()))
        markers = {tensor.name: np.nan for tensor in tensors if tensor.nullable}
        return _named_columns(markers | dict(_missing(estimator, named)))
    return _frame(tensors[0]) if _selects_by_name(estimator) else _matrix


def _matrix(inputs: Tensors) -> Any:
    (only,) = inputs.values()
    return only


def _frame(tensor: Tensor) -> Callable[[Tensors], Any]:
    import pandas

    columns = list(tensor.columns)
    return lambda inputs: pandas.DataFrame(inputs[tensor.name], columns=columns, copy=False)


def _named_columns(missing: Missing) -> Callable[[Tensors], Any]:
    import pandas

    def assemble(inputs: Tensors) -> Any:
        columns: dict[str, Any] = {}
        for name, array in inputs.items():
            column = array.reshape(len(array))
            texts = _with_markers(column, missing[name]) if name in missing else None
            # Of objects, or pandas would make one kind of missing value of all.
            columns[name] = column if texts is None else pandas.Series(texts, dtype=object)
        return pandas.DataFrame(columns)

    return assemble


def _object_matrix(missing: Missing) -> Callable[[Tensors], Any]:
    def assemble(inputs: Tensors) -> Any:
        columns = []
        for name, array in inputs.items():
            column = array.astype(object)
            texts = _with_markers(column, missing[name]) if name in missing else None
            columns.append(column if texts is None else texts)
        return np.stack(columns, axis=1)

    return assemble


def _with_markers(column: np.ndarray[Any, Any], marker: Any) -> np.ndarray[Any, Any] | None:
    """The column with the estimator's own mark for what is missing; None where nothing is."""
    if column.dtype != object or None not in (values := column.tolist()):
        return None
    texts = np.empty(len(values), dtype=object)
    texts[:] = [marker if value is None else value for value in values]
    return texts


def _width(estimator: Any) -> int:
    width = getattr(estimator, "n_features_in_", None)
    if width is None:
        raise SignatureNeededError(
            f"{type(estimator).__name__} does not say how many features it takes",
            {"inputs": [Tensor("input", "FP64", (-1, -1)).to_json()], "outputs": [_OUTPUT]},
        )
    return int(width)


# What the parts know


def _known(part: Any, columns: Sequence[Any]) -> Iterator[tuple[Any, Known]]:
    """(column, what is known of it), from the first part of an estimator that knows it."""
    if part is None or isinstance(part, str):  # "passthrough", "drop"
        return
    if hasattr(part, "transformers_"):  # ColumnTransformer
        for _, inner, chosen in part.transformers_:
            yield from _known(inner, _chosen(columns, chosen))
    elif hasattr(part, "steps"):  # Pipeline
        yield from _first(columns, _steps_that_see_columns(part.steps))
    elif hasattr(part, "transformer_list"):  # FeatureUnion: every part sees the same columns
        yield from _first(columns, (inner for _, inner in part.transformer_list))
    elif hasattr(part, "categories_") and len(part.categories_) == len(columns):
        for column, categories in zip(columns, part.categories_, strict=True):
            yield column, _categories(categories)
    elif _is_vectorizer(part):
        for column in columns:
            yield column, Known("BYTES")
    elif hasattr(part, "statistics_") and len(part.statistics_) == len(columns):  # SimpleImputer
        for column, value in zip(columns, part.statistics_, strict=True):
            if isinstance(value, str):
                yield column, Known("BYTES", (value,))
    else:
        yield from _first(columns, _inner(part))


def _first(columns: Sequence[Any], parts: Iterator[Any]) -> Iterator[tuple[Any, Known]]:
    """What the parts know, each column from the first that knows it."""
    found: dict[Any, Known] = {}
    for part in parts:
        for column, known in _known(part, columns):
            before = found.get(column)
            # An encoder behind an imputer knows more than the imputer's one value.
            if before is None or len(known.examples) > len(before.examples):
                found[column] = known
    yield from found.items()


def _missing(part: Any, columns: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """(column, its mark for a missing text) for the columns of which every part that sees them takes one."""
    if part is None or isinstance(part, str):
        return
    if hasattr(part, "transformers_"):  # ColumnTransformer
        used = [
            (inner, _chosen(columns, chosen))
            for _, inner, chosen in part.transformers_
            if not (isinstance(inner, str) and inner == "drop")
        ]
        yield from _agreed(used)
    elif hasattr(part, "steps"):  # Pipeline: the first that does anything
        steps = [step for _, step in part.steps if step is not None and not isinstance(step, str)]
        yield from _missing(steps[0] if steps else None, columns)
    elif hasattr(part, "transformer_list"):  # FeatureUnion
        yield from _agreed([(inner, columns) for _, inner in part.transformer_list])
    elif hasattr(part, "categories_") and len(part.categories_) == len(columns):
        lenient = getattr(part, "handle_unknown", "error") != "error"
        for column, categories in zip(columns, part.categories_, strict=True):
            values = np.asarray(categories, dtype=object).tolist()
            markers = [value for value in values if value is None or isinstance(value, float)]
            if markers or lenient:
                yield column, markers[0] if markers else np.nan
    elif hasattr(part, "statistics_") and len(part.statistics_) == len(columns):  # SimpleImputer
        marker = part.missing_values
        if not isinstance(marker, str | int):
            for column in columns:
                yield column, marker
    else:
        yield from _missing(next(_inner(part), None), columns)


def _agreed(parts: Sequence[tuple[Any, Sequence[Any]]]) -> Iterator[tuple[Any, Any]]:
    """What every part that sees a column says of it."""
    said: dict[Any, list[Any]] = {}
    for inner, columns in parts:
        markers = dict(_missing(inner, columns))
        for column in columns:
            said.setdefault(column, []).append(markers.get(column, _REFUSED))
    for column, each in said.items():
        # NaN equals nothing, so marks are told apart by how they are written.
        if _REFUSED not in each and len({repr(marker) for marker in each}) == 1:
            yield column, each[0]


def _steps_that_see_columns(steps: Sequence[tuple[str, Any]]) -> Iterator[Any]:
    """The steps up to the first that changes which columns there are."""
    from sklearn.base import OneToOneFeatureMixin

    for _, step in steps:
        yield step
        same = isinstance(step, str | OneToOneFeatureMixin) or hasattr(step, "statistics_")
        if not same and step is not None:
            return


def _inner(part: Any) -> Iterator[Any]:
    for name in _INNER:
        if hasattr(part, name):
            yield getattr(part, name)
    for name in _INNER_LISTS:
        held = getattr(part, name, None)
        if isinstance(held, list) and held:
            yield getattr(held[0], "estimator", held[0])


def _categories(categories: Any) -> Known:
    values = np.asarray(categories)
    if values.dtype.kind == "b":
        return Known("BOOL")
    if values.dtype.kind in "OUST":
        texts = [value for value in values.tolist() if isinstance(value, str)]
        return Known("BYTES", tuple(texts[:EXAMPLES])) if texts else Known("FP64")
    return Known("FP64", tuple(str(value) for value in values.tolist()[:EXAMPLES]))


def _chosen(columns: Sequence[Any], chosen: Any) -> list[Any]:
    """The columns that a ColumnTransformer gives to one of its parts: names, positions, a mask or a slice."""
    if isinstance(chosen, str):
        return [chosen]
    if isinstance(chosen, slice):
        return list(_sliced(columns, chosen))
    if isinstance(chosen, int | np.integer):
        return [columns[int(chosen)]]
    items = list(chosen)
    if items and isinstance(items[0], bool | np.bool_):
        return [column for column, taken in zip(columns, items, strict=True) if taken]
    return [item if isinstance(item, str) else columns[item] for item in items]


def _sliced(columns: Sequence[Any], chosen: slice) -> Sequence[Any]:
    if isinstance(chosen.start, str) or isinstance(chosen.stop, str):  # labels, the last one included
        start = columns.index(chosen.start) if chosen.start is not None else 0
        stop = columns.index(chosen.stop) + 1 if chosen.stop is not None else len(columns)
        return columns[start : stop : chosen.step or 1]
    return columns[chosen]


def _is_vectorizer(part: Any) -> bool:
    """Whether a part takes texts: CountVectorizer and similar ones, which read `input` as content."""
    return hasattr(part, "build_analyzer") and getattr(part, "input", "") == "content"


def _reads_texts(estimator: Any) -> bool:
    """Whether the whole input is one text a row: a vectorizer, or a pipeline that begins with one."""
    if _is_vectorizer(estimator):
        return True
    if hasattr(estimator, "steps"):
        return _reads_texts(estimator.steps[0][1])
    if hasattr(estimator, "transformer_list"):
        return all(_reads_texts(part) for _, part in estimator.transformer_list)
    return any(_reads_texts(part) for part in _inner(estimator))


def _dropped(estimator: Any, named: Sequence[str]) -> set[str]:
    """The named columns that a ColumnTransformer in front drops: callers need not send them."""
    if not named:
        return set()
    front = estimator
    while front is not None and not hasattr(front, "transformers_"):
        front = front.steps[0][1] if hasattr(front, "steps") else next(_inner(front), None)
    transformers: Sequence[tuple[str, Any, Any]] = getattr(front, "transformers_", ())
    used = {
        column
        for _, part, chosen in transformers
        if not (isinstance(part, str) and part == "drop")
        for column in _chosen(named, chosen)
    }
    return set(named) - used if transformers else set()


def _selects_by_name(estimator: Any) -> bool:
    parameters: Mapping[str, Any] = (
        estimator.get_params(deep=True) if hasattr(estimator, "get_params") else {}
    )
    return any(
        isinstance(column, str)
        for part in (estimator, *parameters.values())
        for _, _, chosen in getattr(part, "transformers", None) or ()
        for column in ([chosen] if isinstance(chosen, str) else _texts(chosen))
    )


def _texts(chosen: Any) -> Sequence[Any]:
    return list(chosen) if isinstance(chosen, list | tuple | np.ndarray) else ()
