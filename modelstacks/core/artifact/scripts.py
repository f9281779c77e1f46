"""A user's own inference.py: what it finds installed where it runs, and what it asks for beyond that."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from modelstacks.core.artifact.model_files import open_file

__all__ = ["INSTALLED", "SCRIPTS", "missing_requirements"]

SCRIPTS = ("inference.py", "code/inference.py")
# The distributions in the script engine's image: serving/pyproject.toml lists them, and a test compares.
INSTALLED = (
    *("joblib", "lightgbm", "numpy", "onnxruntime", "pandas", "pillow"),
    *("sagemaker-inference", "scikit-learn", "scipy", "xgboost"),
)
_SAME = {"xgboost-cpu": "xgboost", "sklearn": "scikit-learn"}  # another name of what is installed
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]{0,100})(?=[\s\[<>=!~;,@#]|$)")
_LONGEST = 1 << 16  # bytes of a requirements.txt that are read


def missing_requirements(directory: Path, paths: Collection[str], scripts: Collection[str]) -> str:
    """A warning where a requirements.txt is beside a script, since nothing installs it; else empty."""
    beside = [str(PurePosixPath(script).with_name("requirements.txt")) for script in scripts]
    found = next((path for path in beside if path in paths), None)
    if found is None:
        return ""
    with open_file(directory, found) as (content, _):
        lines = content.read(_LONGEST).decode(errors="replace").splitlines()
    asked = {_plain(match[1]): None for line in lines if (match := _REQUIREMENT.match(line))}
    missing = [name for name in asked if name not in INSTALLED]
    said = (
        f"asks for {', '.join(missing[:8])}" if missing else "may ask for other versions than the image has"
    )
    return (
        f"{found} is not installed, since the container reaches no package index, and it {said}; "
        f"a script can import {', '.join(INSTALLED)}, and the modules beside it"
    )


def _plain(name: str) -> str:
    plain = re.sub(r"[-_.]+", "-", name).lower()
    return _SAME.get(plain, plain)
