"""scikit-learn estimators and pipelines: skops files; pickles only when they are asked for by name."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from model_server.engines import Engine, Tensors, example_of, no_parameters
from model_server.engines._columns import Columns, assemble_for, columns_of
from model_server.engines._versions import Saved, scikit_learn_version
from model_server.problems import Fault, ModelRefusedError, invalid
from model_server.settings import Settings
from model_server.signature import DATATYPES, Signature, Tensor, read_signature

ENGINE = "sklearn"

_NO_MODEL = (
    "_*tests?|_*testing|_test_common|conftest|datasets|externals|_build_utils|callback|inspection|parallel"
    "|_joblib|_repr_html|discovery|estimator_checks|_mocking"
)
# The modules whose own classes a skops file may name without trust_code. Not scipy.stats, whose distributions
# compile a text of their state; nor numpy.lib, where a class removes the folder that its state names.
TRUSTED = (
    rf"sklearn(?!.*\.({_NO_MODEL})\b)(\.\w+)*",
    r"numpy(\.random(\.\w+)?|\.ma(\.core)?|\.dtypes|\._?core\.\w+)?",
    r"scipy\.(interpolate|sparse|spatial|special)(\.(?!linalg)\w+)*",
)
MISNAMED = ("_loss",)  # scikit-learn 1.5 and before name classes of sklearn._loss._loss so
PICKLES = (".pkl", ".pickle", ".joblib")


def accepts(directory: Path) -> bool:
    return any(path.suffix in (".skops", *PICKLES) for path in directory.iterdir() if path.is_file())


def saved_with(directory: Path) -> Saved | None:
    import sklearn

    version = scikit_learn_version(_artifact(directory))
    return Saved("scikit-learn", version, sklearn.__version__) if version else None


def load(directory: Path, settings: Settings) -> Engine:
    threads = settings.threads or 1
    # OpenMP's limit belongs to each thread, and only its environment reaches them all; BLAS is limited below.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import sklearn
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    estimator = _read(_artifact(directory), trust_code=settings.trust_code)
    threadpool_limits(limits=threads)
    if hasattr(estimator, "get_params"):  # a pool of threads a call costs more than a few rows do
        jobs = [name for name in estimator.get_params(deep=True) if name.split("__")[-1] == "n_jobs"]
        estimator.set_params(**dict.fromkeys(jobs, threads))
    # Columns are matched by name before they get here; a bare array is meant.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    columns = columns_of(estimator) if (given := read_signature(directory)) is None else None
    task, method, output = _task(estimator, columns)
    if given is not None:
        signature, assemble = given, assemble_for(given.inputs, estimator)
    else:
        assert columns is not None
        labels = getattr(estimator, "classes_", ()) if task == "classification" else ()
        signature = Signature(columns.tensors, (output,), tuple(str(label) for label in labels))
        assemble = columns.assemble
    if not _takes_nan(estimator):
        # Refused before it gets here, with row and field.
        inputs = tuple(replace(tensor, nan=False) for tensor in signature.inputs)
        signature = replace(signature, inputs=inputs)
    return Sklearn(
        framework_version=sklearn.__version__,
        task=task,
        signature=signature,
        call=getattr(estimator, method),
        assemble=assemble,
    )


@dataclass
class Sklearn(Engine):
    framework_version: str
    task: str
    signature: Signature
    call: Any
    assemble: Callable[[Tensors], Any]  # inputs -> what the estimator takes
    name: str = ENGINE
    framework: str = "scikit-learn"
    batches: bool = True
    parallel: bool = False
    derives_columns: bool = True

    def __post_init__(self) -> None:
        self.output = self.signature.outputs[0].name
        self.dtype = self.signature.outputs[0].dtype

    def predict(self, inputs: Tensors, parameters: Mapping[str, object]) -> Tensors:
        no_parameters(parameters, ENGINE)
        try:
            result = self.call(self.assemble(inputs))
        except ValueError as error:  # what an estimator says of its input: NaN, an unknown category
            raise invalid(Fault(str(error).strip().splitlines()[0])) from error
        return {self.output: np.asarray(result).astype(self.dtype, copy=False)}


def _artifact(directory: Path) -> Path:
    files = sorted(path for path in directory.iterdir() if path.suffix in (".skops", *PICKLES))
    skops = [path for path in files if path.suffix == ".skops"]
    chosen = skops or files
    if len(chosen) != 1:
        held = ", ".join(path.name for path in chosen) or "none"
        raise ModelRefusedError(
            f"{directory} must hold one scikit-learn model (model.skops); it holds: {held}"
        )
    return chosen[0]


def _read(path: Path, *, trust_code: bool) -> Any:
    if path.suffix != ".skops":
        if not trust_code:
            raise ModelRefusedError(
                f"{path.name} is a pickle, which can run any code when read; save the model with skops, "
                "or set MODEL_SERVER_TRUST_CODE=true if you made this file yourself"
            )
        import joblib

        try:
            return joblib.load(path)
        except Exception as error:  # a pickle may raise anything
            raise ModelRefusedError(
                f"{path.name} cannot be unpickled: {type(error).__name__}: {error}"
            ) from error
    import skops.io

    try:
        unknown = skops.io.get_untrusted_types(file=path)
        refused = [name for name in unknown if not _is_library_class(name)]
        if refused and not trust_code:
            if all(map(_is_missing_here, refused)):
                raise ModelRefusedError(
                    f"{path.name} names {', '.join(sorted(refused)[:5])}, which the installed scikit-learn, "
                    "numpy and scipy do not have"
                )
            raise ModelRefusedError(
                f"{path.name} names {', '.join(sorted(refused)[:5])}; only plain classes of scikit-learn, "
                "numpy and scipy are loaded, unless MODEL_SERVER_TRUST_CODE=true says that you trust them"
            )
        return skops.io.load(path, trusted=unknown)
    except ModelRefusedError:
        raise
    except Exception as error:  # a broken zip, a missing class, a version that changed
        raise ModelRefusedError(
            f"{path.name} is not a readable skops file: {type(error).__name__}: {error}"
        ) from error


def _is_library_class(name: str) -> bool:
    """Whether a dotted name is a class or a ufunc that a trusted library defines itself.

    A function is not: some, deep in these libraries, run code that they are given.
    """
    module, _, attribute = name.rpartition(".")
    if not any(re.fullmatch(own, module) for own in TRUSTED):
        return False
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError):
        return False
    if isinstance(found, np.ufunc):
        return True
    home = str(getattr(found, "__module__", ""))
    return isinstance(found, type) and any(re.fullmatch(own, home) for own in TRUSTED)


def _is_missing_here(name: str) -> bool:
    """Whether a dotted name is a trusted library's own, but not of the installed version."""
    module, _, attribute = name.rpartition(".")
    if module in MISNAMED:
        return True
    if not any(re.fullmatch(own, module) for own in TRUSTED):
        return False
    try:
        return not hasattr(import_module(module), attribute)
    except ImportError:
        return True


