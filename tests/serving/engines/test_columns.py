"""The columns of a scikit-learn model are found in the model: names, texts and numbers, known categories."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
from model_server.engines import Engine
from model_server.problems import ProblemError, SignatureNeededError
from model_server.settings import Settings
from model_server.worker import load_engine
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)

RNG = np.random.default_rng(0)
ROWS = 60
FRAME = pandas.DataFrame(
    {
        "age": RNG.normal(40, 9, ROWS),
        "city": RNG.choice(["Bonn", "Oslo", "Rome"], ROWS),
        "plan": RNG.choice(["basic", "plus"], ROWS),
        "member": RNG.random(ROWS) > 0.5,
        "comment": RNG.choice(["dropped", "by the pipeline"], ROWS),
    }
)
LABELS = np.where(FRAME.age > 40, "yes", "no")
CITIES = ("Bonn", "Oslo", "Rome")


def mixed() -> ColumnTransformer:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    return ColumnTransformer(
        [("n", numbers, ["age"]), ("t", texts, ["city", "plan"]), ("b", "passthrough", ["member"])]
    )


def classifier() -> Any:
    return make_pipeline(mixed(), LogisticRegression())


MIXED = {"age": "FP64", "city": "BYTES", "plan": "BYTES", "member": "FP64"}
CASES: dict[str, tuple[Callable[[], Any], Any, dict[str, str]]] = {
    "a pipeline on texts and numbers": (lambda: classifier().fit(FRAME, LABELS), FRAME, MIXED),
    "a grid search over one": (
        lambda: GridSearchCV(classifier(), {"logisticregression__C": [1, 2]}, cv=2).fit(FRAME, LABELS),
        FRAME,
        MIXED,
    ),
    "a calibrated one": (
        lambda: CalibratedClassifierCV(classifier(), cv=2).fit(FRAME, LABELS),
        FRAME,
        MIXED,
    ),
    "one with two targets": (
        lambda: make_pipeline(mixed(), LinearRegression()).fit(FRAME, FRAME[["age", "member"]].astype(float)),
        FRAME,
        MIXED,
    ),
    "an encoder of every column": (
        lambda: make_pipeline(OrdinalEncoder(), RandomForestClassifier(3)).fit(
            FRAME[["city", "plan"]], LABELS
        ),
        FRAME[["city", "plan"]],
        {"city": "BYTES", "plan": "BYTES"},
    ),
    "columns chosen by their type": (
        lambda: make_pipeline(
            ColumnTransformer(
                [
                    ("t", OneHotEncoder(), make_column_selector(dtype_exclude="number")),
                    ("n", StandardScaler(), make_column_selector(dtype_include="number")),
                ]
            ),
            LogisticRegression(),
        ).fit(FRAME[["age", "city"]], LABELS),
        FRAME[["age", "city"]],
        {"age": "FP64", "city": "BYTES"},
    ),
    "a text column and its words": (
        lambda: make_pipeline(
            ColumnTransformer([("w", TfidfVectorizer(), "comment"), ("n", StandardScaler(), ["age"])]),
            LogisticRegression(),
        ).fit(FRAME, LABELS),
        FRAME,
        {"age": "FP64", "comment": "BYTES"},
    ),
    "trees that read categories": (
        lambda: HistGradientBoostingClassifier(max_iter=3, categorical_features=["city"]).fit(
            FRAME[["age", "city"]], LABELS
        ),
        FRAME[["age", "city"]],
        {"age": "FP64", "city": "BYTES"},
    ),
    "an encoder by target": (
        lambda: make_pipeline(
            ColumnTransformer([("t", TargetEncoder(cv=2), ["city"])], remainder="passthrough"),
            LinearRegression(),
        ).fit(FRAME[["age", "city"]], FRAME.age),
        FRAME[["age", "city"]],
        {"age": "FP64", "city": "BYTES"},
    ),
    "columns without names": (
        lambda: make_pipeline(
            ColumnTransformer([("t", OneHotEncoder(), [1]), ("n", StandardScaler(), slice(0, 1))]),
            LogisticRegression(),
        ).fit(FRAME[["age", "city"]].to_numpy(object), LABELS),
        FRAME[["age", "city"]].set_axis(["x0", "x1"], axis=1),
        {"x0": "FP64", "x1": "BYTES"},
    ),
}


def engine_of(model: Any, directory: Path) -> Engine:
    joblib.dump(model, directory / "model.joblib")
    return load_engine(directory, Settings(model_name="model", trust_code=True))[0]


def inputs_of(engine: Engine, frame: pandas.DataFrame) -> dict[str, Any]:
    return {
        tensor.name: np.array(frame[tensor.name].tolist(), dtype=tensor.dtype)
        for tensor in engine.signature.inputs
    }


def own_answer(model: Any, frame: pandas.DataFrame) -> Any:
    given = frame.to_numpy(object) if frame.columns[0] == "x0" else frame
    return model.predict_proba(given) if hasattr(model, "predict_proba") else model.predict(given)


@pytest.mark.parametrize("case", CASES)
def test_columns_and_their_types_are_found_and_answers_are_the_librarys(tmp_path: Path, case: str) -> None:
    make, frame, expected = CASES[case]
    model = make()
    engine = engine_of(model, tmp_path)
    assert {tensor.name: tensor.datatype for tensor in engine.signature.inputs} == expected
    [answer] = engine.predict(inputs_of(engine, frame), {}).values()
    np.testing.assert_array_equal(answer, own_answer(model, frame))


def test_known_categories_are_examples(tmp_path: Path) -> None:
    engine = engine_of(classifier().fit(FRAME, LABELS), tmp_path)
    examples = {tensor.name: tensor.examples for tensor in engine.signature.inputs}
    assert examples == {"age": (), "city": CITIES, "plan": ("basic", "plus"), "member": ()}
    assert engine.signature.classes == ("no", "yes")


def test_a_category_that_the_model_does_not_know_is_the_callers_fault(tmp_path: Path) -> None:
    engine = engine_of(classifier().fit(FRAME, LABELS), tmp_path)
    inputs = inputs_of(engine, FRAME[:1])
    inputs["city"][0] = "Atlantis"
    with pytest.raises(ProblemError, match="Atlantis"):
        engine.predict(inputs, {})


def test_a_pipeline_of_texts_takes_one_text_a_row(tmp_path: Path) -> None:
    texts = FRAME.city + " " + FRAME.plan
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, LABELS)
    engine = engine_of(model, tmp_path)
    [tensor] = engine.signature.inputs
    assert (tensor.name, tensor.datatype, tensor.shape) == ("text", "BYTES", (-1,))
    [answer] = engine.predict({"text": texts.to_numpy(object)}, {}).values()
    np.testing.assert_array_equal(answer, model.predict_proba(texts))


def test_numbers_alone_stay_one_matrix(tmp_path: Path) -> None:
    engine = engine_of(StandardScaler().fit(FRAME[["age"]]), tmp_path)
    [tensor] = engine.signature.inputs
    assert (tensor.datatype, tensor.shape, tensor.columns) == ("FP64", (-1, 1), ("age",))


def city_length(frame: pandas.DataFrame) -> np.ndarray:
    return frame["city"].str.len().to_numpy()[:, None]


def test_columns_that_nothing_in_the_model_describes_need_a_signature(tmp_path: Path) -> None:
    lengths = ColumnTransformer(
        [("f", FunctionTransformer(city_length), ["city"]), ("n", "passthrough", ["age"])]
    )
    model = make_pipeline(lengths, LinearRegression()).fit(FRAME, FRAME.age)
    with pytest.raises(
        SignatureNeededError, match=r"a signature\.json beside the model has to name"
    ) as caught:
        engine_of(model, tmp_path)
    [tensor] = caught.value.skeleton["inputs"]
    assert tensor["columns"] == list(FRAME.columns)


class Widthless(BaseEstimator):
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return rows[:, 0]


def test_an_estimator_that_does_not_say_its_width_needs_a_signature(tmp_path: Path) -> None:
    with pytest.raises(SignatureNeededError, match="does not say how many features it takes"):
        engine_of(Widthless(), tmp_path)
