"""Makes xgboost-<series>.json and .ubj beside it, and what the library that saved them predicts.

    for version in 2.1.4 3.0.5 3.1.3; do
        uv run --no-project --python 3.11 --with xgboost-cpu==$version --with numpy==2.4.6 \
            --with scipy==1.17.1 --with pandas==2.3.3 \
            python tests/serving/engines/older_models/make_xgboost.py
    done
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost

HERE = Path(__file__).parent
CITIES = ("Bergen", "Oslo", "Rome")


def main() -> None:
    series = ".".join(xgboost.__version__.split(".")[:2])
    numbers = np.arange(60.0, dtype=np.float32).reshape(30, 2) % 7
    matrix = xgboost.DMatrix(numbers, label=numbers.sum(1) % 3, feature_names=["a", "b"])
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3, "max_depth": 2}, matrix, 3)
    for kind in ("json", "ubj"):
        booster.save_model(HERE / f"xgboost-{series}.{kind}")
    table = pd.DataFrame({"age": numbers[:, 0], "city": pd.Categorical([CITIES[i % 3] for i in range(30)])})
    label = numbers[:, 0] + 10 * table["city"].cat.codes
    matrix = xgboost.DMatrix(table, label=label, enable_categorical=True)
    categories = xgboost.train({"max_depth": 3, "max_cat_to_onehot": 1}, matrix, 5)
    categories.save_model(HERE / f"xgboost-{series}-categories.json")
    predictions = {
        "rows": numbers[:6].tolist(),
        "predictions": booster.inplace_predict(numbers[:6]).tolist(),
        "table": [[float(age), city] for age, city in zip(table["age"][:6], table["city"][:6], strict=True)],
        "of_the_table": categories.predict(matrix)[:6].tolist(),
    }
    (HERE / f"xgboost-{series}-predictions.json").write_text(json.dumps(predictions) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
