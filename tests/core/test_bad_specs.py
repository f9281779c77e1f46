"""Specs with faults, each with the exact words that its author reads.

Every file in bad_specs/ begins with comments: one for each fault, `# LINE: FIELD: MESSAGE`. To add a case,
write the YAML and run this test: it prints the message to judge and to paste.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from modelstacks.core.errors import SpecInvalid
from modelstacks.core.spec.validation import read_spec

BAD_SPECS = sorted((Path(__file__).parent / "bad_specs").glob("*.yaml"))


def expected(path: Path) -> list[str]:
    header = []
    for line in path.read_text().splitlines():
        if not line.startswith("# "):
            break
        header.append(line.removeprefix("# "))
    return header


@pytest.mark.parametrize("path", BAD_SPECS, ids=lambda path: path.stem)
def test_a_bad_spec_is_refused_in_exactly_these_words(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with pytest.raises(SpecInvalid) as refused:
        read_spec(Path(path.name))
    assert str(refused.value).splitlines() == [f"{path.name}:{line}" for line in expected(path)]


def test_there_are_at_least_forty_of_them() -> None:
    assert len(BAD_SPECS) >= 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "spec.yaml:1: the file is empty; fix: modelstacks init writes a spec to start from"),
        (
            b"# only a comment\n",
            "spec.yaml:1: the file is empty; fix: modelstacks init writes a spec to start from",
        ),
        (b"name: churn\nlabel: \xff\xfe\n", "spec.yaml:2: not UTF-8 text; fix: save the file as UTF-8"),
        (b"#" * ((1 << 20) + 1), "spec.yaml:1: the file is 1048577 bytes; a spec has at most 1048576"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "spec.yaml:1: not valid YAML: it is nested too deeply"),
        (b"name: \x00\n", "spec.yaml:1: not valid YAML: special characters are not allowed"),
    ],
    ids=["empty", "comment", "latin-1", "huge", "deep", "control character"],
)
def test_bytes_that_are_no_spec_at_all_are_refused(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_bytes(content)
    with pytest.raises(SpecInvalid) as refused:
        read_spec(Path("spec.yaml"))
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.yaml", "absent.yaml:1: no such file; fix: modelstacks init writes a spec to start from"),
        ("folder", "folder:1: this is a folder, not a spec; fix: name the YAML file in it"),
    ],
)
def test_a_path_without_a_spec_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(SpecInvalid) as refused:
        read_spec(Path(name))
    assert str(refused.value) == message
