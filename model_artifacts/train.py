"""Trains the small real models in this folder, on data sets that scikit-learn ships.

    python model_artifacts/train.py            all of them, in place
    python model_artifacts/train.py --out DIR  elsewhere; tests compare the predictions with those kept here

Each folder gets the artifact, signature.json, rows that training never saw (holdout.csv with a header;
holdout.npy in the dtype of the model's input) and predictions.json: what the trainer's own library says of
those rows, in the form in which POST /invocations answers. Same seeds, same predictions; the files' bytes may
differ between versions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.linear_model import RidgeCV
from sklearn.metrics import accuracy_score, adjusted_rand_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).resolve().parent
SEED = 7
HOLDOUT = 40  # rows

Array = np.ndarray[Any, Any]


def churn_xgboost(out: Path) -> None:
    """A binary classifier: gradient-boosted trees, in XGBoost's own JSON."""
    from xgboost import XGBClassifier

    data = load_breast_cancer()
    columns = [name.replace(" ", "_") for name in data.feature_names]
    x_train, x_test, y_train, y_test = _split(data.data.astype(np.float32), data.target, stratify=True)
    model = XGBClassifier(n_estimators=40, max_depth=3, learning_rate=0.3, random_state=SEED, n_jobs=1)
    model.fit(pd.DataFrame(x_train, columns=columns), y_train)
    model.get_booster().save_model(out / "model.json")
    predictions = model.predict_proba(pd.DataFrame(x_test, columns=columns))
    _signature(out, "FP32", columns, [("probabilities", "FP32", [-1, 2])], classes=data.target_names)
    _holdout(out, x_test, columns)
    _predictions(out, predictions, y_test, accuracy=accuracy_score(y_test, predictions.argmax(axis=1)))


def breast_cancer_lightgbm(out: Path) -> None:
    """The same question for LightGBM, in its text form."""
    from lightgbm import LGBMClassifier

    data = load_breast_cancer()
    columns = [name.replace(" ", "_") for name in data.feature_names]
    x_train, x_test, y_train, y_test = _split(data.data, data.target, stratify=True)
    model = LGBMClassifier(
        n_estimators=40,
        num_leaves=15,
        random_state=SEED,
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        verbose=-1,
    )
    model.fit(pd.DataFrame(x_train, columns=columns), y_train)
    model.booster_.save_model(out / "model.txt")
    predictions = np.asarray(model.predict_proba(pd.DataFrame(x_test, columns=columns)))
    _signature(out, "FP64", columns, [("probabilities", "FP64", [-1, 2])], classes=data.target_names)
    _holdout(out, x_test, columns)
    _predictions(out, predictions, y_test, accuracy=accuracy_score(y_test, predictions.argmax(axis=1)))


def diabetes_sklearn(out: Path) -> None:
    """A regression pipeline (scale, then ridge with a chosen penalty) on values in their natural units."""
    data = load_diabetes(scaled=False)
    x_train, x_test, y_train, y_test = _split(data.data, data.target)
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-2, 3, 20)))
    model.fit(pd.DataFrame(x_train, columns=data.feature_names), y_train)
    _skops(model, out)
    predictions = model.predict(pd.DataFrame(x_test, columns=data.feature_names))
    _signature(out, "FP64", data.feature_names, [("predictions", "FP64", [-1])])
    _holdout(out, x_test, data.feature_names)
    _predictions(out, predictions, y_test, r2=r2_score(y_test, predictions))


def wine_kmeans(out: Path) -> None:
    """Clustering: scale, then k-means with three centres; the cultivars serve only to score it."""
    data = load_wine()
    columns = [name.replace("/", "_") for name in data.feature_names]
    x_train, x_test, _, y_test = _split(data.data, data.target, stratify=True)
    model = make_pipeline(StandardScaler(), KMeans(n_clusters=3, n_init=10, random_state=SEED))
    model.fit(pd.DataFrame(x_train, columns=columns))
    _skops(model, out)
    predictions = model.predict(pd.DataFrame(x_test, columns=columns)).astype(np.int64)
    _signature(out, "FP64", columns, [("labels", "INT64", [-1])])
    _holdout(out, x_test, columns)
    _predictions(out, predictions, y_test, adjusted_rand=adjusted_rand_score(y_test, predictions))


