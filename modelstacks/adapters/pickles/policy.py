"""What pickles of models may name, and what they may do with it.

Neither imports nor calls are harmless by themselves: calling the class `FortranFile` with a path empties that
file, and a SciPy distribution compiles text that it finds in its state. So each name is allowed for one of
three uses, the least that real models need:

    value   named, as an estimator's parameter is (`f_classif`, `numpy.float64`); never called by the pickle
    new     a class that is made empty (`object.__new__`) and then given its state, as pickle itself does
    call    a function or an extension's class that is called with arguments, and harmless with any

Everything else is refused. A test walks through the installed libraries and checks what each rule allows.
"""

from __future__ import annotations

import re
from typing import Final, Literal

__all__ = ["ARRAY_WRAPPER", "CONTAINERS", "Name", "Use", "current", "shown", "uses"]

Use = Literal["value", "new", "call"]
Name = tuple[str, str]  # module, and the name in it

ARRAY_WRAPPER: Final[Name] = ("joblib.numpy_pickle", "NumpyArrayWrapper")
# What may be filled by APPEND, SETITEM and ADDITEMS, apart from Python's own list, dict and set.
CONTAINERS: Final = frozenset(
    {
        *(("collections", name) for name in ("OrderedDict", "defaultdict", "Counter", "deque")),
        *(("builtins", name) for name in ("list", "dict", "set")),
        ("sklearn.utils._bunch", "Bunch"),
        ("sklearn.utils", "Bunch"),
    }
)

_VALUE: Final[frozenset[Use]] = frozenset({"value"})
_NEW: Final[frozenset[Use]] = frozenset({"value", "new"})
_CALL: Final[frozenset[Use]] = frozenset({"value", "new", "call"})
_NOTHING: Final[frozenset[Use]] = frozenset()

_RENAMED: Final = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2's names, which pickle maps
_BUILTINS: Final = (
    "bool|bytearray|bytes|complex|dict|float|frozenset|int|list|object|range|set|slice|str|tuple"
)
_UFUNCS: Final = (
    "abs|absolute|arccos|arccosh|arcsin|arcsinh|arctan|arctanh|cbrt|ceil|cos|cosh|degrees|exp|exp2|expm1|fabs"
    "|floor|log|log10|log1p|log2|mean|median|negative|positive|radians|reciprocal|rint|sign|sin|sinh|sqrt"
    "|square|tan|tanh|trunc"
)
_SCALARS: Final = (
    r"(u?int|float|complex)\d+|(u?(byte|short|intc|long|longlong|intp|int_))|bool_?|str_|bytes_|object_|void"
    r"|datetime64|timedelta64|half|single|double|longdouble|csingle|cdouble|clongdouble"
)
_BIT_GENERATORS: Final = "MT19937|PCG64|PCG64DXSM|Philox|SFC64"
_SPARSE: Final = "(csr|csc|coo|bsr|dia|dok|lil)_(matrix|array)"
# Parts of scikit-learn that fetch, run, draw or test things, and classes that start processes or write files.
_NO_MODEL: Final = re.compile(
    r"\.(_*tests?|_*testing|_test_common|conftest|datasets|externals|_build_utils|callback|inspection"
    r"|parallel|fixes|_plotting|_plot|_joblib|_repr_html|discovery|estimator_checks|_mocking)(\.|$)"
)
_NO_CLASS: Final = re.compile(
    r"Parallel|Memory|MethodType|NamedTuple|StringIO|LinearOperator|ABC\w*|Enum"
    r"|.*(Pool|Executor|Backend|Display|Warning|Error|Path|Template|Parameter|Signature)"
)

