"""Each engine's answers are its library's own on the same rows: batched or alone, in any order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_server.engines import choose, discover, names
from model_server.problems import ModelRefusedError, ProblemError
from model_server.settings import Settings
from model_server.worker import load_engine
from support.model_server import ARTIFACTS, predictions

TABULAR = {
    "churn-xgboost": "xgboost",
    "breast-cancer-lightgbm": "lightgbm",
    "diabetes-sklearn": "sklearn",
    "wine-kmeans": "sklearn",
    "digits-onnx": "onnx",
}


def engine_of(directory: Path, **options: Any) -> Any:
    return load_engine(directory, Settings(model_name="model", **options))[0]


def ask(engine: Any, rows: np.ndarray) -> np.ndarray:
    [tensor] = engine.signature.inputs
    return np.asarray(engine.present(engine.predict({tensor.name: rows.astype(tensor.dtype)}, {})))


@pytest.mark.parametrize("artifact", TABULAR)
def test_answers_are_the_trainers_in_any_order_and_company(artifact: str) -> None:
    engine = engine_of(ARTIFACTS / artifact)
    rows, expected = np.load(ARTIFACTS / artifact / "holdout.npy"), np.array(predictions(artifact))
    together = ask(engine, rows)
    np.testing.assert_allclose(together, expected, rtol=1e-5, atol=1e-7)
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_allclose(ask(engine, rows[order]), expected[order], rtol=1e-5, atol=1e-7)
    for i in range(len(rows)):
        np.testing.assert_allclose(ask(engine, rows[i : i + 1])[0], together[i], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("artifact", TABULAR)
def test_the_engine_is_chosen_by_what_the_artifact_is(artifact: str) -> None:
    assert TABULAR[artifact] == choose(ARTIFACTS / artifact).ENGINE


def test_every_engine_is_named_as_its_module() -> None:
    assert {name: module.ENGINE for name, module in discover().items()} == {name: name for name in names()}
    assert set(names()) == {"lightgbm", "onnx", "script", "sklearn", "transformers", "xgboost"}


@pytest.mark.parametrize("artifact", TABULAR)
def test_parameters_that_mean_nothing_are_refused(artifact: str) -> None:
    engine = engine_of(ARTIFACTS / artifact)
    with pytest.raises(ProblemError, match="takes no parameters"):
        engine.predict(engine.example(), {"temperature": 1})


@pytest.mark.parametrize(
    ("options", "task", "shape"),
    [
        ({"objective": "reg:squarederror"}, "regression", ()),
        ({"objective": "count:poisson"}, "regression", ()),
        ({"objective": "binary:logistic"}, "classification", (2,)),
        ({"objective": "multi:softprob", "num_class": 3}, "classification", (3,)),
        ({"objective": "multi:softmax", "num_class": 3}, "classification", (3,)),
        ({"objective": "rank:pairwise"}, "ranking", ()),
    ],
)
@pytest.mark.parametrize("suffix", ["json", "ubj"])
def test_xgboost_objectives(
    tmp_path: Path, options: dict[str, Any], task: str, shape: tuple[int, ...], suffix: str
) -> None:
    import xgboost

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 3)).astype(np.float32)
    target = rng.integers(0, options.get("num_class", 2), 60)
    data = xgboost.DMatrix(rows, target)
    if task == "ranking":
        data.set_group([30, 30])
    booster = xgboost.train(options | {"nthread": 1}, data, 4)
    booster.save_model(tmp_path / f"model.{suffix}")
    engine = engine_of(tmp_path)
    got = ask(engine, rows)
    assert engine.task == task
    assert got.shape[1:] == shape == engine.signature.outputs[0].shape[1:]
    own = booster.predict(data)
    if options["objective"] == "binary:logistic":
        own = np.stack((1 - own, own), axis=1)
    if options["objective"] == "multi:softmax":
        got = got.argmax(axis=1)
    np.testing.assert_allclose(got, own, rtol=1e-6)


def test_xgboost_stops_where_early_stopping_did(tmp_path: Path) -> None:
    import xgboost

    rng = np.random.default_rng(0)
    rows, noise = rng.normal(size=(80, 3)).astype(np.float32), rng.normal(size=80)
    model = xgboost.XGBRegressor(n_estimators=50, early_stopping_rounds=2, n_jobs=1)
    model.fit(rows[:40], noise[:40], eval_set=[(rows[40:], noise[40:])], verbose=False)
    assert model.best_iteration < 40
    model.save_model(tmp_path / "model.json")
    np.testing.assert_allclose(ask(engine_of(tmp_path), rows), model.predict(rows), rtol=1e-6)


@pytest.mark.parametrize("objective", ["regression", "binary", "multiclass"])
def test_lightgbm_objectives(tmp_path: Path, objective: str) -> None:
    import lightgbm

    rng = np.random.default_rng(0)
    rows, target = rng.normal(size=(80, 3)), rng.integers(0, 3 if objective == "multiclass" else 2, 80)
    options = {"objective": objective, "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    options |= {"num_class": 3} if objective == "multiclass" else {}
    booster = lightgbm.train(options, lightgbm.Dataset(rows, target), 4)
    booster.save_model(tmp_path / "model.txt")
    own = booster.predict(rows)
    expected = np.stack((1 - own, own), axis=1) if objective == "binary" else own
    np.testing.assert_allclose(ask(engine_of(tmp_path), rows), expected, rtol=1e-9)


def dump(estimator: Any, directory: Path) -> Path:
    import skops.io

    skops.io.dump(estimator, directory / "model.skops")
    return directory


def test_sklearn_tasks(tmp_path: Path) -> None:
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest, RandomForestClassifier
    from sklearn.linear_model import LinearRegression
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(40, 3)), np.where(rng.random(40) > 0.5, "yes", "no")
    forest = RandomForestClassifier(5, random_state=0, n_jobs=-1).fit(rows, labels)
    cases: list[tuple[Any, str, Any]] = [
        (forest, "classification", forest.predict_proba(rows)),
        (svc := LinearSVC().fit(rows, labels), "classification", svc.predict(rows)),
        (means := KMeans(2, n_init=1, random_state=0).fit(rows), "clustering", means.predict(rows)),
        (line := LinearRegression().fit(rows, rows[:, 0]), "regression", line.predict(rows)),
        (plane := LinearRegression().fit(rows, rows[:, :2]), "regression", plane.predict(rows)),
        (
            alarm := IsolationForest(n_estimators=5, random_state=0).fit(rows),
            "outlier_detector",
            alarm.predict(rows),
        ),
        (axes := PCA(2).fit(rows), "transformation", axes.transform(rows)),
    ]
    for i, (estimator, task, expected) in enumerate(cases):
        folder = tmp_path / str(i)
        folder.mkdir()
        engine = engine_of(dump(estimator, folder))
        got = ask(engine, rows)
        assert engine.task == task
        assert len(engine.signature.outputs[0].shape) == np.asarray(expected).ndim
        if got.dtype.kind == "O":
            assert got.tolist() == expected.tolist()
        else:
            np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_sklearn_pipelines_that_pick_columns_by_name_get_them(tmp_path: Path) -> None:
    import json

    import pandas
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pandas.DataFrame({"age": [20.0, 30.0, 40.0, 50.0], "city": ["Bonn", "Rome", "Bonn", "Oslo"]})
    steps = [("scale", StandardScaler(), ["age"]), ("hot", OneHotEncoder(handle_unknown="ignore"), ["city"])]
    model = make_pipeline(ColumnTransformer(steps), LinearRegression()).fit(frame, [1.0, 2.0, 3.0, 4.0])
    signature = {
        "inputs": [
            {"name": "age", "datatype": "FP64", "shape": [-1]},
            {"name": "city", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [{"name": "predictions", "datatype": "FP64", "shape": [-1]}],
    }
    (tmp_path / "signature.json").write_text(json.dumps(signature), encoding="utf-8")
    engine = engine_of(dump(model, tmp_path))
    inputs = {"age": frame["age"].to_numpy(), "city": np.array(frame["city"].tolist(), dtype=object)}
    np.testing.assert_allclose(engine.predict(inputs, {})["predictions"], model.predict(frame))


def test_sklearn_refuses_what_is_not_a_library_class(tmp_path: Path) -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    for function in (eval, np.f2py.run_main, np.testing.measure):
        folder = tmp_path / function.__name__
        folder.mkdir()
        skops.io.dump(FunctionTransformer(function), folder / "model.skops")
        with pytest.raises(ModelRefusedError, match="only plain classes of scikit-learn"):
            engine_of(folder)


def test_a_pickle_is_read_only_where_it_is_allowed(tmp_path: Path) -> None:
    import joblib
    from sklearn.linear_model import LinearRegression

    rows = np.arange(6.0).reshape(3, 2)
    model = LinearRegression().fit(rows, [1.0, 2.0, 3.0])
    joblib.dump(model, tmp_path / "model.joblib")
    with pytest.raises(ModelRefusedError, match="MODEL_SERVER_TRUST_CODE=true"):
        engine_of(tmp_path)
    np.testing.assert_allclose(ask(engine_of(tmp_path, trust_code=True), rows), model.predict(rows))


def graph(batch: int | str) -> bytes:
    """y = 2 x, and the words of `text` back, for `batch` rows."""
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "double", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(("batch", "batches"), [("n", True), (1, False)])
def test_onnx_graphs_with_a_fixed_batch_are_called_once_a_row(
    tmp_path: Path, batch: int | str, batches: bool
) -> None:
    (tmp_path / "model.onnx").write_bytes(graph(batch))
    engine = engine_of(tmp_path)
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert engine.batches is batches
    assert engine.signature.inputs[0].shape == (-1, 2)
    np.testing.assert_array_equal(ask(engine, rows), rows * 2)


def test_onnx_says_how_to_convert_a_classifier_with_maps(tmp_path: Path) -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    model = LogisticRegression().fit(rows, rows[:, 0] > 0)
    (tmp_path / "model.onnx").write_bytes(to_onnx(model, rows[:1]).SerializeToString())
    with pytest.raises(ModelRefusedError, match="zipmap=False"):
        engine_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.json", b'{"learner": {"broken": 1}}', "not a readable XGBoost model"),
        ("model.json", b'{"learner": {"a', "not a readable XGBoost model: Expecting"),
        ("model.ubj", b"nonsense", "not a readable XGBoost model"),
        ("model.txt", b"tree\nnonsense", "not a readable LightGBM model"),
        ("model.onnx", b"nonsense", "not a readable ONNX model"),
        ("model.skops", b"nonsense", "not a readable skops file"),
        ("model.bin", b"nonsense", "no engine"),
    ],
)
def test_an_artifact_that_cannot_be_read_is_one_clear_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelRefusedError, match=message) as caught:
        engine_of(tmp_path)
    assert "\n" not in str(caught.value)


def test_two_engines_for_one_artifact_are_a_question(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(graph("n"))
    (tmp_path / "model.txt").write_bytes(b"tree\n")
    with pytest.raises(ModelRefusedError, match="lightgbm and onnx"):
        choose(tmp_path)
    assert choose(tmp_path, "onnx").ENGINE == "onnx"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "signature.json cannot be read"),
        ("[]", "signature.json cannot be read"),
        ('{"inputs": []}', "no 'outputs'"),
        ('{"inputs": [{"name": "x", "datatype": "FP7", "shape": [-1]}], "outputs": []}', "FP7"),
        (
            '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "columns": ["a"]}], "outputs": []}',
            "1 col",
        ),
    ],
)
def test_a_wrong_signature_file_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "model.onnx").write_bytes(graph("n"))
    (tmp_path / "signature.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelRefusedError, match=message):
        engine_of(tmp_path)


def test_a_signature_that_is_not_the_models_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(graph("n"))
    (tmp_path / "signature.json").write_text(
        '{"inputs": [{"name": "z", "datatype": "FP32", "shape": [-1, 2]}],'
        ' "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]}',
        encoding="utf-8",
    )
    with pytest.raises(ModelRefusedError, match="warm-up"):
        engine_of(tmp_path)


def test_a_distribution_in_a_skops_file_does_not_compile_what_its_state_says(tmp_path: Path) -> None:
    """scipy.stats' distributions compile `_parse_arg_template`; their classes are SciPy's own."""
    import copy
    import zipfile

    import scipy.stats
    import skops.io
    from sklearn.preprocessing import StandardScaler

    model = StandardScaler()
    model.hidden = copy.copy(scipy.stats.norm)
    skops.io.dump(model, tmp_path / "made.skops")
    canary = tmp_path / "canary"
    with (
        zipfile.ZipFile(tmp_path / "made.skops") as made,
        zipfile.ZipFile(tmp_path / "model.skops", "w") as out,
    ):
        for name in made.namelist():
            content = made.read(name)
            code = rf"\\nimport os; os.mkdir({str(canary)!r})\\ndef _parse_args(self".encode()
            out.writestr(name, content.replace(rb"\\ndef _parse_args(self", code, 1))
    (tmp_path / "made.skops").unlink()
    with pytest.raises(ModelRefusedError, match=r"names scipy\.stats\._continuous_distns\.norm_gen"):
        engine_of(tmp_path)
    assert not canary.exists()
