"""The tricks that pickle scanners were fooled by, and what the follower of instructions makes of each."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from joblib.numpy_pickle import NumpyArrayWrapper

from modelstacks.adapters.scanner import PickleScanner

SYSTEM = b"cposix\nmkdir\n(S'was-run'\ntR."  # a call, in protocol 0
SVC = "sklearn.svm._classes", "SVC"
CALL = b"\x80\x04\x8c\x05posix\x8c\x05mkdir\x93\x8c\x07was-run\x85R."


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path("was-run").exists()


def scan(content: bytes, name: str = "model.pkl") -> list[str]:
    Path(name).write_bytes(content)
    return list(PickleScanner().scan(Path(), [name]))


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def name(module: str, what: str) -> bytes:
    return text(module) + text(what) + b"\x93"


def dumped(value: object, **options: Any) -> bytes:
    out = io.BytesIO()
    joblib.dump(value, out, **options)
    return out.getvalue()


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member, content in members.items():
            archive.writestr(member.replace("__", "/").replace("_dot_", "."), content)
    return out.getvalue()


# Which reader reads what.


def test_a_zip_appended_to_a_pickle_does_not_hide_the_pickle() -> None:
    """zipfile finds an archive from its end; joblib.load and pickle.load begin at the beginning."""
    benign = zipped(a_dot_pkl=pickle.dumps([1]))
    assert scan(CALL + benign) == ["model.pkl imports posix.mkdir"]
    (finding,) = scan(pickle.dumps([1]) + benign)
    assert finding == f"model.pkl has {len(benign)} bytes after its end that are not a pickle"


def test_only_the_end_of_a_zip_appended_to_a_pickle_does_not_hide_it() -> None:
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0)
    assert scan(CALL + end) == ["model.pkl imports posix.mkdir"]


def test_a_second_pickle_behind_the_first_is_followed_too() -> None:
    assert scan(pickle.dumps([1]) + pickle.dumps([2])) == []
    assert scan(pickle.dumps([1]) + CALL) == ["model.pkl imports posix.mkdir"]


@pytest.mark.parametrize("behind", [b"\0", b"\n", b"garbage", CALL[:-1]])
def test_what_is_behind_the_end_and_no_pickle_is_refused(behind: bytes) -> None:
    found = scan(pickle.dumps([1]) + behind)
    assert found
    assert all(
        "after its end" in line or "imports posix.mkdir" in line or "to its end" in line for line in found
    )


@pytest.mark.parametrize("compress", ["zlib", "gzip", "bz2", "lzma", "xz"])
def test_a_call_in_a_compressed_file_is_found_and_so_is_what_follows_the_stream(compress: str) -> None:
    made = dumped([1, 2, 3], compress=(compress, 3))
    assert scan(made, "model.joblib") == []
    assert scan(made + CALL, "model.joblib") == [
        "model.joblib has bytes after the end of its compressed data"
    ]
    assert scan(made + made, "model.joblib") == [
        "model.joblib has bytes after the end of its compressed data"
    ]


def test_compressors_and_containers_that_are_not_followed_are_refused() -> None:
    assert scan(b"\x04\x22\x4d\x18" + bytes(40)) == [
        "model.pkl is compressed with lz4, which the serving image cannot read"
    ]
    assert scan(b"ZF0x10" + bytes(40)) == [
        "model.pkl was written by joblib before 0.10, and is not followed; save the model again"
    ]
    assert scan(b"7z\xbc\xaf\x27\x1c" + bytes(40))
    assert "is a tar archive" in scan(bytes(257) + b"ustar" + bytes(300))[0]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda made: b"y" + made, "cannot be read to its end"),
        (lambda made: made + b"x", "bytes after its end"),
        (lambda made: made[:-2] + b"\x04\0note", "bytes after its end"),
        (lambda made: made[:40] + made[41:], "a zip archive"),
        (lambda made: made[:4] + made[5:], "a zip archive"),
    ],
)
def test_a_zip_that_two_readers_would_read_differently_is_refused(
    spoil: Callable[[bytes], bytes], words: str
) -> None:
    made = zipped(m__data_dot_pkl=pickle.dumps([1], 2), m__version=b"3")
    assert scan(made, "pytorch_model.bin") == []
    assert words in scan(spoil(made), "pytorch_model.bin")[0]


def test_a_zip_with_one_name_twice_is_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"), io.BytesIO() as out:
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("m/data.pkl", CALL)
            archive.writestr("m/data.pkl", pickle.dumps([1]))
        assert scan(out.getvalue()) == ["model.pkl is a zip archive that lists a member twice"]


def test_torch_archives_hold_what_torch_saves_and_nothing_else() -> None:
    made = zipped(m__data_dot_pkl=pickle.dumps([1], 2), m__code__evil_dot_py=b"pass")
    assert scan(made) == ["model.pkl contains 'm/code/evil.py', which torch.save does not write"]
    made = zipped(a__data_dot_pkl=pickle.dumps([1], 2), b__data_dot_pkl=CALL)
    assert scan(made) == ["model.pkl contains two torch.save archives"]


@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_saves_is_read_as_torch_reads_it(legacy: bool) -> None:
    import torch

    torch.save(
        {"weight": torch.arange(6.0), "more": {"a": torch.nn.Parameter(torch.ones(2, 2))}},
        "pytorch_model.bin",
        _use_new_zipfile_serialization=not legacy,
    )
    made = Path("pytorch_model.bin").read_bytes()
    assert scan(made, "pytorch_model.bin") == []
    if legacy:  # the second of its pickles
        magic = made[:14]
        assert scan(magic + CALL + made[14:], "pytorch_model.bin") == [
            "pytorch_model.bin imports posix.mkdir"
        ]


def test_a_persistent_id_is_refused_unless_torch_wrote_it() -> None:
    assert "a persistent id" in scan(b"\x80\x02X\x01\0\0\0aQ.")[0]
    made = zipped(m__data_dot_pkl=b"\x80\x02X\x01\0\0\0aQ.")
    assert scan(made) == ["model.pkl:m/data.pkl has a persistent id that torch.save does not write"]


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_arrays_of_objects_are_pickles_and_others_are_not(kind: str) -> None:
    class Calls:
        def __reduce__(self) -> Any:
            import os

            return os.mkdir, ("was-run",)

    def saved(array: Any) -> bytes:
        out = io.BytesIO()
        np.save(out, array) if kind == "npy" else np.savez(out, a=array)
        return out.getvalue()

    assert scan(saved(np.arange(5)), f"a.{kind}") == []
    assert scan(saved(np.array(["a", None], dtype=object)), f"a.{kind}") == []
    assert "imports posix.mkdir" in scan(saved(np.array([Calls()], dtype=object)), f"a.{kind}")[0]
    flagged = saved(np.arange(5)).replace(b"<i8", b"|O8") if kind == "npy" else b""
    assert kind == "npz" or "cannot be read to its end" in scan(flagged, "a.npy")[0]


def test_pickles_in_archives_in_archives_are_found_to_a_depth() -> None:
    inner = zipped(m_dot_pkl=CALL)
    assert scan(zipped(inner_dot_zip=inner)) == ["model.pkl:inner.zip:m.pkl imports posix.mkdir"]
    for _ in range(5):
        inner = zipped(inner_dot_zip=inner)
    assert "archives nested" in scan(inner)[0]


# Where the next instruction is.


def wrapped(how: bytes, data: bytes, shape: int = 1) -> bytes:
    """A joblib stream with one array of bytes, whose wrapper is made by `how`."""
    dtype = name("numpy", "dtype") + text("V1") + b"\x89\x88\x87R"
    dtype += b"(K\x03" + text("|") + b"NNNK\x01K\x01K\0tb"
    state = (
        b"}(" + text("subclass") + name("numpy", "ndarray") + text("shape") + b"M" + struct.pack("<H", shape)
    )
    state += b"\x85" + text("order") + text("C") + text("dtype") + dtype + text("allow_mmap") + b"\x89u"
    return b"\x80\x04" + how + state + b"b" + data + b"."


WRAPPER = name("joblib.numpy_pickle", "NumpyArrayWrapper")
PLAIN = WRAPPER + b")\x81"
RECONSTRUCTED = name("copyreg", "_reconstructor") + WRAPPER + name("builtins", "object") + b"N\x87R"


def test_a_plain_wrapper_is_followed_over_its_array() -> None:
    assert scan(wrapped(PLAIN, b".", 1)) == []
    assert scan(wrapped(PLAIN, b"." + CALL[2:-1], 1)) == ["model.pkl imports posix.mkdir"]


@pytest.mark.parametrize(
    "how",
    [
        RECONSTRUCTED,
        name("sklearn.neighbors._kd_tree", "newObj") + WRAPPER + b"\x85R",
        name("numpy._core.multiarray", "_reconstruct") + WRAPPER + b"K\0\x85C\x01b\x87R",
        name("numpy.random._pickle", "__bit_generator_ctor") + WRAPPER + b"\x85R",
        name("collections", "defaultdict") + WRAPPER + b"\x85R",
        b"]" + WRAPPER + b"a" + WRAPPER + b")\x81",
        PLAIN + b"2\x860" + PLAIN,
    ],
    ids=[
        "_reconstructor",
        "newObj",
        "_reconstruct",
        "bit generator",
        "defaultdict",
        "in a list",
        "in a tuple",
    ],
)
def test_a_wrapper_that_is_made_in_any_other_way_is_refused(how: bytes) -> None:
    """The array's one byte is STOP to a reader that does not know of the array."""
    found = scan(wrapped(how, b"." + CALL[2:-1], 1))
    assert any("builds an array in a way that joblib does not" in line for line in found), found


