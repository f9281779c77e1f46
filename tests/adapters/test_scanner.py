"""The scanner: it finds code wherever a pickle can hide it, lets real models pass, and runs nothing."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelstacks.adapters.scanner import PickleScanner
from modelstacks.core.errors import UsageError


class Bomb:
    """Leaves a mark when it is loaded."""

    mark = "was-run"

    def __reduce__(self) -> Any:
        return os.mkdir, (self.mark,)


class Calls:
    """What unpickling it would call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = function, arguments

    def __reduce__(self) -> Any:
        return self._reduced


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(Bomb.mark).exists()


def scan(content: bytes, name: str = "model.pkl") -> list[str]:
    Path(name).write_bytes(content)
    return list(PickleScanner().scan(Path(), [name]))


def dumped(value: object, compress: Any = 0) -> bytes:
    joblib.dump(value, "dumped.joblib", compress=compress)
    return Path("dumped.joblib").read_bytes()


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    from lightgbm import LGBMClassifier
    from sklearn.compose import ColumnTransformer
    from sklearn.datasets import load_wine
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    from xgboost import XGBClassifier

    rows, labels = load_wine(return_X_y=True, as_frame=True)
    made = {
        "random forest": RandomForestClassifier(3, random_state=np.random.RandomState(1)),
        "pipeline": make_pipeline(ColumnTransformer([("a", StandardScaler(), ["ash"])]), SVC()),
        "neighbours": KNeighborsClassifier(),
        "gradient boosting": GradientBoostingClassifier(n_estimators=2),
        "xgboost": XGBClassifier(n_estimators=2),
        "lightgbm": LGBMClassifier(n_estimators=2, verbose=-1),
    }
    return {name: model.fit(rows, labels) for name, model in made.items()}


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)], ids=str)
def test_real_models_pass_however_joblib_wrote_them(compress: Any, models: dict[str, Any]) -> None:
    assert {name: found for name, model in models.items() if (found := scan(dumped(model, compress)))} == {}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_real_models_pass_however_pickle_wrote_them(protocol: int, models: dict[str, Any]) -> None:
    written = {name: pickle.dumps(model, protocol) for name, model in models.items()}
    assert {name: found for name, content in written.items() if (found := scan(content))} == {}


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_is_found_in_every_protocol(protocol: int) -> None:
    assert scan(pickle.dumps([1, Bomb()], protocol)) == ["model.pkl imports posix.mkdir"]


@pytest.mark.parametrize("compress", [0, 3, ("bz2", 3), ("lzma", 3)], ids=str)
def test_a_call_behind_an_array_is_found(compress: Any) -> None:
    """An array's raw bytes in the middle of a joblib file stop a reader that takes them for instructions."""
    content = dumped(
        [np.arange(1000.0), np.zeros((0, 3)), np.array(["ü", "xyz"]), Bomb(), np.arange(3)], compress
    )
    assert scan(content, "model.joblib") == ["model.joblib imports posix.mkdir"]


def test_a_call_inside_an_array_of_objects_is_found() -> None:
    found = scan(dumped({"a": np.array([Bomb(), 1], dtype=object)}), "model.joblib")
    assert "model.joblib imports posix.mkdir" in found


def test_a_call_inside_a_zip_is_found() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
        archive.writestr("archive/version", "3")
    assert scan(packed.getvalue(), "pytorch_model.bin") == [
        "pytorch_model.bin:archive/data.pkl imports posix.mkdir"
    ]


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (open, "io.open"),
        (np.load, "numpy.load"),
        (joblib.load, "joblib.numpy_pickle.load"),
        (pickle.loads, "_pickle.loads"),
    ],
)  # fmt: skip
def test_a_function_that_no_model_is_made_of_is_found(function: Callable[..., Any], found: str) -> None:
    findings = scan(pickle.dumps(Calls(function, "x")))
    assert any(line.startswith("model.pkl imports ") and found.split(".")[-1] in line for line in findings)


def test_a_name_with_dots_cannot_reach_through_an_allowed_module() -> None:
    """Protocol 4 looks names up by attribute: `sklearn` + `utils.os.system` would be os.system."""
    content = b"\x80\x04\x8c\x0dsklearn.utils\x8c\x09os.system\x93\x8c\x01x\x85R."
    assert "model.pkl imports sklearn.utils.os.system" in scan(content)


@pytest.mark.parametrize("name", ["check_output", "os", "Popen"])
def test_what_an_allowed_module_has_only_imported_is_found(name: str) -> None:
    """sklearn.utils._testing has subprocess.check_output as a name of its own."""
    module = "sklearn.utils._testing"
    content = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode()
    content += b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93\x8c\x01x\x85R."
    assert f"model.pkl imports {module}.{name}" in scan(content)


def test_a_dtype_that_lies_about_its_size_is_refused() -> None:
    """A wrong size would move the point where the reader finds the instructions again."""
    content = dumped(np.zeros(4, dtype="V16"))
    assert scan(content, "model.joblib") == []
    lied = content.replace(b"\x8c\x03V16", b"\x8c\x03V17", 1)
    assert lied != content
    assert any("cannot be read to its end" in line for line in scan(lied, "model.joblib"))


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04", b"\x80\x04garbage", pickle.dumps([1, 2, 3])[:-1], b"\x80\x05\x82\x01."]
)
def test_what_cannot_be_read_to_its_end_is_reported(content: bytes) -> None:
    assert any("cannot be read to its end" in line for line in scan(content))


def test_a_damaged_compressed_file_is_refused() -> None:
    content = dumped(list(range(1000)), 3)
    with pytest.raises(UsageError, match=r"model\.joblib: the compressed pickle is damaged"):
        scan(content[:-20], "model.joblib")


def test_a_compressed_bomb_is_refused() -> None:
    content = dumped(np.zeros(100 << 20, np.uint8), ("xz", 1))
    with pytest.raises(UsageError, match="this looks like a decompression bomb"):
        scan(content, "model.joblib")


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=80).map(lambda tail: b"\x80\x04" + tail))
def test_any_bytes_are_judged(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    path.write_bytes(content)
    for line in PickleScanner().scan(path.parent, [path.name]):
        assert line.startswith("any.pkl ")
