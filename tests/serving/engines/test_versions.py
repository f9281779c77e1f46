"""A model that another version of its library saved: it is recognised, named in refusals, and reported."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sklearn
from model_server.engines import saved_with
from model_server.engines import sklearn as engine
from model_server.engines import xgboost as xgboost_engine
from model_server.engines._versions import scikit_learn_version, xgboost_version
from model_server.problems import ModelRefusedError
from model_server.settings import Settings
from model_server.validation import InputReader
from model_server.worker import load_engine
from sklearn.linear_model import LinearRegression
from support.model_server import ARTIFACTS

# scikit-learn 1.5.2, and several of XGBoost.
OLDER = Path(__file__).parent / "older_models"
SERVED = sklearn.__version__


def folder(tmp_path: Path, file: str) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    shutil.copy(OLDER / file, (model / "model").with_suffix(Path(file).suffix))
    return model


def load(directory: Path) -> object:
    trust = not (directory / "model.skops").exists()
    return load_engine(directory, Settings(model_name="m", model_dir=directory, trust_code=trust))[0]


@pytest.mark.parametrize("file", ["line.skops", "boosted.skops", "line.pkl", "forest.joblib"])
def test_the_version_is_read_from_the_file(file: str, tmp_path: Path) -> None:
    found = saved_with(engine, folder(tmp_path, file))
    assert found is not None
    assert (found.version, found.served, found.differs) == ("1.5.2", SERVED, True)


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol_is_read(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(LinearRegression().fit([[1], [2]], [1, 2]), protocol=protocol))
    assert scikit_learn_version(path) == SERVED


@pytest.mark.parametrize("compress", [zlib.compress, gzip.compress, bz2.compress, lzma.compress])
def test_compressed_pickles_are_read_to_their_end(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    content = (OLDER / "line.pkl").read_bytes()
    path.write_bytes(compress(bytes(range(256)) * 20_000 + content))
    assert scikit_learn_version(path) == "1.5.2"


@pytest.mark.parametrize("before", range((1 << 20) - 60, (1 << 20) + 4, 7))
def test_a_version_across_the_pieces_that_are_read_is_found(before: int, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    key = b"\x8c\x10_sklearn_version\x94\x8c\x051.5.2\x94"
    path.write_bytes(bytes(before) + key)
    assert scikit_learn_version(path) == "1.5.2"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"_sklearn_version",
        b"_sklearn_version\x94\x8c\xff\x1b]0;owned\x07",
        b"x\x9cnot zlib",
        b"\x1f\x8b\x08",
        b"BZh91AY",
        b"_sklearn_version\x94\x8c\x0599999.9",
    ],
)
@pytest.mark.parametrize("name", ["model.pkl", "model.skops"])
def test_a_file_that_does_not_say_its_version_is_none(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert scikit_learn_version(tmp_path / name) is None


def test_a_skops_file_without_a_schema_has_no_version(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.skops", "w") as archive:
        archive.writestr("other.json", "{}")
    assert scikit_learn_version(tmp_path / "model.skops") is None


def test_the_version_of_an_xgboost_model_is_read(tmp_path: Path) -> None:
    import xgboost

    found = saved_with(xgboost_engine, ARTIFACTS / "churn-xgboost")
    assert found is not None
    assert (found.version, found.differs) == ("3.2.0", False)
    xgboost.Booster(model_file=ARTIFACTS / "churn-xgboost/model.json").save_model(tmp_path / "model.ubj")
    assert xgboost_version(tmp_path / "model.ubj") == "3.2.0"
    content = (tmp_path / "model.ubj").read_bytes()
    (tmp_path / "model.ubj").write_bytes(content[:-20])
    assert xgboost_version(tmp_path / "model.ubj") is None


@pytest.mark.parametrize("suffix", ["json", "ubj"])
@pytest.mark.parametrize("series", ["2.1", "3.0", "3.1"])
def test_what_an_older_xgboost_saved_is_answered_as_it_answered(
    series: str, suffix: str, tmp_path: Path
) -> None:
    directory = folder(tmp_path, f"xgboost-{series}.{suffix}")
    expected = json.loads((OLDER / f"xgboost-{series}-predictions.json").read_text(encoding="utf-8"))
    found = saved_with(xgboost_engine, directory)
    assert found is not None
    assert found.version.startswith(f"{series}.")
    assert found.differs
    loaded = xgboost_engine.load(directory, Settings(model_name="m"))
    rows = np.array(expected["rows"], dtype=np.float32)
    answers = loaded.predict({"input": rows}, {})["probabilities"]
    np.testing.assert_allclose(answers, expected["predictions"], rtol=1e-5)


@pytest.mark.parametrize(("series", "coded"), [("2.1", True), ("3.0", True), ("3.1", False)])
def test_categories_are_sent_as_codes_to_a_model_whose_file_does_not_hold_them(
    series: str, coded: bool, tmp_path: Path
) -> None:
    directory = folder(tmp_path, f"xgboost-{series}-categories.json")
    expected = json.loads((OLDER / f"xgboost-{series}-predictions.json").read_text(encoding="utf-8"))
    loaded = xgboost_engine.load(directory, Settings(model_name="m"))
    codes = {"Bergen": 0, "Oslo": 1, "Rome": 2}
    rows = [[age, codes[city] if coded else city] for age, city in expected["table"]]
    inputs = InputReader(loaded.signature).rows(rows)
    answers = loaded.predict(inputs, {})["predictions"]
    np.testing.assert_allclose(answers, expected["of_the_table"], rtol=1e-5)


def test_an_engine_whose_files_have_no_version_knows_none() -> None:
    from model_server.engines import lightgbm

    assert saved_with(lightgbm, ARTIFACTS / "breast-cancer-lightgbm") is None


@pytest.mark.parametrize(
    ("file", "cause"),
    [
        ("line.skops", "AttributeError: 'LinearRegression' object has no attribute 'tol'"),
        ("line.pkl", "AttributeError: 'LinearRegression' object has no attribute 'tol'"),
        (
            "boosted.skops",
            "names _loss.CyHalfSquaredError, which the installed scikit-learn, numpy and scipy do not have",
        ),
    ],
)
def test_an_older_model_that_fails_is_refused_with_both_versions(
    file: str, cause: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelRefusedError) as refused:
        load(folder(tmp_path, file))
    message = str(refused.value)
    assert message.startswith(f"saved with scikit-learn 1.5.2, served with {SERVED}: ")
    assert cause in message
    assert f"save it again with {SERVED}" in message


def test_an_older_model_that_loads_is_served(tmp_path: Path) -> None:
    load(folder(tmp_path, "forest.joblib"))


def test_a_foreign_class_is_untrusted_whatever_the_version(tmp_path: Path) -> None:
    model = folder(tmp_path, "boosted.skops")
    with zipfile.ZipFile(model / "model.skops") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = members["schema.json"].replace(b'"_loss"', b'"antigravity"')
    with zipfile.ZipFile(model / "model.skops", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, schema if name == "schema.json" else content)
    with pytest.raises(ModelRefusedError, match="only plain classes of scikit-learn"):
        load(model)


def test_a_model_of_this_version_that_fails_says_nothing_of_versions(tmp_path: Path) -> None:
    model = folder(tmp_path, "line.pkl")
    content = (model / "model.pkl").read_bytes()
    assert len(SERVED) == len("1.5.2")
    (model / "model.pkl").write_bytes(content.replace(b"1.5.2", SERVED.encode()))
    with pytest.raises(Exception, match="no attribute 'tol'") as refused:
        load(model)
    assert "saved with" not in str(refused.value)


def test_inspect_reports_the_version(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from model_server.__main__ import main

    assert main(["inspect", str(ARTIFACTS / "diabetes-sklearn")]) == 0
    assert json.loads(capfd.readouterr().out)["saved_with"] == SERVED
