"""When an assembly may be used again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelstacks.cli.synthesis import fingerprint, forget, recall, remember

CONTEXT = {"deployment": "churn.yaml", "architecture": "both"}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    for name in (
        "app.py",
        "stacks/model_stack.py",
        "node_modules/x.js",
        ".modelstacks/state.json",
        ".venv/y.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("1")
    return tmp_path


def written(project: Path) -> Path:
    assembly = project / ".modelstacks" / "cdk.out"
    assembly.mkdir(exist_ok=True)
    (assembly / "manifest.json").write_text("{}")
    remember(assembly, fingerprint(project, CONTEXT))
    return assembly


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda app: touch(app / "app.py"),
        lambda app: (app / "stacks" / "model_stack.py").write_text("22"),
        lambda app: (app / "stacks" / "new.py").touch(),
        lambda app: (app / "app.py").unlink(),
    ],
)
def test_any_change_of_an_input_asks_for_a_new_synth(app: Path, change: Callable[[Path], object]) -> None:
    assembly = written(app)
    assert recall(assembly, fingerprint(app, CONTEXT))
    change(app)
    assert not recall(assembly, fingerprint(app, CONTEXT))


@pytest.mark.parametrize("name", ["node_modules/x.js", ".modelstacks/state.json", ".venv/y.py"])
def test_what_tools_make_is_no_input(app: Path, name: str) -> None:
    assembly = written(app)
    touch(app / name)
    assert recall(assembly, fingerprint(app, CONTEXT))


def test_another_context_asks_for_a_new_synth(app: Path) -> None:
    assembly = written(app)
    assert not recall(assembly, fingerprint(app, {**CONTEXT, "architecture": "managed"}))


def test_an_assembly_that_is_being_written_or_is_gone_is_not_used(app: Path) -> None:
    assembly = written(app)
    wanted = fingerprint(app, CONTEXT)
    (assembly / "manifest.json").unlink()
    assert not recall(assembly, wanted)
    assembly = written(app)
    forget(assembly)
    assert not recall(assembly, wanted)


def test_a_change_of_the_toolkit_itself_is_a_change(
    app: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    toolkit = tmp_path_factory.mktemp("toolkit")
    before = fingerprint(app, CONTEXT, [toolkit])
    (toolkit / "model_stack.py").write_text("1")
    assert fingerprint(app, CONTEXT, [toolkit]) != before