def digits_onnx(out: Path) -> None:
    """An image classifier: 8x8 grey images of digits, a small neural network, converted to ONNX."""
    from PIL import Image
    from skl2onnx import to_onnx

    data = load_digits()
    grey = np.round(data.images * 255 / 16).astype(np.uint8)  # as a PNG holds them
    pixels = (grey.reshape(len(grey), 64) / 255).astype(np.float32)
    columns = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
    rows = np.arange(len(grey))
    train, test, y_train, y_test = _split(rows, data.target, stratify=True)
    model = MLPClassifier((48,), max_iter=400, random_state=SEED).fit(pixels[train], y_train)
    graph = to_onnx(model, pixels[:1], options={"zipmap": False}, target_opset=17)
    (out / "model.onnx").write_bytes(graph.SerializeToString())
    predictions = model.predict_proba(pixels[test])
    _signature(
        out,
        "FP32",
        columns,
        [("label", "INT64", [-1]), ("probabilities", "FP32", [-1, 10])],
        classes=data.target_names,
        name=graph.graph.input[0].name,
        image={"mode": "L", "height": 8, "width": 8, "layout": "flat"},
    )
    _holdout(out, pixels[test], columns)
    _predictions(out, predictions, y_test, accuracy=accuracy_score(y_test, predictions.argmax(axis=1)))
    Image.fromarray(grey[test[0]]).save(out / "holdout.png")  # the first row, as a client would send it


MODELS: dict[str, Callable[[Path], None]] = {
    "breast-cancer-lightgbm": breast_cancer_lightgbm,
    "churn-xgboost": churn_xgboost,
    "diabetes-sklearn": diabetes_sklearn,
    "digits-onnx": digits_onnx,
    "wine-kmeans": wine_kmeans,
}


def _split(x: Array, y: Array, *, stratify: bool = False) -> tuple[Array, Array, Array, Array]:
    parts = train_test_split(x, y, test_size=HOLDOUT, random_state=SEED, stratify=y if stratify else None)
    return parts[0], parts[1], parts[2], parts[3]


def _skops(model: Any, out: Path) -> None:
    import skops.io

    skops.io.dump(model, out / "model.skops")


def _signature(
    out: Path,
    datatype: str,
    columns: Sequence[str],
    outputs: Sequence[tuple[str, str, list[int]]],
    *,
    classes: Sequence[Any] = (),
    name: str = "input",
    image: dict[str, Any] | None = None,
) -> None:
    tensor: dict[str, Any] = {
        "name": name,
        "datatype": datatype,
        "shape": [-1, len(columns)],
        "columns": list(columns),
    }
    if image:
        tensor["image"] = image
    signature: dict[str, Any] = {
        "inputs": [tensor],
        "outputs": [{"name": n, "datatype": d, "shape": s} for n, d, s in outputs],
    }
    if len(classes):
        signature["classes"] = [str(label) for label in classes]
    _write_json(out / "signature.json", signature)


def _holdout(out: Path, x: Array, columns: Sequence[str]) -> None:
    pd.DataFrame(x, columns=list(columns)).to_csv(out / "holdout.csv", index=False, lineterminator="\n")
    np.save(out / "holdout.npy", np.ascontiguousarray(x))


def _predictions(out: Path, predictions: Array, truth: Array, **scores: float) -> None:
    rounded = {name: round(float(score), 4) for name, score in scores.items()}
    body = {"predictions": predictions.tolist(), "truth": truth.tolist(), "scores": rounded}
    _write_json(out / "predictions.json", body)


def _write_json(path: Path, body: Any) -> None:
    path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="train the models in model_artifacts/")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODELS)}; default: all")
    arguments = parser.parse_args()
    for name in arguments.names or MODELS:
        folder = arguments.out / name
        folder.mkdir(parents=True, exist_ok=True)
        MODELS[name](folder)
        scores = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))["scores"]
        print(name, *(f"{score} {value}" for score, value in scores.items()))


if __name__ == "__main__":
    main()
