"""A user's own inference.py: what it finds installed where it runs, and what it asks for beyond that."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from pathlib import Path, PurePosixPath

from modelstacks.core.artifact.model_files import open_file
from modelstacks.core.engines import engine_facts

__all__ = ["SCRIPTS", "installed", "missing_requirements"]

SCRIPTS = ("inference.py", "code/inference.py")
# Another name of what is installed.
_SAME = {"xgboost-cpu": "xgboost", "sklearn": "scikit-learn"}
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]{0,100})(?=[\s\[<>=!~;,@#]|$)")
_FOR_BUILDS = {"setuptools"}
# numpy is the server's own, scipy is scikit-learn's.
_WITH_OTHERS = {"numpy", "scipy"}
# Bytes of a requirements.txt that are read.
_LONGEST = 1 << 16


@cache
def installed() -> tuple[str, ...]:
    """The distributions that a script can import: what the script engine's image has, and what comes with it.

    >>> "pandas" in installed(), "torch" in installed()
    (True, False)
    """
    packages = [_REQUIREMENT.match(package) for package in engine_facts("script").packages]
    named = {_plain(match[1]) for match in packages if match} - _FOR_BUILDS
    return tuple(sorted(named | _WITH_OTHERS))


def missing_requirements(directory: Path, paths: Collection[str], scripts: Collection[str]) -> str:
    """A warning where a requirements.txt is beside a script, since nothing installs it; else empty."""
    beside = [str(PurePosixPath(script).with_name("requirements.txt")) for script in scripts]
    found = next((path for path in beside if path in paths), None)
    if found is None:
        return ""
    with open_file(directory, found) as (content, _):
        lines = content.read(_LONGEST).decode(errors="replace").splitlines()
    asked = {_plain(match[1]): None for line in lines if (match := _REQUIREMENT.match(line))}
    missing = [name for name in asked if name not in installed()]
    said = (
        f"asks for {', '.join(missing[:8])}" if missing else "may ask for other versions than the image has"
    )
    return (
        f"{found} is not installed, since the container reaches no package index, and it {said}; "
        f"a script can import {', '.join(installed())}, and the modules beside it"
    )


def _plain(name: str) -> str:
    plain = re.sub(r"[-_.]+", "-", name).lower()
    return _SAME.get(plain, plain)
