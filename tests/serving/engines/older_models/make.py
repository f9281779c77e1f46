"""Makes the files beside it, with an older scikit-learn than the image's.

    uv run --no-project --python 3.11 --with scikit-learn==1.5.2 --with skops==0.16.0 --with numpy==2.4.6 \
        --with scipy==1.17.1 python tests/serving/engines/older_models/make.py
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import joblib
import numpy as np
import skops.io
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression

HERE = Path(__file__).parent


def main() -> None:
    rows = np.arange(24.0).reshape(12, 2) % 7
    line = LinearRegression().fit(rows, rows.sum(1))  # has no `tol`, which scikit-learn 1.7 and later reads
    forest = RandomForestClassifier(2, max_depth=2, random_state=0).fit(
        rows, rows[:, 0] > 3
    )  # loads anywhere
    # Names its loss as _loss.CyHalfSquaredError, which is sklearn._loss._loss.CyHalfSquaredError since 1.6.
    boosted = HistGradientBoostingRegressor(max_iter=1, min_samples_leaf=2).fit(rows, rows.sum(1))
    skops.io.dump(line, HERE / "line.skops", compression=zipfile.ZIP_DEFLATED)
    skops.io.dump(boosted, HERE / "boosted.skops", compression=zipfile.ZIP_DEFLATED)
    (HERE / "line.pkl").write_bytes(pickle.dumps(line, protocol=2))
    joblib.dump(forest, HERE / "forest.joblib", compress=3)


if __name__ == "__main__":
    main()
