"""Follows the instructions of a pickle as an unpickler would, without importing or calling anything.

The base is Python's own pure-Python unpickler, on which joblib's is built too, so that frames, the memo and
the position of the next instruction are the same. Each instruction that would import, call or fill something
is replaced, and its result is an inert placeholder. What the policy does not allow is a finding, and so is
each way of building an array that joblib does not use: an array's raw bytes are in the middle of the stream,
and a reader that is wrong about where they end reads other instructions than the loader does.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, Protocol

from modelstacks.adapters.pickles.policy import ARRAY_WRAPPER, CONTAINERS, Name, current, shown, uses

__all__ = ["Loader", "MalformedError", "Source", "follow"]

# Which loader reads the stream: `joblib` finds raw arrays in it, `torch` persistent ids, `pickle` neither.
Loader = Literal["pickle", "joblib", "torch"]

MOST_INSTRUCTIONS = 20_000_000
_HAS_OBJECT = 0x01  # of a numpy.dtype's flags; numpy/dtype_api.h
_OBJECT_FLAGS = 0x3F
_DTYPE = re.compile(r"[|<>=]?([biufcmMOSUV])([1-9]\d{0,9})")  # as numpy writes them, never "f" alone
_WIDTHS = {
    "b": {1},
    "i": {1, 2, 4, 8},
    "u": {1, 2, 4, 8},
    "f": {2, 4, 8, 12, 16},
    "c": {8, 16, 24, 32},
    "m": {8},
    "M": {8},
    "O": {8},
}
_EXTENDED = "SUV"  # types whose size is in their state, too
_LONGEST_KEPT = 1 << 16  # bytes; longer strings of bytes are an array's, and are not kept


class MalformedError(ValueError):
    """The unpickler would stop here with an error."""


class Source(Protocol):
    """A stream of bytes; reading past its end gives fewer."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def left(self) -> int: ...


@dataclass(eq=False)
class _Global:
    """A class or function that was named."""

    name: Name


@dataclass(eq=False)
class _Made:
    """What a call, or a class made empty, would have given."""

    of: Name
    arguments: tuple[Any, ...] = ()
    state: Any = None
    built: bool = False
    takes_state: bool = True


@dataclass(eq=False)
class _Unknown:
    """A value that is not examined: a set, or a mapping whose keys are not plain values."""

    kind: str = ""


@dataclass
class _Findings:
    """What a stream does that no model needs."""

    imports: set[Name] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    has_arrays: bool = False


def follow(source: Source, loader: Loader) -> tuple[set[str], bool]:
    """Follow one pickle to its STOP.

    Returns what it does that no model needs, and whether it holds raw arrays as joblib writes them.

    Raises:
        MalformedError: an unpickler would stop with an error before its end.
    """
    findings = _Findings()
    error: Exception | None = None
    try:
        _Machine(source, findings, loader).load()
    except Exception as fault:  # a hostile pickle may break the reader in any way
        error = fault
    said = findings.others | {f"imports {shown(name)}" for name in findings.imports}
    if error is not None and not said:
        raise MalformedError(_first_line(error)) from None
    if error is not None:
        said.add(f"cannot be read to its end ({_first_line(error)})")
    return said, findings.has_arrays


def _first_line(error: Exception) -> str:
    return ascii((str(error).splitlines() or [type(error).__name__])[0])[1:-1][:80]


_Unpickler: Any = pickle._Unpickler  # noqa: SLF001
_Opcode = Callable[["_Machine"], None]
_DISPATCH: dict[int, Any] = dict(_Unpickler.dispatch)


def _on(*opcodes: bytes) -> Callable[[_Opcode], _Opcode]:
    def register(method: _Opcode) -> _Opcode:
        for opcode in opcodes:
            _DISPATCH[opcode[0]] = method
        return method

    return register


class _Counted(dict[int, Any]):
    """The instructions by opcode; refuses a stream of more of them than a model has."""

    left = MOST_INSTRUCTIONS

    def __getitem__(self, opcode: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"more than {MOST_INSTRUCTIONS} instructions")
        if opcode not in self:
            raise pickle.UnpicklingError(f"an unknown instruction, 0x{opcode:02x}")
        return super().__getitem__(opcode)


