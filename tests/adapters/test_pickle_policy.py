"""What the allow-list lets in, looked at in the libraries that are installed."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
import warnings
from collections.abc import Iterator

import pytest

from modelstacks.adapters.pickles.policy import uses

SKIPPED = (".tests", "setup", "conftest", ".externals", "dask", "spark", "testing", "cupy", "torch", "f2py")
# Classes of other libraries that scikit-learn's modules have imported, each harmless when it is made empty.
FOREIGN = {
    *("abc", "builtins", "collections", "collections.abc", "numbers", "typing", "_cyutility"),
    *("numpy", "numpy.ma", "scipy.interpolate._bsplines"),
}


def reachable(package: str) -> Iterator[tuple[str, str, object]]:
    """Every name that a pickle may have made or called, and what it is."""
    root = importlib.import_module(package)
    modules = [package]
    if hasattr(root, "__path__"):
        modules += [
            found.name for found in pkgutil.walk_packages(root.__path__, f"{package}.", lambda _: None)
        ]
    for module in modules:
        if any(part in module for part in SKIPPED):
            continue
        try:
            loaded = importlib.import_module(module)
        except Exception:
            continue
        for name in dir(loaded):
            if uses((module, name)) - {"value"}:
                yield module, name, getattr(loaded, name)


@pytest.mark.parametrize("package", ["sklearn", "scipy.sparse", "scipy.interpolate", "xgboost", "lightgbm"])
def test_nothing_can_be_made_or_called_but_what_the_library_defines_itself(package: str) -> None:
    strange = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module, name, value in reachable(package):
            if not inspect.isclass(value) and not callable(value):
                continue  # a constant
            home = str(getattr(value, "__module__", None) or "")
            if home.split(".")[0] != package.split(".")[0] and home not in FOREIGN and "__pyx" not in name:
                strange.append(f"{module}.{name} of {home}")
    assert strange == []


def test_no_function_can_be_called_but_those_that_extensions_pickle_themselves_with() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        functions = {
            name
            for module, name, value in reachable("sklearn")
            if "call" in uses((module, name)) and isinstance(value, types.FunctionType)
        }
    assert functions == set()
    assert uses(("sklearn.neighbors._kd_tree", "newObj")) == {"value", "new", "call"}


def test_no_class_that_may_be_made_compiles_or_opens_what_its_state_says() -> None:
    """scipy.stats' distributions run the text `_parse_arg_template` of their state."""
    import scipy.stats

    kind = type(scipy.stats.norm)
    assert "exec(" in inspect.getsource(kind._attach_argparser_methods)
    assert uses((kind.__module__, kind.__qualname__)) == frozenset()
    for module, name in [
        ("scipy.io._fortran", "FortranFile"),
        ("xgboost.core", "DMatrix"),
        ("lightgbm.basic", "Dataset"),
        ("sklearn.utils.parallel", "Parallel"),
        ("sklearn.ensemble._forest", "Parallel"),
        ("sklearn.pipeline", "Parallel"),
        ("joblib.memory", "Memory"),
        ("joblib.numpy_pickle", "NumpyUnpickler"),
        ("joblib.numpy_pickle_compat", "ZNDArrayWrapper"),
        ("numpy._core", "_ufunc_reconstruct"),
        ("sklearn.datasets._base", "Path"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("builtins", "getattr"),
        ("types", "CodeType"),
    ]:
        assert uses((module, name)) == frozenset(), f"{module}.{name}"


def test_none_of_it_is_on_the_list_of_known_weapons() -> None:
    from picklescan.scanner import _unsafe_globals

    allowed = [
        f"{module}.{name}"
        for module, names in _unsafe_globals.items()
        for name in (names if not isinstance(names, str) else [names])
        if uses((module, name))
    ]
    assert allowed == []
