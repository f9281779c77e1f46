"""Real models, as their libraries write them, that `lock` must accept."""

from __future__ import annotations

import functools
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostile import corpus
from hostile.corpus import ARTIFACTS, XGBOOST, Kit


@dataclass(frozen=True)
class Benign:
    """One model, and the engine that is to serve it."""

    name: str
    build: Callable[[Kit], object]
    engine: str
    trust: bool = False
    model: str = "source: artifact, path: models/m"


def models() -> list[Benign]:
    """Every benign model; names are unique."""
    found = [*files(), *pickles(), *folders()]
    assert len({case.name for case in found}) == len(found)
    return found


def files() -> Iterator[Benign]:
    def copy(source: str, name: str = "") -> Callable[[Kit], object]:
        return lambda kit: shutil.copy(ARTIFACTS / source, kit.folder / (name or Path(source).name))

    yield Benign("xgboost-json", copy("churn-xgboost/model.json"), "xgboost")
    yield Benign("lightgbm-text", copy("breast-cancer-lightgbm/model.txt"), "lightgbm")
    yield Benign("onnx", copy("digits-onnx/model.onnx"), "onnx")
    yield Benign("skops", copy("wine-kmeans/model.skops"), "sklearn")
    yield Benign("skops-pipeline", copy("diabetes-sklearn/model.skops"), "sklearn")
    yield Benign("xgboost-ubjson", lambda kit: booster().save_model(kit.folder / "model.ubj"), "xgboost")

    def with_data(kit: Kit) -> None:
        kit.write("model.onnx", corpus.onnx_of("weights/part 1.bin"))
        kit.write("weights/part 1.bin", bytes(8))

    yield Benign("onnx-with-data", with_data, "onnx")

    def foreign(kit: Kit) -> None:
        import skops.io

        skops.io.dump(trained()["xgboost"], kit.folder / "model.skops")

    yield Benign("skops-with-xgboost", foreign, "sklearn", trust=True)


def pickles() -> Iterator[Benign]:
    def dumped(name: str, compress: Any = 0, protocol: int | None = None) -> Callable[[Kit], object]:
        import joblib

        return lambda kit: joblib.dump(trained()[name], kit.folder / "model.joblib", compress, protocol)

    for name in trained():
        yield Benign(f"joblib-{name}", dumped(name), "sklearn", trust=True)
    for compress in ("zlib", "gzip", "bz2", "lzma", "xz"):
        yield Benign(f"joblib-forest-{compress}", dumped("forest", (compress, 3)), "sklearn", trust=True)
    for protocol in (2, 3, 4):
        yield Benign(f"joblib-text-protocol-{protocol}", dumped("text", 0, protocol), "sklearn", trust=True)
    for protocol in range(2, 6):
        yield Benign(
            f"pickle-columns-protocol-{protocol}",
            lambda kit, n=protocol: kit.write("model.pkl", pickle.dumps(trained()["columns"], n)),
            "sklearn",
            trust=True,
        )