def test_a_wrapper_is_given_its_state_once() -> None:
    twice = wrapped(b"\x8c\x01a0" + PLAIN + b"\x94", b".", 1)[:-1] + b"h\0}b."
    assert any("sets the state" in line or "array" in line for line in scan(twice))


@pytest.mark.parametrize(
    ("dtype", "state"),
    [
        ("f", None),  # four bytes, without saying so
        ("O8", (3, "|", None, None, None, -1, -1, 0)),  # pointers read from the file
        ("f8", (3, "<", None, None, None, -1, -1, 63)),  # a pickle where numbers are expected
        ("V8", (3, "|", None, None, None, -1, 1, 0)),
        ("V8", (3, "|", None, None, None, 800, 1, 0)),
        ("S4", (3, "|", None, None, None, 400, 1, 0)),
        ("f8,O", None),
        ("V8", (3, "|", None, ("a",), {"a": "no dtype"}, 8, 1, 0)),
        ("i3", None),
    ],
    ids=str,
)
def test_a_dtype_whose_size_or_kind_is_not_what_it_says_is_refused(dtype: str, state: Any) -> None:
    class Dtype:
        def __reduce__(self) -> Any:
            return (
                (np.dtype, (dtype, False, True)) if state is None else (np.dtype, (dtype, False, True), state)
            )

    wrapper = NumpyArrayWrapper(np.ndarray, (1,), "C", Dtype())  # type: ignore[no-untyped-call]
    assert scan(pickle.dumps(wrapper)[:-1] + bytes(8) + b".")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_real_arrays_of_every_dtype_pass(order: Any, protocol: int) -> None:
    kinds = [
        "?",
        "i1",
        "u2",
        "<i4",
        ">i8",
        "f2",
        "f4",
        "f8",
        "c8",
        "c16",
        "S3",
        "U7",
        "V5",
        "M8[ns]",
        "m8[D]",
    ]
    kinds += ["O", "g"]
    arrays: dict[str, Any] = {kind: np.zeros((3, 2), kind, order=order) for kind in kinds}
    arrays["fields"] = np.zeros(4, [("a", "<f4"), ("b", "U3"), ("c", "i2", (2, 2))])
    arrays["aligned"] = np.zeros(4, np.dtype([("a", "i1"), ("b", "f8")], align=True))
    arrays["empty"] = np.zeros((0, 3))
    arrays["scalar"] = np.float32(1)
    arrays["zero-dimensional"] = np.array(3)
    arrays["matrix"] = np.asmatrix(np.eye(2))
    arrays["masked"] = np.ma.masked_array([1, 2], [0, 1])
    refused = {
        kind: found for kind, array in arrays.items() if (found := scan(dumped(array, protocol=protocol)))
    }
    assert refused == {}
    assert {k: f for k, array in arrays.items() if (f := scan(pickle.dumps(array, protocol)))} == {}


