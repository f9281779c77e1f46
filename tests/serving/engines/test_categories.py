"""Categories of pandas columns in XGBoost and LightGBM: callers write texts, the trees get their codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas
import pytest
import xgboost
from model_server.engines import Engine
from model_server.problems import ProblemError
from model_server.settings import Settings
from model_server.validation import InputReader
from model_server.worker import load_engine

RNG = np.random.default_rng(0)
FRAME = pandas.DataFrame(
    {
        "age": RNG.normal(40, 9, 80),
        "city": pandas.Categorical(RNG.choice(["Bonn", "Osaka", "Rome"], 80)),
        "floor": pandas.Categorical(RNG.choice([3, 7], 80)),
    }
)
TARGET = (FRAME.city == "Rome").to_numpy().astype(int) + RNG.normal(0, 0.1, 80)


def engine_of(directory: Path) -> Engine:
    return load_engine(directory, Settings(model_name="model"))[0]


def inputs_of(frame: pandas.DataFrame, number: str) -> dict[str, Any]:
    kind = np.float32 if number == "FP32" else np.float64
    return {
        "age": frame.age.to_numpy(kind),
        "city": np.array(frame.city.tolist(), dtype=object),
        "floor": np.array(frame.floor.tolist(), dtype=kind),
    }


@pytest.fixture(params=["json", "ubj"])
def xgboost_model(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    data = xgboost.DMatrix(FRAME, TARGET, enable_categorical=True)
    booster = xgboost.train({"nthread": 1, "max_depth": 3}, data, 5)
    booster.save_model(tmp_path / f"model.{request.param}")
    return booster


def test_xgboosts_categories_are_read_from_its_file(xgboost_model: Any, tmp_path: Path) -> None:
    engine = engine_of(tmp_path)
    found = [(tensor.name, tensor.datatype, tensor.examples) for tensor in engine.signature.inputs]
    assert found == [
        ("age", "FP32", ()),
        ("city", "BYTES", ("Bonn", "Osaka", "Rome")),
        ("floor", "FP32", ("3.0", "7.0")),
    ]
    [answer] = engine.predict(inputs_of(FRAME, "FP32"), {}).values()
    own = xgboost_model.predict(xgboost.DMatrix(FRAME, enable_categorical=True))
    np.testing.assert_allclose(answer, own, rtol=1e-6)


def test_xgboost_refuses_a_category_that_it_does_not_know(xgboost_model: Any, tmp_path: Path) -> None:
    inputs = inputs_of(FRAME[:2], "FP32")
    inputs["city"][1] = "Atlantis"
    with pytest.raises(ProblemError) as caught:
        engine_of(tmp_path).predict(inputs, {})
    [fault] = caught.value.errors
    assert (fault.field, fault.row) == ("city", 1)
    assert "'Atlantis' is not one of the model's 3 categories" in fault.message


def test_a_missing_number_among_categories_is_a_missing_value(xgboost_model: Any, tmp_path: Path) -> None:
    inputs = inputs_of(FRAME[:1], "FP32")
    inputs["floor"][0] = np.nan
    [answer] = engine_of(tmp_path).predict(inputs, {}).values()
    assert np.isfinite(answer).all()


def missing_city(engine: Engine) -> Any:
    """The answers to rows of which the second's city is null, as a body says it."""
    rows = [
        {"age": float(row.age), "city": row.city, "floor": int(row.floor)} for row in FRAME[:3].itertuples()
    ]
    rows[1]["city"] = None
    [answer] = engine.predict(InputReader(engine.signature).rows(rows), {}).values()
    return answer


def frame_without_city() -> pandas.DataFrame:
    frame = FRAME[:3].copy()
    frame.loc[1, "city"] = np.nan
    return frame


def test_a_missing_text_among_categories_is_a_missing_value(xgboost_model: Any, tmp_path: Path) -> None:
    answer = missing_city(engine_of(tmp_path))
    own = xgboost_model.predict(xgboost.DMatrix(frame_without_city(), enable_categorical=True))
    np.testing.assert_allclose(answer, own, rtol=1e-6)


def test_lightgbms_categories_are_read_from_its_file(tmp_path: Path) -> None:
    options = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 3, "min_data_per_group": 3}
    booster = lightgbm.train(options, lightgbm.Dataset(FRAME, TARGET), 5)
    booster.save_model(tmp_path / "model.txt")
    engine = engine_of(tmp_path)
    kinds = {tensor.name: tensor.datatype for tensor in engine.signature.inputs}
    assert kinds == {"age": "FP64", "city": "BYTES", "floor": "FP64"}
    inputs = inputs_of(FRAME, "FP64")
    [answer] = engine.predict(inputs, {}).values()
    np.testing.assert_allclose(answer, booster.predict(FRAME), rtol=1e-12)
    np.testing.assert_allclose(missing_city(engine), booster.predict(frame_without_city()), rtol=1e-12)
    # The library takes a category that it does not know for a missing value.
    inputs["city"][:] = "Atlantis"
    unknown = FRAME.assign(city=pandas.Categorical(["Atlantis"] * len(FRAME)))
    np.testing.assert_allclose(
        engine.predict(inputs, {})["predictions"], booster.predict(unknown), rtol=1e-12
    )


def test_under_a_signature_with_one_input_callers_send_codes(xgboost_model: Any, tmp_path: Path) -> None:
    (tmp_path / "signature.json").write_text(
        '{"inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3]}],'
        ' "outputs": [{"name": "predictions", "datatype": "FP32", "shape": [-1]}]}'
    )
    codes = np.column_stack([FRAME.age, FRAME.city.cat.codes, FRAME.floor.cat.codes]).astype(np.float32)
    [answer] = engine_of(tmp_path).predict({"input": codes}, {}).values()
    own = xgboost_model.predict(xgboost.DMatrix(FRAME, enable_categorical=True))
    np.testing.assert_allclose(answer, own, rtol=1e-6)
