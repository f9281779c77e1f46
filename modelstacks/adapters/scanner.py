"""Looks for hidden code in pickles, without running any of it.

Two opinions are asked for. Ours is an allow-list: every class and function that the pickle would import must
be one that models are made of. Picklescan's is a list of known weapons, some of which hide inside allowed
packages. What cannot be followed to its end is reported too, since code could lie behind the point where the
reading stopped.
"""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import lzma
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import IO, Any, ClassVar, Self, cast

from modelstacks.core.errors import UsageError

__all__ = ["PickleScanner"]

LARGEST_PAYLOAD = 16 << 30  # bytes after decompression
MOST_RATIO = 1000
_CHUNK = 1 << 20

# What models are made of. A package name allows its submodules; where names are listed, only they are
# allowed.
ALLOWED_PACKAGES = ("sklearn", "scipy", "xgboost", "lightgbm", "datetime")
ALLOWED_MODULES: dict[str, frozenset[str] | None] = {
    "builtins": frozenset(
        {"object", "set", "frozenset", "list", "dict", "tuple", "int", "float", "bool", "str", "bytes"}
        | {"bytearray", "complex", "slice", "range"}
    ),
    "_codecs": frozenset({"encode"}),  # how protocol 2 writes bytes
    "collections": frozenset({"OrderedDict", "defaultdict", "Counter", "deque"}),
    "copyreg": frozenset({"_reconstructor"}),
    "joblib.numpy_pickle": frozenset({"NumpyArrayWrapper"}),
    "numpy": None,  # by name, below
    "numpy._core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy._core.numeric": frozenset({"_frombuffer"}),
    "numpy.ma.core": frozenset({"_mareconstruct", "MaskedArray"}),
    "numpy.random._pickle": None,
    "numpy.random.bit_generator": frozenset({"SeedSequence", "__pyx_unpickle_SeedSequence"}),
    "numpy.random._mt19937": None,
    "numpy.random._pcg64": None,
    "pandas.core.frame": frozenset({"DataFrame"}),
    "pandas.core.series": frozenset({"Series"}),
    "torch": None,  # by name, below
    "torch._utils": frozenset({"_rebuild_tensor_v2", "_rebuild_parameter"}),
}
# A module also has whatever it imports, so that `sklearn.some.module` may have subprocess.check_output: of a
# package only what is named as its classes are counts, and nothing of the modules that run, fetch or test
# things.
_CLASS_NAMES = re.compile(
    r"_*[A-Z]\w*|newObj|__pyx_unpickle_\w+|(csr|csc|coo|bsr|dia|dok|lil)_(matrix|array)|interp1d"
    r"|rv_\w*frozen|\w+_gen|date|datetime|time|timedelta|timezone"
)
_NO_MODEL = re.compile(r"\b_*(test|conftest|datasets|externals|build_utils)")
_NUMPY_NAMES = re.compile(
    r"dtype|ndarray|(u?int|float|complex)\d+|bool_?|str_|bytes_|object_|void|datetime64|timedelta64"
)
_TORCH_NAMES = re.compile(
    r"[A-Za-z0-9]+Storage|Size|device|dtype|(b?float|u?int|complex)\d+|bool|half|double|long"
)
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2's names, which pickle still maps
_DECOMPRESSORS: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ", lzma.open),
    (b"]\x00", lzma.open),
)


class PickleScanner:
    """The Scanner port, for pickle, joblib (compressed or not), and zips that hold pickles."""

    def scan(self, directory: Path, paths: Sequence[str]) -> Sequence[str]:
        findings: list[str] = []
        for path in paths:
            for name, payload in _payloads(directory / path, path):
                findings += [f"{name} {finding}" for finding in sorted(_judge(payload))]
        return findings


def _judge(payload: IO[bytes]) -> set[str]:
    found: set[tuple[str, str]] = set()
    errors = []
    # As joblib would load it, and as pickle would: raw arrays to the one are instructions to the other.
    for joblib in (True, False):
        payload.seek(0)
        tracer = _Tracer(payload, found, joblib=joblib)
        try:
            tracer.load()
        except Exception as error:  # a hostile pickle may break the reader in any way
            errors.append(_first_line(error))
    findings = {f"imports {module}.{name}" for module, name in found if not _is_allowed(module, name)}
    if len(errors) == 2:
        findings.add(f"cannot be read to its end ({errors[0]})")
    payload.seek(0)
    return findings | _known_weapons(payload)


def _is_allowed(module: str, name: str) -> bool:
    module = _RENAMED.get(module, module).replace("numpy.core.", "numpy._core.")
    if module.split(".")[0] in ALLOWED_PACKAGES:
        return not _NO_MODEL.search(module) and bool(_CLASS_NAMES.fullmatch(name))
    if module not in ALLOWED_MODULES:
        return False
    names = ALLOWED_MODULES[module]
    if module == "numpy":
        return bool(_NUMPY_NAMES.fullmatch(name))
    if module == "torch":
        return bool(_TORCH_NAMES.fullmatch(name))
    return "." not in name and (names is None or name in names)


def _known_weapons(payload: IO[bytes]) -> set[str]:
    from picklescan import scanner

    logging.getLogger("picklescan").setLevel(
        logging.CRITICAL
    )  # it logs each finding, which we report ourselves
    try:
        result = scanner.scan_pickle_bytes(payload, "")
    except Exception as error:  # it raises whatever a hostile pickle makes it raise
        return {f"cannot be followed by picklescan ({_first_line(error)})"}
    return {
        f"imports {found.module}.{found.name}"
        for found in result.globals
        if found.safety is scanner.SafetyLevel.Dangerous
    }


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:80]


