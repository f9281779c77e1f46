"""The version of its library that a model was saved with, against the one that serves it."""

from __future__ import annotations

from modelstacks.core.errors import UsageError

__all__ = ["judge_version"]

# What XGBoost saved as JSON or UBJSON is read by every later release; scikit-learn promises nothing.
_READS_OLDER_MAJORS = frozenset({"xgboost"})


def judge_version(framework: str, saved: str | None, served: str) -> str:
    """A warning about a model that was saved with another release series and loads all the same, or nothing.

    Raises:
        UsageError: the major versions differ, and the library does not read models of the other.

    Examples:
        >>> judge_version("scikit-learn", "1.9.0", "1.9.1")
        ''
        >>> judge_version("scikit-learn", "1.8.0", "1.9.1").partition(":")[0]
        'saved with scikit-learn 1.8.0, served with 1.9.1'
    """
    if saved is None or (series := _numbers(saved)) == (serving := _numbers(served)):
        return ""
    what = f"saved with {framework} {saved}, served with {served}"
    older = series[:1] < serving[:1] and framework in _READS_OLDER_MAJORS
    if series[:1] != serving[:1] and not older:
        raise UsageError(f"{what}: another major version", fix=f"save the model again with {served}")
    return f"{what}: predictions may differ; compare them, or save the model again with {served}"


def _numbers(version: str) -> tuple[int, ...]:
    """The release series: (1, 5) of 1.5.2."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
