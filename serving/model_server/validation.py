"""Inputs against the signature, before they reach the engine.

The common case, rows of plain numbers for one matrix, is one call of `struct`, which checks width, type and
range while it packs. What that refuses is examined value by value: for a missing value that the model allows,
or for a fault with its row and field. The two belong together, which makes the file longer than others.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Any

import numpy as np

from model_server.engines import Tensors
from model_server.problems import Fault, ProblemError, invalid
from model_server.signature import DATATYPES, Signature, Tensor

Array = np.ndarray[Any, Any]

MAX_FAULTS = 20  # as many as help a caller; a body can hold millions

# BOOL is missing: struct would take any object for its truth.
_CODES = {
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
}
_UNFIT = (struct.error, TypeError, OverflowError)


class InputReader:
    """Turns decoded bodies into the engine's tensors; every method raises ProblemError for a misfit."""

    def __init__(self, signature: Signature, *, nan: bool = True, packs: bool = True) -> None:
        self.signature = signature
        self.only = signature.inputs[0] if len(signature.inputs) == 1 else None
        self._nan = nan
        self._pick: Callable[[Any], Any] | None = None
        self._code, self._width = "", 0
        if self.only is not None:
            width = self.only.shape[1] if len(self.only.shape) == 2 else -1
            if packs and width > 0 and self.only.datatype in _CODES:
                self._code, self._width = _CODES[self.only.datatype], width
                self._row = struct.Struct(f"={width}{self._code}")
            columns = self.only.columns
            if columns:
                get = itemgetter(*columns)
                self._pick = get if len(columns) > 1 else lambda row: (get(row),)

        self._packs = packs
        # For bodies that hold true or false, which struct takes for 1 and 0.
        self.careful = InputReader(signature, nan=nan, packs=False) if packs else self

    # What bodies hold

    def rows(self, rows: Any) -> Tensors:
        """One entry a row: a list of values, an object of column to value, or a single value."""
        if type(rows) is not list:
            raise invalid(Fault(f"rows must be a list, not {_kind(rows)}"))
        if not rows:
            raise invalid(Fault("there are no rows"))
        if self.only is None:
            return self._several(rows)
        if type(rows[0]) is dict:
            rows = (
                self._by_column(rows) if self._pick else [self._named(row, i) for i, row in enumerate(rows)]
            )
        return {self.only.name: self.values(self.only, rows)}

    def split(self, columns: Any, data: Any) -> Tensors:
        """pandas' split form: names once, then rows."""
        if type(columns) is not list or not all(type(name) is str for name in columns):
            raise invalid(Fault("must be a list of names", "columns"))
        if type(data) is not list or not data:
            raise invalid(Fault("must be a list of rows", "data"))
        wanted = self.columns
        if not wanted:
            raise invalid(Fault("this model has no column names; send the rows alone", "columns"))
        _refuse(_name_faults(columns, wanted, "column"))
        _refuse(Fault("is there twice", name) for name, count in Counter(columns).items() if count > 1)
        self._check_widths(data, len(columns))
        if columns != list(wanted):
            order = [columns.index(name) for name in wanted]
            data = [[row[i] for i in order] for row in data]
        return self.rows(data)

    def columnar(self, named: Mapping[str, Any]) -> Tensors:
        """Input name to its values, every input with the same number of rows."""
        _refuse(_name_faults(named, tuple(tensor.name for tensor in self.signature.inputs), "input"))
        return self.same_rows({t.name: self.values(t, named[t.name]) for t in self.signature.inputs})

    def arrays(self, arrays: Mapping[str, Array]) -> Tensors:
        """Named numpy arrays; a single array without the model's own name for it (npy) is the only input."""
        if self.only is not None and len(arrays) == 1:
            arrays = {self.only.name: next(iter(arrays.values()))}
        known = {tensor.name: tensor for tensor in self.signature.inputs}
        _refuse(_name_faults(arrays, tuple(known), "input"))
        return self.same_rows({name: self.array(tensor, arrays[name]) for name, tensor in known.items()})

    @property
    def columns(self) -> tuple[str, ...]:
        """The names that a row's values go by: columns of the only input, or the inputs themselves."""
        return self.only.columns if self.only is not None else tuple(t.name for t in self.signature.inputs)

    # One tensor

    def values(self, tensor: Tensor, rows: Any) -> Array:
        """A tensor [rows, ...] from nested lists, a row each."""
        if self._code and tensor is self.only and rows:
            try:
                return self._packed(rows)
            except _UNFIT:
                pass  # a missing value, or a fault: looked at below
        if type(rows) is not list:
            raise invalid(Fault(f"must be a list of rows, not {_kind(rows)}", tensor.name))
        if not rows:
            raise invalid(Fault("there are no rows", tensor.name))
        return self._nested(tensor, rows, tensor.shape[1:])

    def flat(self, tensor: Tensor, data: Any, shape: Sequence[int]) -> Array:
        """A tensor of the given shape from Open Inference's `data`: flat, or nested as the shape is."""
        if type(data) is not list:
            raise invalid(Fault(f"data must be a list, not {_kind(data)}", tensor.name))
        count = 1
        for size in shape:
            count *= size
        code = _CODES.get(tensor.datatype) if self._packs else None
        if code and len(data) == count:
            buffer = bytearray(count * tensor.dtype.itemsize)
            try:
                struct.pack_into(f"={count}{code}", buffer, 0, *data)
                return np.ndarray(tuple(shape), tensor.dtype, buffer)
            except _UNFIT:
                pass
        if data and type(data[0]) is list and shape[1:]:
            if len(data) != shape[0]:
                raise invalid(
                    Fault(f"data has {len(data)} rows, but shape {list(shape)} has {shape[0]}", tensor.name)
                )
            return self._nested(tensor, data, shape[1:])
        if len(data) != count:
            raise invalid(
                Fault(f"data has {len(data)} values, but shape {list(shape)} has {count}", tensor.name)
            )
        return self._scalars(tensor, data, max(count // max(shape[0], 1), 1)).reshape(tuple(shape))

    def array(self, tensor: Tensor, array: Array) -> Array:
        """A numpy array, cast where nothing is lost but precision, and checked; it can be written to."""
        self.check_shape(tensor, array.shape)
        if tensor.datatype == "BYTES":
            if array.dtype.kind == "U":
                return array.astype(object)
            if array.dtype.kind != "O":
                raise invalid(Fault(f"must be strings, not {array.dtype}", tensor.name))
            return array
        kinds = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}[tensor.dtype.kind]
        if array.dtype.kind not in kinds:
            raise invalid(Fault(f"must be {tensor.datatype}, not {array.dtype}", tensor.name))
        with np.errstate(over="ignore"):
            cast = np.array(array, dtype=tensor.dtype, order="C")
        if tensor.dtype.kind == "f":
            self._check_finite(tensor, cast, array)
        elif array.dtype != tensor.dtype and tensor.dtype.kind in "iu" and not np.array_equal(cast, array):
            row = int(np.argwhere(cast != array)[0][0])
            raise invalid(Fault(f"is out of range for {tensor.datatype}", tensor.name, row))
        return cast

    def check_shape(self, tensor: Tensor, shape: Sequence[int]) -> None:
        fits = len(shape) == len(tensor.shape) and all(
            want in (-1, got) for want, got in zip(tensor.shape, shape, strict=True)
        )
        if not fits:
            raise invalid(Fault(f"must have shape {list(tensor.shape)}, not {list(shape)}", tensor.name))
        if not shape or 0 in shape:
            raise invalid(Fault("there are no rows" if shape and shape[0] == 0 else "is empty", tensor.name))

    def same_rows(self, tensors: Tensors) -> Tensors:
        counts = {name: len(array) for name, array in tensors.items()}
        if len(set(counts.values())) > 1:
            raise invalid(Fault(f"inputs differ in their number of rows: {counts}"))
        return tensors

    # The parts

    def _packed(self, rows: list[Any]) -> Array:
        """Rows of plain numbers, one at a time: all at once would be one very long argument list."""
        assert self.only is not None
        pack = self._row.pack
        buffer = bytearray().join([pack(*row) for row in rows])
        return np.ndarray((len(rows), self._width), self.only.dtype, buffer)

    def _nested(self, tensor: Tensor, rows: list[Any], sizes: Sequence[int]) -> Array:
        """Rows whose lists are nested as `sizes` say; -1 is what the first row has there."""
        flat, shape, each = rows, [len(rows)], 1
        for depth, size in enumerate(sizes, start=1):
            wanted = size if size > 0 else (len(flat[0]) if type(flat[0]) is list else -1)
            if not wanted:
                raise invalid(Fault("must have at least one value" + _where(depth), tensor.name, 0))
            _refuse(
                _misfit(tensor, item, wanted, i // each, depth)
                for i, item in enumerate(flat)
                if type(item) is not list or len(item) != wanted
            )
            flat = list(chain.from_iterable(flat))
            shape.append(wanted)
            each *= wanted
        return self._scalars(tensor, flat, each).reshape(shape)

    def _by_column(self, rows: list[Any]) -> list[Any]:
        assert self._pick is not None and self.only is not None
        columns = self.only.columns
        try:
            picked = [self._pick(row) for row in rows]
            if set(map(len, rows)) == {len(columns)}:
                return [list(row) for row in picked]
        except (KeyError, TypeError, IndexError):
            pass
        _refuse(fault for i, row in enumerate(rows) for fault in _key_faults(row, columns, i, "column"))
        raise invalid(Fault("rows do not fit the model's columns"))  # unreachable: some row did not

    def _named(self, row: Any, i: int) -> Any:
        """The value of the only input in a row that names it: {"text": "..."}."""
        assert self.only is not None
        _refuse(_key_faults(row, (self.only.name,), i, "input"))
        return row[self.only.name]

    def _several(self, rows: list[Any]) -> Tensors:
        names = self.columns
        _refuse(fault for i, row in enumerate(rows) for fault in _row_faults(row, names, i))
        tensors: Tensors = {}
        for at, tensor in enumerate(self.signature.inputs):
            column = [row[tensor.name] if type(row) is dict else row[at] for row in rows]
            if tensor.shape[1:] == (1,) and type(column[0]) is not list:
                column = [[value] for value in column]
            tensors[tensor.name] = self.values(tensor, column)
        return tensors

    def _check_widths(self, rows: list[Any], width: int) -> None:
        _refuse(
            Fault(f"must have {width} values, not {len(row) if type(row) is list else _kind(row)}", None, i)
            for i, row in enumerate(rows)
            if type(row) is not list or len(row) != width
        )

    def _scalars(self, tensor: Tensor, flat: list[Any], each: int) -> Array:
        """Values, `each` of them a row, to a flat array of the tensor's dtype."""
        kinds = set(map(type, flat))
        kind = tensor.dtype.kind
        if kind == "O":
            if kinds <= {str} or (tensor.nullable and self._nan and kinds <= {str, type(None)}):
                array = np.empty(len(flat), dtype=object)
                array[:] = flat
                return array
        elif kind == "f":
            missing = {type(None)} if self._nan and tensor.nan else set()
            if kinds <= {float, int} | missing:
                try:
                    with np.errstate(over="ignore"):
                        array = np.array(flat, dtype=np.float64).astype(tensor.dtype)
                except OverflowError:
                    raise invalid(Fault(f"is out of range for {tensor.datatype}", tensor.name)) from None
                if not np.isinf(array).any():
                    return array
        elif kinds <= ({int, float, bool} if kind == "b" else {int, float}):
            try:
                array = np.array(
                    [_whole(value) for value in flat], dtype=np.int64 if kind == "b" else tensor.dtype
                )
                if kind != "b":
                    return array
                if set(np.unique(array)) <= {0, 1}:
                    return array.astype(np.bool_)
            except (OverflowError, ValueError):
                pass
        raise invalid(*self._faults(tensor, flat, each))

    def _faults(self, tensor: Tensor, flat: Iterable[Any], each: int) -> list[Fault]:
        faults = []
        for i, value in enumerate(flat):
            message = self._fault(tensor, value)
            if message:
                faults.append(Fault(message, _field(tensor, i % each, each), i // each))
                if len(faults) == MAX_FAULTS:
                    break
        return faults or [Fault(f"is not {tensor.datatype}", tensor.name)]

    def _fault(self, tensor: Tensor, value: Any) -> str:
        kind = tensor.dtype.kind
        if kind == "O":
            if type(value) is str or (value is None and tensor.nullable and self._nan):
                return ""
            missing = "; this column takes no missing values" if value is None else ""
            return f"must be a string, not {_kind(value)}{missing}"
        if value is None and kind == "f":
            return (
                ""
                if self._nan and tensor.nan
                else "must be a number, not null; this model takes no missing values"
            )
        if type(value) not in ((int, float, bool) if kind == "b" else (int, float)):
            return f"must be a number, not {_kind(value)}"
        if kind == "b":
            return "" if value in (0, 1) else f"must be true or false, not {value}"
        if kind == "f":
            return (
                ""
                if abs(value) <= float(np.finfo(tensor.dtype).max)
                else f"{value} is out of range for {tensor.datatype}"
            )
        if value != int(value):
            return f"must be a whole number, not {value}"
        limits = np.iinfo(tensor.dtype)
        return "" if limits.min <= value <= limits.max else f"{value} is out of range for {tensor.datatype}"

    def _check_finite(self, tensor: Tensor, array: Array, given: Array) -> None:
        if np.isfinite(array).all():
            return
        infinite = np.isinf(array)
        if infinite.any():
            at = tuple(int(i) for i in np.argwhere(infinite)[0])
            problem = (
                "is infinite"
                if not np.isfinite(given[at])
                else f"{given[at]} is out of range for {tensor.datatype}"
            )
        elif self._nan and tensor.nan:
            return
        else:
            at = tuple(int(i) for i in np.argwhere(np.isnan(array))[0])
            problem = "is NaN; this model takes no missing values"
        each = array[0].size
        column = int(np.ravel_multi_index(at[1:], array.shape[1:])) if at[1:] else 0
        raise invalid(Fault(problem, _field(tensor, column, each), at[0]))


def datatype_of(array: Array) -> str:
    """The Open Inference name of an output's dtype. Raises ProblemError (500) for one that has none."""
    found = DATATYPES.get(array.dtype)
    if found is None:
        if array.dtype.kind in "US":
            return "BYTES"
        raise ProblemError(
            500, f"the model answered with {array.dtype}, which has no Open Inference datatype"
        )
    return found


def _whole(value: Any) -> int:
    if value != int(value):
        raise ValueError
    return int(value)


def _refuse(faults: Iterable[Fault]) -> None:
    """Raises for the first faults, if any. The rest, of which a body can hold millions, stay unknown."""
    found = list(islice(faults, MAX_FAULTS))
    if found:
        raise invalid(*found)


def _name_faults(
    given: Iterable[str], wanted: tuple[str, ...], what: str, i: int | None = None
) -> Iterator[Fault]:
    known, held = frozenset(wanted), frozenset(given)
    article = "an" if what[0] in "aeiou" else "a"
    yield from (
        Fault(f"is not {article} {what} of this model", name, i) for name in given if name not in known
    )
    yield from (Fault("is missing", name, i) for name in wanted if name not in held)


def _key_faults(row: Any, names: tuple[str, ...], i: int, what: str) -> Iterable[Fault]:
    if type(row) is not dict:
        return [Fault(f"must be an object, as the first row is, not {_kind(row)}", None, i)]
    return _name_faults(row, names, what, i)


def _row_faults(row: Any, names: tuple[str, ...], i: int) -> Iterable[Fault]:
    if type(row) is dict:
        return _key_faults(row, names, i, "input")
    if type(row) is list and len(row) == len(names):
        return ()
    got = f"{len(row)} values" if type(row) is list else _kind(row)
    return [Fault(f"must have {len(names)} values ({', '.join(names)}), not {got}", None, i)]


def _misfit(tensor: Tensor, item: Any, wanted: int, row: int, depth: int) -> Fault:
    if type(item) is not list:
        size = f"of {wanted} values" if wanted > 0 else "of values"
        return Fault(f"must be a list {size}, not {_kind(item)}", tensor.name, row)
    return Fault(f"must have {wanted} values{_where(depth)}, not {len(item)}", tensor.name, row)


def _where(depth: int) -> str:
    return "" if depth == 1 else f" in dimension {depth}"


def _field(tensor: Tensor, column: int, each: int) -> str:
    if tensor.columns and len(tensor.columns) == each:
        return tensor.columns[column]
    return tensor.name if each == 1 else f"{tensor.name}[{column}]"


def _kind(value: Any) -> str:
    """The value's type in JSON's words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
