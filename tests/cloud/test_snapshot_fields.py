"""Every field that is read back from the account is obeyed: something outside its reader reads it.

mypy finds the reads, so that a field does not pass because another class has one of the same name: in a copy
of the cloud, every field of a snapshot is a deprecated property, and mypy reports each use of one.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mypy import api as mypy

CLOUD = Path(__file__).parents[2] / "modelstacks" / "cloud"
MARK = '@typing_extensions.deprecated("")'
USED = re.compile(
    r"^([^:]+):(\d+): error: .*?modelstacks\.cloud\.services\.\w+\.snapshot\.(\w+)\.(\w+) is deprecated"
)


@dataclass(frozen=True, order=True)
class Member:
    """A field or a method of a snapshot's class."""

    cls: str
    name: str


def classes(source: str) -> list[ast.ClassDef]:
    return [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]


def held(source: str) -> Iterator[tuple[Member, ast.AnnAssign]]:
    """The fields of the dataclasses of a snapshot module."""
    for one in classes(source):
        for node in one.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield Member(one.name, node.target.id), node


def methods(source: str) -> Iterator[tuple[Member, ast.FunctionDef]]:
    """What a class can be asked; not `read`, which reads the account back and obeys nothing."""
    for one in classes(source):
        for node in one.body:
            if isinstance(node, ast.FunctionDef) and node.name != "read":
                yield Member(one.name, node.name), node


def deprecated(source: str) -> str:
    """The module with every field as a deprecated property and every method deprecated."""
    lines = source.splitlines()
    for member, field in held(source):
        lines[field.lineno - 1 : field.end_lineno] = [""] * ((field.end_lineno or 0) - field.lineno + 1)
        kind = ast.unparse(field.annotation)
        lines[field.lineno - 1] = f"    @property\n    {MARK}\n    def {member.name}(self) -> {kind}: ..."
    for _, method in methods(source):
        lines[method.lineno - 1] = f"    {MARK}\n{lines[method.lineno - 1]}"
        for decorator in method.decorator_list:
            lines[decorator.lineno - 1] = "    @property"
    future = "from __future__ import annotations"
    return "\n".join(lines).replace(future, f"{future}\nimport typing_extensions") + "\n"


def enclosing(source: str, line: int) -> Member | None:
    """The method that a line of a snapshot module belongs to."""
    return next((one for one, node in methods(source) if node.lineno <= line <= (node.end_lineno or 0)), None)


@pytest.fixture(scope="module")
def snapshots() -> dict[str, str]:
    """The source of every service's snapshot, by its path inside the cloud."""
    return {str(path.relative_to(CLOUD)): path.read_text() for path in CLOUD.glob("services/*/snapshot.py")}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory, snapshots: dict[str, str]) -> set[Member]:
    """What is read outside the snapshots' modules, or by a method that is itself read outside."""
    root = tmp_path_factory.mktemp("deprecated")
    copy = root / "modelstacks" / "cloud"
    shutil.copytree(CLOUD, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "modelstacks" / "__init__.py").touch()
    marked = {name: deprecated(source) for name, source in snapshots.items()}
    for name, source in marked.items():
        (copy / name).write_text(source)
    options = ["--follow-imports=skip", "--ignore-missing-imports", "--no-incremental", "--no-error-summary"]
    options += ["--no-color-output", "--config-file=", "--enable-error-code=deprecated", str(copy)]
    said, failure, _ = mypy.run(options)
    assert failure == ""
    known: set[Member] = set()
    inside: dict[Member, set[Member]] = {}
    for used in filter(None, map(USED.match, said.splitlines())):
        name = str(Path(used[1]).resolve().relative_to(copy.resolve()))
        member = Member(used[3], used[4])
        if name not in marked:
            known.add(member)
        elif (method := enclosing(marked[name], int(used[2]))) is not None:
            inside.setdefault(method, set()).add(member)
    while more := set().union(*(inside.get(one, set()) for one in known)) - known:
        known |= more
    return known


def test_every_field_of_a_snapshot_is_obeyed(snapshots: dict[str, str], read: set[Member]) -> None:
    fields = {member for source in snapshots.values() for member, _ in held(source)}
    assert len(fields) > 100
    unread = sorted(f"{one.cls}.{one.name}" for one in fields - read)
    assert not unread, f"read back and not obeyed: {', '.join(unread)}"


def test_the_names_of_the_snapshots_classes_are_their_own(snapshots: dict[str, str]) -> None:
    names = [one.name for source in snapshots.values() for one in classes(source)]
    assert sorted(names) == sorted(set(names))


def test_the_check_sees_through_methods_and_tells_classes_apart(read: set[Member]) -> None:
    assert {Member("CircuitBreaker", "threshold"), Member("CircuitBreaker", "limit")} <= read
    assert Member("TargetGroup", "arn") in read
    assert Member("ApiKey", "arn") not in read
