"""Discovery: what a file in sources/ or targets/ has to declare, and what is said of one that does not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelstacks.core.registry import (
    ArtifactSource,
    RemoteSource,
    Target,
    default_target,
    discover,
    the_default,
)

TARGET = default_target("self-hosted")
IMPORT = "from modelstacks.core.registry import Source, default_target\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Writes a package of modules, and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**modules: str) -> str:
        (tmp_path / "declared_here").mkdir()
        (tmp_path / "declared_here" / "__init__.py").write_text("")
        for name, source in modules.items():
            (tmp_path / "declared_here" / f"{name}.py").write_text(source)
        return "declared_here"

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "declared_here"]:
        del sys.modules[name]


def test_a_module_that_declares_nothing_is_named(package: Callable[..., str]) -> None:
    name = package(empty="TARGETS = []\n")
    with pytest.raises(TypeError, match=r"declared_here.empty must define TARGET = Target\(...\)"):
        discover(name, "TARGET", Target)


def test_a_source_of_no_kind_is_named(package: Callable[..., str]) -> None:
    source = "SOURCE = Source(name='x', summary='x', spec=None, example='')\n"
    name = package(vague=IMPORT + source)
    with pytest.raises(TypeError, match="must define SOURCE = ArtifactSource or RemoteSource"):
        discover(name, "SOURCE", ArtifactSource, RemoteSource)


def test_two_modules_cannot_have_one_name(package: Callable[..., str]) -> None:
    again = IMPORT + "TARGET = default_target('managed')\n"
    name = package(first=again, second=again)
    with pytest.raises(TypeError, match=r"declared_here.second repeats the name 'sagemaker-endpoint'"):
        discover(name, "TARGET", Target)


def test_declarations_are_found_by_their_names(package: Callable[..., str]) -> None:
    name = package(first=IMPORT + "TARGET = default_target('managed')\n")
    assert dict(discover(name, "TARGET", Target)) == {"sagemaker-endpoint": default_target("managed")}


@pytest.mark.parametrize(
    ("others", "got"), [([], "none"), (["a", "b"], "a, b")], ids=["no default", "two defaults"]
)
def test_exactly_one_target_of_an_architecture_is_the_default(others: list[str], got: str) -> None:
    known = [
        replace(TARGET, default=False),
        *(replace(TARGET, name=name, default=True) for name in others),
    ]
    with pytest.raises(TypeError, match=f"target must have default=True, got {got} of ecs-fargate"):
        the_default("self-hosted", known)