# What is made, called and filled.


@pytest.mark.parametrize(
    ("stream", "finding"),
    [
        # A distribution of scipy.stats compiles `_parse_arg_template` of its state.
        (name("scipy.stats._continuous_distns", "norm_gen") + b")\x81}b", "imports scipy.stats._continuous"),
        (name("scipy.io._fortran", "FortranFile") + text("x") + text("w") + b"\x86R", "imports scipy.io."),
        (name("xgboost.core", "Booster") + text("/etc/passwd") + b"\x85R", "calls xgboost.core.Booster"),
        (name("xgboost.core", "Booster") + text("x") + b"\x85\x81", "calls xgboost.core.Booster"),
        (name(*SVC) + text("x") + b"\x85R", "calls sklearn.svm._classes.SVC"),
        (name(*SVC) + b")}" + text("C") + b"K\x01s\x92", "calls sklearn.svm._classes.SVC with keyw"),
        (name("numpy", "log1p") + b"K\x01\x85R", "calls numpy.log1p"),
        (name("numpy", "float64") + b")\x81", "makes numpy.float64"),
        # setattr on a class: BUILD with a state of two parts.
        (name(*SVC) + b"N}" + text("a") + b"K\x01s\x86b", "sets the state of something"),
        (name(*SVC) + b")\x81}b}b", "sets the state of something that is not a new object"),
        (b"]}b", "sets the state of something that is not a new object"),
        # `append`, `extend` and `__setitem__` are looked up on the object, which its state may have replaced.
        (name(*SVC) + b")\x81K\x01a", "adds items to something that is not"),
        (name(*SVC) + b")\x81K\x01K\x02s", "adds items to something that is not"),
        (name("sklearn.metrics.pairwise", "PAIRWISE") + b"K\x01a", "adds items to something that is not"),
        (b"]K\x01\x85R", "calls an object that it created"),
        (b"])\x81", "calls an object that it created"),
        (name("_codecs", "encode") + text("x") + text("zip") + b"\x86R", "calls _codecs.encode in a way"),
        (name("numpy", "dtype") + text("O,f8") + b"\x85R", "calls numpy.dtype in a way that no model does"),
        (
            name("numpy.random._pickle", "__randomstate_ctor")
            + text("x") + name("builtins", "bytearray") + b"\x86R",
            "calls numpy.random._pickle.__randomstate_ctor in a way that no model does",
        ),
        (
            name("copyreg", "_reconstructor") + name("builtins", "str") * 2 + text("x") + b"\x87R",
            "calls copyreg._reconstructor in a way that no model does",
        ),
        (b"\x82\x01", "uses extension code 1"),
        (b"(iposix\nmkdir\n", "imports posix.mkdir"),
        (b"(cposix\nmkdir\n" + text("was-run") + b"o", "imports posix.mkdir"),
        (name("joblib.numpy_pickle", "NDArrayWrapper") + b")\x81", "imports joblib.numpy_pickle.NDArray"),
        (name("sklearn.ensemble._forest", "Parallel") + b")\x81", "imports sklearn.ensemble._forest.Par"),
        (name("numpy._core", "_ufunc_reconstruct") + b")R", "imports numpy._core._ufunc_reconstruct"),
        (text("os") + b"\x94" + text("system") + b"\x940h\0h\x01\x93", "imports os.system"),
        (b"cos\nsystem\np5\n0g5\n", "imports os.system"),
        (b"\x95\x0a\0\0\0\0\0\0\0cos\nsystem\n", "imports os.system"),
        (b"c__builtin__\neval\n", "imports __builtin__.eval"),
        ("c\u03c0\nx\n".encode(), "imports \\u03c0.x"),
    ],
)  # fmt: skip
def test_what_no_model_does_is_found(stream: bytes, finding: str) -> None:
    found = scan(b"\x80\x04" + stream + b".")
    assert any(line.startswith(f"model.pkl {finding}") for line in found), found