# The module's and the name's patterns, both matched whole, and the uses that they allow; the first counts.
_RULES: Final[tuple[tuple[re.Pattern[str], re.Pattern[str], frozenset[Use]], ...]] = tuple(
    (re.compile(module), re.compile(name), allowed)
    for module, name, allowed in (
        ("builtins", _BUILTINS, _CALL),
        ("collections", "OrderedDict|defaultdict|Counter|deque", _CALL),
        ("copyreg", "_reconstructor", _CALL),
        ("_codecs", "encode", _CALL),
        ("datetime", "date|datetime|time|timedelta|timezone", _CALL),
        ("joblib.numpy_pickle", "NumpyArrayWrapper", _NEW),
        ("numpy", "dtype", _CALL),
        ("numpy", f"ndarray|matrix|memmap|{_SCALARS}|{_UFUNCS}", _VALUE),
        (r"numpy\._core\.multiarray", "_reconstruct|scalar", _CALL),
        (r"numpy\._core\.numeric", "_frombuffer", _CALL),
        (r"numpy\.ma\.core", "_mareconstruct", _CALL),
        (r"numpy\.ma(\.core)?", "MaskedArray", _VALUE),
        (r"numpy\.random\._pickle", "__(bit_generator|generator|randomstate)_ctor", _CALL),
        (r"numpy\.random\.bit_generator", "__pyx_unpickle_SeedSequence", _CALL),
        (r"numpy\.random\.bit_generator", "SeedSequence", _VALUE),
        (r"numpy\.random\._(mt19937|pcg64|philox|sfc64)", _BIT_GENERATORS, _VALUE),
        (r"scipy\.sparse(\._?(csr|csc|coo|bsr|dia|dok|lil))?", _SPARSE, _NEW),
        (r"scipy\.interpolate(\._bsplines)?", "BSpline", _NEW),
        (r"scipy\.interpolate\._interpolate", "interp1d|PPoly|BPoly", _NEW),
        (r"scipy\.interpolate\._cubic", "(Cubic|Pchip|Akima1D|CubicHermite)(Spline|Interpolator)", _NEW),
        (r"scipy\._lib\.array_api_compat\.numpy(\._aliases)?", "asarray", _VALUE),
        (r"sklearn\.tree\._tree", "Tree", _CALL),
        (r"sklearn\.(_loss\._loss|linear_model\._sgd_fast)", r"_?[A-Z][A-Za-z0-9]*", _CALL),
        (r"sklearn\.[\w.]+", r"newObj|__pyx_unpickle_\w+", _CALL),
        (r"sklearn\.[\w.]+", r"_{0,2}[A-Z][A-Za-z0-9]*", _NEW),
        (r"sklearn\.feature_selection\.[\w.]+", r"chi2|f_\w+|mutual_info_\w+|r_regression", _VALUE),
        (r"sklearn\.metrics\.[\w.]+", r"\w+_(score|error|loss|kernels?|distances?|similarity)", _VALUE),
        (r"sklearn\.cluster\._kmeans", "_kmeans_single_(lloyd|elkan)", _VALUE),
        (r"xgboost\.sklearn", r"XGB\w*(Classifier|Regressor|Ranker|Model)", _NEW),
        (r"xgboost\.core", "Booster", _NEW),
        (r"lightgbm\.sklearn", r"LGBM(Classifier|Regressor|Ranker|Model)", _NEW),
        (r"lightgbm\.basic", "Booster", _NEW),
        ("torch", r"Size|device", _CALL),
        ("torch", r"\w+Storage|(b?float|u?int|complex)\d+(_e\w+)?|bool|half|double|long|short", _VALUE),
        (r"torch\.storage", "(Untyped|Typed)Storage", _VALUE),
        (r"torch\._utils", "_rebuild_(tensor_v2|tensor|parameter)", _CALL),
    )
)


def uses(name: Name) -> frozenset[Use]:
    """What a pickle may do with a class or function; empty where it may not even name it."""
    module, what = current(name)
    if module.startswith("sklearn.") and (_NO_MODEL.search(module) or _NO_CLASS.fullmatch(what)):
        return _NOTHING
    return next(
        (
            allowed
            for modules, names, allowed in _RULES
            if modules.fullmatch(module) and names.fullmatch(what)
        ),
        _NOTHING,
    )


def current(name: Name) -> Name:
    """The name in today's Python and numpy of something that has been renamed."""
    module, what = name
    return _RENAMED.get(module, module).replace("numpy.core.", "numpy._core."), what


def shown(name: Name) -> str:
    """A name made safe for a message: the pickle's author chose it."""
    return ascii(f"{name[0]}.{name[1]}")[1:-1][:160]