def _payloads(path: Path, name: str) -> Iterator[tuple[str, IO[bytes]]]:
    """The pickles in a file, each with a name for messages."""
    with path.open("rb") as raw:
        head = raw.read(8)
        is_zip = zipfile.is_zipfile(raw)
        raw.seek(0)
        if is_zip:
            with zipfile.ZipFile(raw) as archive:
                for member in archive.infolist():
                    with archive.open(member) as content:
                        is_pickle = content.read(1) == b"\x80"
                    if is_pickle or member.filename.endswith((".pkl", ".pickle", ".joblib")):
                        _bound(name, member.file_size, member.compress_size)
                        yield f"{name}:{member.filename}", io.BytesIO(archive.read(member))
            return
        for magic, opener in _DECOMPRESSORS:
            if head.startswith(magic):
                stream = opener(raw)
                yield name, _decompressed(iter(lambda: stream.read(_CHUNK), b""), path, name)  # noqa: B023
                return
        if head[:1] == b"\x78":  # joblib's default compression is a bare zlib stream
            yield name, _decompressed(_inflated(raw), path, name)
            return
        yield name, raw


def _inflated(raw: IO[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj()
    while not inflate.eof:
        packed = inflate.unconsumed_tail or raw.read(_CHUNK)
        if not packed:
            raise EOFError("it ends early")
        yield inflate.decompress(packed, _CHUNK)


def _decompressed(chunks: Iterable[bytes], path: Path, name: str) -> IO[bytes]:
    packed = path.stat().st_size
    out = io.BytesIO()
    try:
        for data in chunks:
            out.write(data)
            _bound(name, out.tell(), packed)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UsageError(f"{name}: the compressed pickle is damaged: {error}") from None
    return out


def _bound(name: str, size: int, packed: int) -> None:
    if size > LARGEST_PAYLOAD or size > max(64 << 20, packed * MOST_RATIO):
        raise UsageError(
            f"{name}: {packed} bytes would unpack to {size} or more: this looks like a decompression bomb"
        )


class _Inert:
    """Stands for whatever a pickle makes. It takes every instruction and does nothing."""

    origin: ClassVar[tuple[str, str]] = ("", "")
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *arguments: Any, **_: Any) -> Self:
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> _Inert:
        return _Inert()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, _: Any) -> None: ...

    def extend(self, _: Any) -> None: ...

    def add(self, _: Any) -> None: ...


# The unpickler that is written in Python: each instruction is a method, so that BUILD can be followed as
# joblib does.
_Unpickler: Any = pickle._Unpickler  # noqa: SLF001


class _Tracer(_Unpickler):  # type: ignore[misc]
    """Reads a pickle as pickle or joblib would, with an inert class in place of everything that it names."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

    def __init__(self, payload: IO[bytes], found: set[tuple[str, str]], *, joblib: bool) -> None:
        super().__init__(payload)
        self._payload, self._found, self._joblib = payload, found, joblib

    def find_class(self, module: str, name: str) -> Any:
        self._found.add((module, name))
        return type("Inert", (_Inert,), {"origin": (module, name)})

    def persistent_load(self, _: Any) -> Any:
        return _Inert()

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"extension code {code}")

    def load_build(self) -> None:
        super().load_build()
        made = self.stack[-1]
        if not self._joblib or not isinstance(made, _Inert):
            return
        if made.origin == ("joblib.numpy_pickle", "NDArrayWrapper"):
            raise pickle.UnpicklingError("an array in a file of its own, as joblib before 0.10 wrote it")
        if made.origin == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
            self._skip_array(made.state)
            self.stack[-1] = _Inert()

    dispatch[pickle.BUILD[0]] = load_build

    def _skip_array(self, state: dict[str, Any]) -> None:
        """An array's bytes lie in the middle of the stream

        where they end is where the instructions go on.
        """
        size, has_object = _item_size(state["dtype"])
        if has_object:
            _Tracer(self._payload, self._found, joblib=False).load()
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            padding = self._payload.read(1)
            self._payload.read(int.from_bytes(padding, "little"))
        left = size * prod(state["shape"])
        if left < 0:
            raise pickle.UnpicklingError("an array of negative size")
        while left:
            data = self._payload.read(min(left, 1 << 20))
            if not data:
                raise EOFError("an array ends early")
            left -= len(data)


def _item_size(dtype: object) -> tuple[int, bool]:
    """Bytes of one item of a pickled numpy.dtype, and whether items are pickles themselves."""
    if not isinstance(dtype, _Inert) or dtype.origin != ("numpy", "dtype"):
        raise pickle.UnpicklingError("an array whose dtype is no numpy.dtype")
    code = re.fullmatch(r"[|<>=]?([biufcmMOSUV])(\d+)", str(dtype.arguments[0]))
    if code is None:
        raise pickle.UnpicklingError(f"an array of unknown dtype {dtype.arguments[0]!r}")
    size = int(code[2]) * (4 if code[1] == "U" else 1)
    if dtype.state is not None:
        state = cast(tuple[Any, ...], dtype.state)
        if state[2] is not None or state[5] not in (-1, size):
            raise pickle.UnpicklingError("an array whose dtype changes its own size")
        if state[4] is not None and any(_item_size(field[0])[1] for field in state[4].values()):
            raise pickle.UnpicklingError("an array of structures that hold objects")
    return size, code[1] == "O"