class _Machine(_Unpickler):  # type: ignore[misc]
    def __init__(self, source: Source, findings: _Findings, loader: Loader) -> None:
        super().__init__(source)
        self._source, self._findings, self._loader = source, findings, loader
        self.dispatch = _Counted(_DISPATCH)

    def find_class(self, module: str, name: str) -> Any:
        if not uses((module, name)):
            self._findings.imports.add((module, name))
        return _Global(current((module, name)))

    def get_extension(self, code: int) -> None:
        self._find(f"uses extension code {code}")
        raise pickle.UnpicklingError(f"extension code {code}")

    def persistent_load(self, saved: Any) -> Any:
        """Only torch.save writes persistent ids: ("storage", its type, key, device, number of elements)."""
        if self._loader != "torch":
            raise pickle.UnpicklingError("a persistent id")
        known = isinstance(saved, tuple) and len(saved) in (5, 6) and saved[0] in ("storage", b"storage")
        if not known or not isinstance(saved[1], _Global):
            self._find("has a persistent id that torch.save does not write")
        return _Made(("torch.storage", "TypedStorage"), takes_state=False)

    # What makes something.

    @_on(pickle.REDUCE)
    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._called(self.stack[-1], arguments)

    @_on(pickle.NEWOBJ)
    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        self.append(self._new(self.stack.pop(), arguments, {}))

    @_on(pickle.NEWOBJ_EX)
    def load_newobj_ex(self) -> None:
        keywords, arguments = self.stack.pop(), self.stack.pop()
        self.append(self._new(self.stack.pop(), arguments, keywords))

    @_on(pickle.INST)
    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        self._instantiate(self.find_class(module, name), self.pop_mark())

    @_on(pickle.OBJ)
    def load_obj(self) -> None:
        arguments = self.pop_mark()
        self._instantiate(arguments.pop(0), arguments)

    def _instantiate(self, kind: Any, arguments: list[Any]) -> None:
        made = self._called(kind, tuple(arguments)) if arguments else self._new(kind, (), {})
        self.append(made)

    def _called(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            self._find("calls an object that it created")
            return _Unknown()
        self._hold(arguments)
        name = function.name
        if name == ("copyreg", "_reconstructor"):
            return self._reconstructed(arguments)
        allowed = uses(name)
        if "call" not in allowed and allowed:
            self._find(f"calls {shown(name)}")
        elif not _ARGUMENTS.get(name, _anything)(arguments):
            self._find(f"calls {shown(name)} in a way that no model does")
        return _Made(name, arguments)

    def _new(self, kind: Any, arguments: Any, keywords: Any) -> Any:
        if not isinstance(kind, _Global):
            self._find("calls an object that it created")
            return _Unknown()
        if kind.name == ARRAY_WRAPPER:
            if arguments != () or keywords != {}:
                self._find("builds an array in a way that joblib does not")
            return _Made(ARRAY_WRAPPER)
        if keywords != {}:
            self._find(f"calls {shown(kind.name)} with keywords")
        if arguments != () or keywords != {}:
            return self._called(kind, arguments)
        allowed = uses(kind.name)
        if "new" not in allowed and allowed:
            self._find(f"makes {shown(kind.name)}")
        return _Made(kind.name)

    def _reconstructed(self, arguments: tuple[Any, ...]) -> Any:
        """copyreg._reconstructor(class, base, state): how protocols 0 and 1 make an object."""
        if len(arguments) != 3 or not all(isinstance(kind, _Global) for kind in arguments[:2]):
            self._find("calls copyreg._reconstructor in a way that no model does")
            return _Unknown()
        kind, base, state = arguments
        if base.name == ("builtins", "object") and state is None:
            return self._new(kind, (), {})
        if base.name not in {("builtins", name) for name in ("dict", "list", "set", "tuple", "float", "int")}:
            self._find("calls copyreg._reconstructor in a way that no model does")
        return self._new(kind, (), {})

    # What fills something.

    @_on(pickle.BUILD)
    def load_build(self) -> None:
        state = self.stack.pop()
        self._hold([state])
        made = self.stack[-1]
        if not isinstance(made, _Made) or made.built or not made.takes_state:
            self._find("sets the state of something that is not a new object")
            return
        made.state, made.built = state, True
        if made.of == ("numpy", "dtype"):
            _item(made)
        if made.of == ARRAY_WRAPPER:
            self._findings.has_arrays = True
            if self._loader == "joblib":
                self._skip_array(state)
                self.stack[-1] = _Made(("numpy", "ndarray"), takes_state=False)
            elif self._holds_objects(state):
                raise pickle.UnpicklingError("an array of objects, which joblib.load alone reads")

    @_on(pickle.APPEND)
    def load_append(self) -> None:
        self._fill([self.stack.pop()])

    @_on(pickle.APPENDS, pickle.ADDITEMS)
    def load_appends(self) -> None:
        self._fill(self.pop_mark())

    def _fill(self, items: list[Any]) -> None:
        self._hold(items)
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not _is_container(target):
            self._find("adds items to something that is not a container")

    @_on(pickle.SETITEM)
    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    @_on(pickle.SETITEMS)
    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        self._hold(items)
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update(_pairs(items))
        elif not _is_container(target):
            self._find("adds items to something that is not a container")

    @_on(pickle.DICT)
    def load_dict(self) -> None:
        items = self.pop_mark()
        self._hold(items)
        self.append(_pairs(items))

    @_on(pickle.LIST)
    def load_list(self) -> None:
        items = self.pop_mark()
        self._hold(items)
        self.append(items)

    @_on(pickle.TUPLE)
    def load_tuple(self) -> None:
        items = self.pop_mark()
        self._hold(items)
        self.append(tuple(items))

    @_on(pickle.TUPLE1)
    def load_tuple1(self) -> None:
        self._tuple(1)

    @_on(pickle.TUPLE2)
    def load_tuple2(self) -> None:
        self._tuple(2)

    @_on(pickle.TUPLE3)
    def load_tuple3(self) -> None:
        self._tuple(3)

    def _tuple(self, size: int) -> None:
        items = tuple(self.stack[-size:])
        if len(items) != size:
            raise pickle.UnpicklingError("a tuple of what is not there")
        self._hold(items)
        self.stack[-size:] = [items]

    @_on(pickle.EMPTY_SET)
    def load_empty_set(self) -> None:
        self.append(_Unknown("set"))

    @_on(pickle.FROZENSET)
    def load_frozenset(self) -> None:
        self._hold(self.pop_mark())
        self.append(_Unknown())

    @_on(pickle.BINBYTES)
    def load_binbytes(self) -> None:
        self._bytes(4)

    @_on(pickle.BINBYTES8, pickle.BYTEARRAY8)
    def load_binbytes8(self) -> None:
        self._bytes(8)

    def _bytes(self, length: int) -> None:
        size = int.from_bytes(self.read(length), "little")
        data = self.read(size)
        if len(data) != size:
            raise EOFError("a string of bytes ends early")
        self.append(data if size <= _LONGEST_KEPT else _Unknown())

    # What is looked at.

    def _find(self, finding: str) -> None:
        self._findings.others.add(finding)

    def _hold(self, values: Iterable[Any]) -> None:
        """Values that become part of another: joblib's array wrapper never does."""
        for value in values:
            name = (
                value.name if isinstance(value, _Global) else value.of if isinstance(value, _Made) else None
            )
            if name == ARRAY_WRAPPER:
                self._find("builds an array in a way that joblib does not")

    def _holds_objects(self, state: Any) -> bool:
        dtype = state.get("dtype") if isinstance(state, dict) else None
        return isinstance(dtype, _Made) and _item(dtype)[1]

    def _skip_array(self, state: Any) -> None:
        """Go on behind an array's bytes, as NumpyArrayWrapper.read_array does."""
        if (
            not isinstance(state, dict)
            or not state.keys() <= _WRAPPER_KEYS
            or not state.keys() >= _NEEDED_KEYS
        ):
            raise pickle.UnpicklingError("an array that joblib has not written")
        shape, alignment = state["shape"], state.get("numpy_array_alignment_bytes")
        if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
            raise pickle.UnpicklingError("an array of no shape")
        subclass = state["subclass"]
        if (
            state["order"] not in ("C", "F")
            or not isinstance(subclass, _Global)
            or subclass.name[0] != "numpy"
        ):
            raise pickle.UnpicklingError("an array that joblib has not written")
        if not isinstance(state["dtype"], _Made):
            raise pickle.UnpicklingError("an array whose dtype is no numpy.dtype")
        width, has_object = _item(state["dtype"])
        if has_object:
            _Machine(self._source, self._findings, "pickle").load()
            return
        if alignment is not None:
            if alignment != 16:
                raise pickle.UnpicklingError("an array that joblib has not written")
            self._source.read(int.from_bytes(self._source.read(1), "little"))
        left = width * prod(shape)
        if left > self._source.left():
            raise EOFError("an array ends early")
        while left:
            data = self._source.read(min(left, 1 << 20))
            if not data:
                raise EOFError("an array ends early")
            left -= len(data)


_NEEDED_KEYS = {"subclass", "shape", "order", "dtype"}
_WRAPPER_KEYS = {*_NEEDED_KEYS, "allow_mmap", "numpy_array_alignment_bytes"}


def _is_container(value: Any) -> bool:
    if isinstance(value, _Made):
        return value.of in CONTAINERS
    return isinstance(value, _Unknown) and value.kind == "set"


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """A mapping of the keys that are plain values; hashing a nested tuple can take for ever."""
    if len(items) % 2:
        raise pickle.UnpicklingError("a key without a value")
    plain = (str, int, float, bytes, type(None))
    return {key: value for key, value in zip(items[::2], items[1::2], strict=True) if isinstance(key, plain)}


def _item(dtype: _Made) -> tuple[int, bool]:
    """Bytes of one item of a numpy.dtype, and whether items are objects.

    Raises:
        UnpicklingError: it is not as numpy writes it; a wrong size or flag moves the end of an array.
    """
    if dtype.of != ("numpy", "dtype") or len(dtype.arguments) not in (1, 3):
        raise pickle.UnpicklingError("an array whose dtype is no numpy.dtype")
    said = dtype.arguments[0]
    code = _DTYPE.fullmatch(said) if isinstance(said, str) else None
    if code is None or [bool(a) for a in dtype.arguments[1:]] not in ([], [False, True]):
        raise pickle.UnpicklingError(f"an array of the dtype {said!a}"[:80])
    kind, width = code[1], int(code[2]) * (4 if code[1] == "U" else 1)
    if width not in _WIDTHS.get(kind, {width}):
        raise pickle.UnpicklingError(f"an array of the dtype {said!a}"[:80])
    if dtype.state is not None:
        _check_state(dtype.state, kind, width)
    return width, kind == "O"


def _check_state(state: Any, kind: str, width: int) -> None:
    """(version, byte order, base and shape, names, fields, size, alignment, flags, metadata)."""
    if not isinstance(state, tuple) or len(state) not in (8, 9):
        raise pickle.UnpicklingError("a dtype in a form that is not followed")
    base, names, fields, size, flags = state[2], state[3], state[4], state[5], state[7]
    if type(flags) is not int or type(size) is not int:
        raise pickle.UnpicklingError("a dtype in a form that is not followed")
    if size not in ((width,) if kind in _EXTENDED else (-1, width)):
        raise pickle.UnpicklingError("a dtype that changes its own size")
    if bool(flags & _HAS_OBJECT) != (kind == "O") or (kind == "O" and flags != _OBJECT_FLAGS):
        raise pickle.UnpicklingError("a dtype whose flags are not those of its type")
    if (names is None) != (fields is None) or (kind != "V" and (fields, base) != (None, None)):
        raise pickle.UnpicklingError("a dtype with fields that it cannot have")
    if fields is not None:
        _check_fields(fields, width)
    if base is not None:
        _check_base(base, width)


def _check_base(base: Any, width: int) -> None:
    """An array in each item: (dtype, shape)."""
    if not isinstance(base, tuple) or len(base) != 2 or not isinstance(base[0], _Made):
        raise pickle.UnpicklingError("a dtype in a form that is not followed")
    size, has_object = _item(base[0])
    shape = base[1] if isinstance(base[1], tuple) else (base[1],)
    if has_object or not all(type(n) is int and n >= 0 for n in shape) or size * prod(shape) != width:
        raise pickle.UnpicklingError("a dtype that changes its own size")


def _check_fields(fields: Any, width: int) -> None:
    """The fields of a structure: (dtype, offset) or (dtype, offset, title) by name."""
    if not isinstance(fields, dict):
        raise pickle.UnpicklingError("a dtype with fields that are no mapping")
    for about in fields.values():
        if not isinstance(about, tuple) or len(about) not in (2, 3) or not isinstance(about[0], _Made):
            raise pickle.UnpicklingError("a dtype with fields in a form that is not followed")
        size, has_object = _item(about[0])
        if has_object or type(about[1]) is not int or not 0 <= about[1] <= width - size:
            raise pickle.UnpicklingError("an array of structures that hold objects")


def _anything(_: tuple[Any, ...]) -> bool:
    return True


def _is_dtype(arguments: tuple[Any, ...]) -> bool:
    return bool(arguments) and isinstance(arguments[0], str) and bool(_DTYPE.fullmatch(arguments[0]))


def _names_only_numpy(arguments: tuple[Any, ...]) -> bool:
    """The constructors of random generators call what they are given."""
    named = [value for value in arguments if isinstance(value, _Global)]
    return all(value.name[0].startswith("numpy.random.") for value in named)


# Functions that are harmless with some arguments alone.
_ARGUMENTS: dict[Name, Callable[[tuple[Any, ...]], bool]] = {
    ("numpy", "dtype"): _is_dtype,
    ("_codecs", "encode"): lambda given: given[1:] in ((), ("latin1",), ("latin-1",)),
    **{
        ("numpy.random._pickle", f"__{kind}_ctor"): _names_only_numpy
        for kind in ("bit_generator", "generator", "randomstate")
    },
}
