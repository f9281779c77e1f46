"""Finds the folders that travel with the toolkit: the image's build context, the functions, an example model.

A checkout has them beside the package (serving/, lambda/, model_artifacts/); an installed wheel has them in
modelstacks/bundle/, under the same names.
"""

from __future__ import annotations

from pathlib import Path

from modelstacks.core.errors import EnvironmentFault

__all__ = ["example_model", "functions", "serving"]

_PACKAGE = Path(__file__).resolve().parents[1]


def serving(package: Path = _PACKAGE) -> Path:
    """The build context of the serving image: Dockerfile, install.sh, requirements/ and model_server/."""
    return _find("serving", package)


def functions(package: Path = _PACKAGE) -> Path:
    """The folder that has a subfolder for each Lambda function's code."""
    return _find("lambda", package)


def example_model(package: Path = _PACKAGE) -> Path:
    """Return the folder of the small model with which `modelstacks new` starts a project."""
    return _find("model_artifacts/churn-xgboost", package)


def _find(name: str, package: Path) -> Path:
    """The bundled folder, else the one of the checkout that `package` belongs to."""
    candidates = (package / "bundle" / name, package.parent / name)
    found = next((folder for folder in candidates if folder.is_dir()), None)
    if found is None:
        raise EnvironmentFault(
            f"this installation of modelstacks has no {name}/ folder",
            got=f"neither {candidates[0]} nor {candidates[1]} exists",
            fix="install modelstacks again from its wheel, or work in a complete checkout",
        )
    return found
