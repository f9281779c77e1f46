"""The toolkit finds the folders that travel with it, in a checkout and in an installed wheel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelstacks.core import bundle
from modelstacks.core.errors import EnvironmentFault

ROOT = Path(__file__).parents[2]
FOLDERS = [(bundle.serving, "serving"), (bundle.functions, "lambda")]


@pytest.mark.parametrize(("find", "name"), FOLDERS)
def test_a_checkout_has_the_folders_beside_the_package(find: Callable[[], Path], name: str) -> None:
    assert find() == ROOT / name


@pytest.mark.parametrize(("find", "name"), FOLDERS)
def test_a_wheel_has_the_folders_inside_the_package(
    tmp_path: Path, find: Callable[[Path], Path], name: str
) -> None:
    package = tmp_path / "site-packages" / "modelstacks"
    (package / "bundle" / name).mkdir(parents=True)
    (tmp_path / "site-packages" / name).mkdir()  # of another distribution
    assert find(package) == package / "bundle" / name


@pytest.mark.parametrize(("find", "name"), FOLDERS)
def test_an_incomplete_installation_names_what_is_missing_and_the_fix(
    tmp_path: Path, find: Callable[[Path], Path], name: str
) -> None:
    with pytest.raises(EnvironmentFault, match=rf"no {name}/ folder.*install modelstacks again"):
        find(tmp_path / "modelstacks")
