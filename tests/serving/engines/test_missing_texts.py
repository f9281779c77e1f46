"""A text that is missing: null, where the fitted model takes one, as the library itself answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
from model_server.codecs import negotiate
from model_server.engines import Engine
from model_server.openapi import describe
from model_server.problems import ModelRefusedError, ProblemError
from model_server.settings import Settings
from model_server.signature import read_signature
from model_server.validation import InputReader
from model_server.worker import load_engine
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

AGES = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
LABELS = [0, 1, 0, 1, 0, 1]
CITIES = ["Oslo", "Rome", "Oslo", "Oslo", "Rome", "Rome"]


def frame(missing: Any = "Oslo") -> pandas.DataFrame:
    """Ages and cities; every third city is `missing`."""
    cities = [missing if index % 3 == 2 else city for index, city in enumerate(CITIES)]
    return pandas.DataFrame({"age": AGES, "city": pandas.Series(cities, dtype=object)})


def model(encoder: Any, fitted_with: Any = "Oslo") -> Any:
    columns = ColumnTransformer([("c", encoder, ["city"]), ("n", "passthrough", ["age"])])
    return make_pipeline(columns, LogisticRegression()).fit(frame(fitted_with), LABELS)


def engine_of(fitted: Any, directory: Path) -> Engine:
    joblib.dump(fitted, directory / "model.joblib")
    return load_engine(directory, Settings(model_name="model", trust_code=True))[0]


def frequent(**options: Any) -> Any:
    return make_pipeline(SimpleImputer(strategy="most_frequent", **options), OneHotEncoder())


# What is fitted, with which mark for a missing text.
TAKE: dict[str, tuple[Any, Any]] = {
    "encoder, None among its categories": (OneHotEncoder(), None),
    "encoder, NaN among its categories": (OneHotEncoder(), np.nan),
    "encoder of ranks": (OrdinalEncoder(encoded_missing_value=-1), np.nan),
    "encoder that ignores what it does not know": (OneHotEncoder(handle_unknown="ignore"), "Oslo"),
    "imputer of NaN": (frequent(), np.nan),
    "imputer of NaN, fitted without one": (frequent(), "Oslo"),
    "imputer of None": (frequent(missing_values=None), None),
    "union of two encoders": (
        FeatureUnion([("a", OneHotEncoder()), ("b", OrdinalEncoder(encoded_missing_value=-1))]),
        np.nan,
    ),
}


@pytest.mark.parametrize("case", TAKE)
@pytest.mark.parametrize("cities", [[None], [None, "Rome"], ["Rome", None, "Oslo"], ["Rome"]])
def test_null_is_what_was_missing_in_training(tmp_path: Path, case: str, cities: list[str | None]) -> None:
    encoder, mark = TAKE[case]
    fitted = model(encoder, mark)
    engine = engine_of(fitted, tmp_path)
    reader = InputReader(engine.signature)
    inputs = reader.rows([{"age": 2.5, "city": city} for city in cities])
    [answer] = engine.predict(inputs, {}).values()
    own = np.nan if mark == "Oslo" else mark
    texts = [own if city is None else city for city in cities]
    table = pandas.DataFrame({"age": [2.5] * len(cities), "city": pandas.Series(texts, dtype=object)})
    np.testing.assert_array_equal(answer, fitted.predict_proba(table))


@pytest.mark.parametrize(
    "encoder", [OneHotEncoder(), make_pipeline(CountVectorizer()), FeatureUnion([("a", OneHotEncoder())])]
)
def test_null_is_refused_with_the_column_where_the_model_takes_none(tmp_path: Path, encoder: Any) -> None:
    chosen = "city" if "CountVectorizer" in repr(encoder) else ["city"]
    columns = ColumnTransformer([("c", encoder, chosen), ("n", "passthrough", ["age"])])
    engine = engine_of(make_pipeline(columns, LogisticRegression()).fit(frame(), LABELS), tmp_path)
    with pytest.raises(ProblemError) as raised:
        InputReader(engine.signature).rows([{"age": 1, "city": "Oslo"}, {"age": 1, "city": None}])
    [fault] = raised.value.errors
    assert raised.value.status == 422
    assert (fault.field, fault.row) == ("city", 1)
    assert fault.message == "must be a string, not null; this column takes no missing values"


def test_a_column_that_two_parts_see_takes_null_only_if_both_do(tmp_path: Path) -> None:
    columns = ColumnTransformer(
        [("c", OneHotEncoder(handle_unknown="ignore"), ["city"]), ("v", CountVectorizer(), "city")]
    )
    engine = engine_of(make_pipeline(columns, LogisticRegression()).fit(frame(), LABELS), tmp_path)
    assert [tensor.nullable for tensor in engine.signature.inputs if tensor.name == "city"] == [False]


def test_missing_values_can_be_refused_altogether(tmp_path: Path) -> None:
    engine = engine_of(model(frequent(), np.nan), tmp_path)
    with pytest.raises(ProblemError):
        InputReader(engine.signature, nan=False).rows([{"age": 1, "city": None}])


def test_an_empty_csv_cell_is_a_missing_text_where_the_column_takes_one(tmp_path: Path) -> None:
    engine = engine_of(model(frequent(), np.nan), tmp_path)
    negotiated = negotiate("text/csv", "application/json")
    inputs, _ = negotiated.decode(InputReader(engine.signature), b"age,city\n1,\n2,Rome\n", negotiated.media)
    assert inputs["city"].tolist() == [None, "Rome"]


def test_the_apis_description_says_which_columns_may_be_null(tmp_path: Path) -> None:
    engine = engine_of(model(frequent(), np.nan), tmp_path)
    assert '"type": ["string", "null"]' in json.dumps(described(engine))


def described(engine: Engine) -> dict[str, Any]:
    from model_server.routes import ROUTES

    return describe(engine, "model", "", list(ROUTES))


def test_a_signature_says_so_for_a_model_that_does_not(tmp_path: Path) -> None:
    body = {
        "inputs": [
            {"name": "age", "datatype": "FP64", "shape": [-1]},
            {"name": "city", "datatype": "BYTES", "shape": [-1], "nullable": True, "examples": ["Oslo"]},
        ],
        "outputs": [{"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]}],
    }
    (tmp_path / "signature.json").write_text(json.dumps(body), encoding="utf-8")
    fitted = model(frequent(), np.nan)
    engine = engine_of(fitted, tmp_path)
    inputs = InputReader(engine.signature).rows([[2.5, None]])
    [answer] = engine.predict(inputs, {}).values()
    np.testing.assert_array_equal(answer, fitted.predict_proba(frame(np.nan)[2:3].assign(age=2.5)))


@pytest.mark.parametrize(("nullable", "datatype"), [("yes", "BYTES"), (True, "FP64")])
def test_a_signature_with_a_wrong_nullable_is_refused(
    tmp_path: Path, nullable: object, datatype: str
) -> None:
    tensor = {"name": "x", "datatype": datatype, "shape": [-1], "nullable": nullable}
    (tmp_path / "signature.json").write_text(json.dumps({"inputs": [tensor], "outputs": [tensor]}))
    with pytest.raises(ModelRefusedError, match="nullable of 'x'"):
        read_signature(tmp_path)