def _task(estimator: Any, columns: Columns | None) -> tuple[str, str, Tensor]:
    """The task, the method that does it, and its output."""
    from sklearn.base import is_classifier, is_regressor

    if is_classifier(estimator) and hasattr(estimator, "predict_proba") and hasattr(estimator, "classes_"):
        return (
            "classification",
            "predict_proba",
            Tensor("probabilities", "FP64", (-1, len(estimator.classes_))),
        )
    if is_classifier(estimator):  # no probabilities: the winning label
        labels = np.asarray(getattr(estimator, "classes_", np.zeros(0, dtype=np.int64)))
        return "classification", "predict", Tensor("labels", DATATYPES.get(labels.dtype, "BYTES"), (-1,))
    if _kind(estimator) == "clusterer" and hasattr(estimator, "predict"):
        return "clustering", "predict", Tensor("labels", "INT64", (-1,))
    if is_regressor(estimator):
        return "regression", "predict", Tensor("predictions", "FP64", (-1, *_targets(estimator, columns)))
    if hasattr(estimator, "predict"):
        kind = _kind(estimator)
        outliers = kind == "outlier_detector"
        return (
            str(kind or "prediction"),
            "predict",
            Tensor("labels" if outliers else "predictions", "INT64" if outliers else "FP64", (-1,)),
        )
    if hasattr(estimator, "transform"):
        return "transformation", "transform", Tensor("features", "FP64", (-1, -1))
    raise ModelRefusedError(f"{type(estimator).__name__} has neither predict, predict_proba nor transform")


def _takes_nan(estimator: Any) -> bool:
    if hasattr(estimator, "__sklearn_tags__"):
        return bool(estimator.__sklearn_tags__().input_tags.allow_nan)
    return bool(estimator._get_tags()["allow_nan"])  # noqa: SLF001  scikit-learn 1.5 has no other


def _kind(estimator: Any) -> str | None:
    if hasattr(estimator, "__sklearn_tags__"):
        kind: str | None = estimator.__sklearn_tags__().estimator_type
        return kind
    return getattr(estimator, "_estimator_type", None)  # scikit-learn 1.5


def _targets(estimator: Any, columns: Columns | None) -> tuple[int, ...]:
    """The shape of one answer: () for a number, (n,) for several. Only a try tells."""
    if columns is None:  # the signature.json says
        return ()
    row = {tensor.name: example_of(tensor) for tensor in columns.tensors}
    try:
        return tuple(np.shape(estimator.predict(columns.assemble(row)))[1:])
    except Exception:  # the warm-up prediction will say what the columns lack
        return ()
