"""What a skops file names, and which of it the engine makes without being asked."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from model_server.engines import sklearn as engine

from modelstacks.core.artifact.skops_types import LIBRARIES, foreign_types, is_library_type, schema_types

WINE = Path(__file__).parents[2] / "model_artifacts/wine-kmeans/model.skops"


def test_the_engine_has_the_same_list() -> None:
    assert engine.TRUSTED == LIBRARIES


def test_a_real_model_of_scikit_learn_names_nothing_foreign() -> None:
    assert foreign_types(WINE) == ()


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "functools.partial",
        "operator.attrgetter",
        "xgboost.sklearn.XGBClassifier",
        "scipy.stats._continuous_distns.norm_gen",
        "scipy.io._fortran.FortranFile",
        "scipy.sparse.linalg._interface.LinearOperator",
        "numpy.lib._datasource.DataSource",
        "sklearn.datasets._base.Path",
        "sklearn.utils.parallel.Parallel",
        "sklearn.utils._testing.TempMemmap",
        "sklearnish.svm.SVC",
    ],
)
def test_what_is_no_plain_part_of_the_libraries_is_named(name: str, tmp_path: Path) -> None:
    module, _, what = name.rpartition(".")
    deep: object = {"__module__": module, "__class__": what}
    for _ in range(300):
        deep = {"content": [deep]}
    with zipfile.ZipFile(tmp_path / "model.skops", "w") as archive:
        archive.writestr("schema.json", json.dumps(deep))
    assert foreign_types(tmp_path / "model.skops") == (name,)
    assert not is_library_type(module, what)


@pytest.mark.parametrize("content", [b"", b"[", b"[" * 100_000, b"1", b"\xff\xfe"])
def test_a_schema_that_cannot_be_read_names_nothing(content: bytes) -> None:
    assert schema_types(io.BytesIO(content)) == set()


def test_a_name_that_only_an_older_scikit_learn_writes_is_left_to_the_engine() -> None:
    """It refuses the file with the version that wrote it; asking for trust would not make it load."""
    older = Path(__file__).parents[1] / "serving/engines/older_models/boosted.skops"
    assert foreign_types(older) == ()
    assert not is_library_type("_loss", "CyHalfSquaredError")