@pytest.mark.parametrize(
    "stream",
    [
        b"\xff",  # no instruction
        b"\x80\x06N",  # a protocol of the future
        b"\x80\xff",
        b"N" * 3,  # no STOP
        b"h\x07",  # an empty place of the memo
        b"j\xff\xff\xff\xff",
        b"p-1\n",
        b"0" * 4,  # an empty stack
        b"\x95\xff\0\0\0\0\0\0\0N",  # a frame longer than the file
        b"\x95\x02\0\0\0\0\0\0\0\x95\x01\0\0\0\0\0\0\0NN",  # a frame in a frame
        b"\x8e" + b"\xff" * 8,  # bytes longer than the file
        b"\x96" + b"\xff" * 7 + b"\x0f",
        b"\x8d" + b"\xff" * 7 + b"\x0f",
        b"B\xff\xff\xff\xff",
        b"I" + b"9" * 5000 + b"\n",
        b"S'unclosed\n",
        b"V\\ud8\n",
        b"c" + b"a" * 3_000_000,  # a line without an end
        b"\x97",  # a buffer out of band
    ],
    ids=lambda stream: repr(stream[:12]),
)
def test_what_an_unpickler_stops_at_is_refused(stream: bytes) -> None:
    (finding,) = scan(b"\x80\x04" + stream)
    assert finding.startswith("model.pkl cannot be read to its end (")
    assert finding.isascii()


def test_nested_keys_that_take_for_ever_to_hash_are_not_hashed() -> None:
    deep = b")" + b"2\x86" * 64  # a tuple of itself twice, 64 times
    assert scan(b"\x80\x04}" + deep + b"Ns.") == []
    assert scan(b"\x80\x04\x8f(" + deep + b"\x90.") == []
    assert scan(b"\x80\x04(" + deep + b"\x91.") == []


def test_more_instructions_than_a_model_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelstacks.adapters.pickles import machine

    monkeypatch.setattr(machine._Counted, "left", 1000)
    (finding,) = scan(b"\x80\x04" + b"N0" * 1000 + b"N.")
    assert "instructions" in finding