def folders() -> Iterator[Benign]:
    bert = ARTIFACTS / "sentiment-bert"

    def transformers(weights: Callable[[Path], object]) -> Callable[[Kit], object]:
        def build(kit: Kit) -> None:
            for path in bert.iterdir():
                if path.suffix == ".json":
                    shutil.copy(path, kit.folder)
            weights(kit.folder)

        return build

    def torch(folder: Path, legacy: bool) -> None:
        import torch

        state = {"weight": torch.ones(2, 2), "bias": torch.nn.Parameter(torch.zeros(2))}
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)

    yield Benign(
        "transformers-safetensors",
        transformers(lambda folder: shutil.copy(bert / "model.safetensors", folder)),
        "transformers",
    )
    yield Benign(
        "transformers-torch", transformers(lambda folder: torch(folder, False)), "transformers", trust=True
    )
    yield Benign(
        "transformers-torch-before-1.6",
        transformers(lambda folder: torch(folder, True)),
        "transformers",
        trust=True,
    )

    def script(kit: Kit) -> None:
        import numpy as np

        kit.write("code/inference.py", "def model_fn(model_dir):\n    return lambda data: data\n")
        kit.write("code/requirements.txt", "pandas\n")
        np.save(kit.folder / "table.npy", np.arange(5))
        np.savez(kit.folder / "tables.npz", a=np.zeros(3), b=np.array(["x", None], dtype=object))

    yield Benign("script-with-arrays", script, "script", trust=True)

    def links(kit: Kit) -> None:
        kit.write("versions/3/model.json", XGBOOST.read_bytes())
        (kit.folder / "model.json").symlink_to("versions/3/model.json")
        (kit.folder / "again.json").hardlink_to(kit.folder / "versions/3/model.json")

    yield Benign(
        "links-inside", links, "xgboost", model="source: artifact, path: models/m, include: [model.json]"
    )

    def mlflow(kit: Kit) -> None:
        kit.write("model.json", XGBOOST.read_bytes())
        kit.write("MLmodel", "flavors: {xgboost: {data: model.json, xgb_version: 3.2.0}}\n")

    yield Benign(
        "mlflow-file-by-name",
        mlflow,
        "xgboost",
        model="source: artifact, path: models/m, include: [model.json]",
    )

    def names(kit: Kit) -> None:
        kit.write("model.json", XGBOOST.read_bytes())
        for name in (
            "größe.txt",
            "模型.txt",
            "notes (1).txt",
            ".git/config",
            "__pycache__/x.pyc",
            "a/b/c/d.txt",
        ):
            kit.write(name, b"x")

    yield Benign("ordinary-names", names, "xgboost")
    packed = {"./model.json": XGBOOST.read_bytes(), "./README.md": b"about"}
    yield Benign(
        "archive",
        lambda kit: kit.write("model.tar.gz", corpus.tar_of(packed)),
        "xgboost",
        model="source: artifact, path: models/m/model.tar.gz",
    )
    yield Benign(
        "s3",
        lambda kit: kit.objects.update({"m/model.json": XGBOOST.read_bytes()}),
        "xgboost",
        model="source: artifact, path: 's3://bucket/m'",
    )
    yield Benign(
        "hub",
        lambda kit: kit.repository.update(
            {path.name: path.read_bytes() for path in bert.iterdir() if path.suffix in (".json", ".onnx")}
        ),
        "transformers",
        model="source: huggingface, id: acme/m",
    )


@functools.cache
def trained() -> dict[str, Any]:
    """Small estimators of many kinds, fitted."""
    import numpy as np
    import pandas as pd
    from lightgbm import LGBMClassifier
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.cluster import KMeans
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import PCA
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
    )
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.feature_selection import SelectKBest
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer, StandardScaler
    from sklearn.svm import SVC
    from xgboost import XGBClassifier

    random = np.random.RandomState(0)
    rows = random.rand(60, 3)
    labels = (rows[:, 0] > 0.5).astype(int)
    table = pd.DataFrame({"size": rows[:, 0], "kind": np.array(["a", "b", "c"] * 20, dtype=object)})
    words = ["good day", "bad day", "fine", "poor"] * 15
    numeric: dict[str, Any] = {
        "logistic": LogisticRegression(),
        "forest": RandomForestClassifier(3, random_state=random),
        "boosting": GradientBoostingClassifier(n_estimators=2),
        "histogram-boosting": HistGradientBoostingClassifier(max_iter=2),
        "neighbours": KNeighborsClassifier(algorithm="kd_tree"),
        "svm": SVC(probability=False),
        "sgd": SGDClassifier(),
        "mlp": MLPClassifier((4,), max_iter=2),
        "calibrated": CalibratedClassifierCV(LogisticRegression(), cv=2),
        "gaussian-process": GaussianProcessRegressor(),
        "k-means": KMeans(2, n_init=1),
        "selected": make_pipeline(SelectKBest(k=2), PCA(2), LogisticRegression()),
        "functions": make_pipeline(FunctionTransformer(np.log1p), SplineTransformer(), LogisticRegression()),
        "search": GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
        "xgboost": XGBClassifier(n_estimators=2),
        "lightgbm": LGBMClassifier(n_estimators=2, verbose=-1),
    }
    made = {name: model.fit(rows, labels) for name, model in numeric.items()}
    columns = ColumnTransformer(
        [("n", make_pipeline(SimpleImputer(), StandardScaler()), ["size"]), ("k", OneHotEncoder(), ["kind"])]
    )
    made["columns"] = make_pipeline(columns, LogisticRegression()).fit(table, labels)
    made["text"] = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(words, labels)
    made["isotonic"] = IsotonicRegression().fit(rows[:, 0], labels)
    return made


def booster() -> Any:
    import xgboost

    made = xgboost.Booster()
    made.load_model(XGBOOST)
    return made
